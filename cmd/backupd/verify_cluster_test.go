package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/confirm"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestVerifyCluster: the exit code and the answer, in each form, for a cluster that is as
// planned and for one of which a member does not run, is of another cluster, or holds other
// data.
func TestVerifyCluster(t *testing.T) {
	dir, endpoint, peer := t.TempDir(), testserver.FreeURL(t), testserver.FreeURL(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	source := testserver.StartCluster(t, testserver.Options{})
	client := source.Client(t)
	save := func(name, value string) restore.Source {
		_, err := client.Put(t.Context(), "key", value)
		must(err)
		stream, err := client.Snapshot(t.Context())
		must(err)
		raw, err := io.ReadAll(stream)
		must(err)
		must(os.WriteFile(filepath.Join(dir, name), raw, 0o600))
		src, err := restore.FromFile(t.Context(), filepath.Join(dir, name), restore.RequireHash, nil)
		must(err)
		return src
	}
	file := func(name string, src restore.Source) (string, *restore.Plan) {
		p, err := restore.NewPlan(src.About(), restore.Request{InitialCluster: "m1=" + peer})
		must(err)
		must(p.Seal(restore.Stored{}, nil, time.Now()))
		raw, err := p.Marshal()
		must(err)
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, raw, 0o600))
		return path, p
	}
	src := save("snapshot.db", "a")
	good, p := file("plan", src)
	other, _ := file("other", src)
	check := func(want int, text string, args ...string) string {
		t.Helper()
		args = append([]string{"verify-cluster", "--endpoints", endpoint, "--command-timeout", "2s"}, args...)
		code, stdout, stderr := backupd(args...)
		if code != want || !strings.Contains(stdout+stderr, text) {
			t.Errorf("%v: exit code %d, want %d and %q\n%s%s", args[3:], code, want, text, stdout, stderr)
		}
		return stdout
	}
	check(exitFailed, "no endpoint reaches it", "--plan", good)

	m1 := testserver.RestoredMember{Name: "m1", DataDir: filepath.Join(dir, "m1"), PeerURL: peer, ClientURL: endpoint}
	site := restore.Site{Name: "m1", DataDir: m1.DataDir}
	work, err := site.Check(t.Context(), p)
	must(err)
	must(work.Execute(t.Context(), src, restore.Options{}))
	etcd := testserver.StartRestored(t, "3.7", []testserver.RestoredMember{m1})

	check(exitOK, "--no-write", "--plan", good, "--no-write", "-w", "table")
	check(exitRefused, "another cluster than the plan's", "--plan", other)
	check(exitRefused, "restored by another plan of this snapshot, or etcd did not find the restored WAL", "--plan", other)
	check(exitRefused, "if one has "+p.ClusterID.String(), "--plan", other)
	out := check(exitOK, ": green\n", "--plan", good)
	if !strings.Contains(out, "verified") || !strings.Contains(out, "UTC") {
		t.Errorf("no phases:\n%s", out)
	}
	var doc struct {
		confirm.Report
		Kind string
	}
	must(json.Unmarshal([]byte(check(exitOK, "", "--plan", good, "-w", "json")), &doc))
	if doc.Kind != kindClusterVerification || doc.State != confirm.Green || doc.ClusterID != p.ClusterID ||
		doc.Failures != 0 || len(doc.Findings) < 8 || doc.Findings[0].Level != backup.LevelOK || len(doc.Phases) < 3 {
		t.Errorf("got %+v", doc)
	}

	etcd.Members[0].Kill()
	testserver.StartRestored(t, "3.7", []testserver.RestoredMember{m1}, "--data-dir="+filepath.Join(dir, "empty"),
		"--initial-cluster=m1="+peer, "--initial-cluster-token="+p.Token)
	check(exitIntegrity, "it does not hold it", "--plan", good)

	check(exitUsage, "no plan")
	check(exitUsage, "--wait", "--plan", good, "--wait", "-1s")
	check(exitUsage, "no such file", "--plan", filepath.Join(dir, "none"))
}
