//go:build long

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongPlan restores a cluster that was out of space on three hosts, from one file that was
// carried to them and nothing else, with newer backups in between.
func TestLongPlan(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3})
	cl := source.Client(t)
	testserver.Fill(t, cl, testserver.FillOptions{Keys: 200, Seed: 9})
	_, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE,
	})
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"BACKUPD_REPO=file://" + filepath.Join(t.TempDir(), "repo"), "BACKUPD_CLUSTER=prod"}
	operator := newHost(t, env...)
	backup := "backupd backup --endpoints " + strings.Join(source.Endpoints(), ",")
	operator.want(t, 0, "backupd init && "+backup)
	operator.want(t, 0, "backupd plan latest --output plan.yaml && backupd plan latest --output other.yaml")
	if _, err := cl.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	put(t.Context(), t, cl, "newer")
	operator.want(t, 0, backup)
	for _, m := range source.Members {
		m.Kill()
	}

	var run []testserver.RestoredMember
	var tokens []string
	for _, m := range source.Members {
		h := newHost(t)
		plan, err := os.ReadFile(filepath.Join(operator.dir, "plan.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(h.dir, "plan.yaml"), string(plan))
		out, stderr := h.want(t, 0, "backupd restore --plan plan.yaml --name "+m.Name+" --data-dir data --dry-run")
		contains(t, out+stderr, "NOSPACE of the old member 7 is cleared", "revision bumped by ")
		out, _ = h.want(t, 0, "backupd restore --plan plan.yaml --name "+m.Name+" --data-dir data -w json")
		r := decode[restored](t, out)
		tokens = append(tokens, r.Token)
		if len(r.Others) != 2 || !strings.Contains(r.Others[0].Line, "--plan="+h.dir) {
			t.Errorf("commands for the others: %+v", r.Others)
		}
		run = append(run, testserver.RestoredMember{Name: m.Name, DataDir: filepath.Join(h.dir, "data"), PeerURL: m.PeerURL,
			ClientURL: testserver.FreeURL(t)})
	}
	if tokens[0] != tokens[1] || tokens[0] != tokens[2] || !strings.Contains(tokens[0], "-nospace-plan") {
		t.Errorf("tokens %q", tokens)
	}
	out, _ := newHost(t).want(t, 0, "backupd restore --plan "+filepath.Join(operator.dir, "other.yaml")+
		" --name m1 --data-dir data -w json --new")
	if got := decode[restored](t, out); got.Token == tokens[0] {
		t.Errorf("another plan has the same token %s", got.Token)
	}

	c := testserver.StartRestored(t, "3.7", run)
	seen := map[uint32]bool{}
	for _, hash := range hashes(t, c, 0) {
		seen[hash] = true
	}
	if len(seen) != 1 {
		t.Errorf("the members hold different data: %v", seen)
	}
	out, _ = operator.want(t, 0, "backupd verify-cluster --plan plan.yaml --endpoints "+strings.Join(c.Endpoints(), ","))
	if resp, err := c.Client(t).Get(t.Context(), "newer"); err != nil || len(resp.Kvs) > 0 {
		t.Errorf("what was written after the snapshot: %v, %v\n%s", resp, err, out)
	}
	put(t.Context(), t, c.Client(t), "after")
}
