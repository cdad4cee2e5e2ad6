//go:build long

package recovery_test

import (
	"context"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongApart: a member that was forgotten, and one of another restore of the same snapshot,
// start beside two members of a restore, at the address of the third. They do not come in, and
// nothing of theirs does. The third then does.
func TestLongApart(t *testing.T) {
	program := replaceProgram(t)
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			t.Run("Old", func(t *testing.T) { t.Parallel(); testApart(t, program, version, false) })
			t.Run("OtherRestore", func(t *testing.T) { t.Parallel(); testApart(t, program, version, true) })
		})
	}
}

func testApart(t *testing.T, program, version string, other bool) {
	source := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Seed: 6})
	s := &secured{program: program, Cluster: source, env: environment(t)}
	s.run(t, "init")
	s.run(t, "backup", "--endpoints="+strings.Join(source.Endpoints(), ","))
	if _, err := source.Client(t).Put(t.Context(), "later", "than the snapshot"); err != nil {
		t.Fatal(err)
	}
	clusters := map[string]bool{clusterID(t, source): true}
	dir := t.TempDir()
	plan, beside := filepath.Join(dir, "plan.yaml"), filepath.Join(dir, "beside.yaml")
	s.run(t, "plan", "latest", "--output="+plan)
	s.run(t, "plan", "latest", "--output="+beside)
	var run []testserver.RestoredMember
	for _, m := range source.Members {
		m.Kill()
		run = append(run, testserver.RestoredMember{Name: m.Name, DataDir: filepath.Join(dir, "out", m.Name),
			PeerURL: m.PeerURL, ClientURL: m.ClientURL})
	}
	s.run(t, "restore", "--plan="+plan, "--all-members", "--output-dir="+filepath.Join(dir, "out"))
	intruder := source.Members[2]
	if other {
		s.run(t, "restore", "--plan="+beside, "--name="+intruder.Name, "--data-dir="+intruder.DataDir, "--replace", "--new")
	}
	two := source.StartRestored(t, run[:2], "--unsafe-no-fsync")
	clusters[clusterID(t, two)] = true

	intruder.Restart(t)
	for _, m := range append(two.Members, intruder) {
		testserver.Eventually(t, m.Name+" says that the other is of another cluster", func() bool {
			return strings.Contains(m.Log(), "cluster ID mismatch")
		})
	}
	clusters[ownCluster(t, intruder)] = true
	if want := map[bool]int{false: 2, true: 3}[other]; len(clusters) != want {
		t.Errorf("%d cluster ids, want %d: %v", len(clusters), want, clusters)
	}
	s.isApart(t, two, intruder)

	intruder.Kill()
	third := source.StartRestored(t, run[2:], "--unsafe-no-fsync")
	all := append(two.Endpoints(), third.Endpoints()...)
	s.run(t, "verify-cluster", "--plan="+plan, "--endpoints="+strings.Join(all, ","))
	hasNothingLater(t, third)
}

// isApart fails unless the two are a cluster with the data of the plan, and the other is in none.
func (s *secured) isApart(t *testing.T, two *testserver.Cluster, intruder *testserver.Member) {
	t.Helper()
	alone := &testserver.Cluster{Version: s.Version, Members: []*testserver.Member{intruder}}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := alone.Client(t).Put(ctx, "later", "to the intruder"); err == nil {
		t.Error("the intruder takes writes")
	}
	if !intruder.Running() {
		t.Error("the intruder has ended")
	}
	hasNothingLater(t, two)
	resp, err := two.Client(t).Put(t.Context(), "after", "the restore")
	if err != nil {
		t.Fatal(err)
	}
	sameHash(t, two, resp.Header.Revision)
}

func hasNothingLater(t *testing.T, c *testserver.Cluster) {
	t.Helper()
	resp, err := c.Client(t).Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil || len(resp.Kvs) < 50 {
		t.Fatalf("%d keys, %v", len(resp.Kvs), err)
	}
	for _, kv := range resp.Kvs {
		if string(kv.Key) == "later" {
			t.Error("what was written after the snapshot is there")
		}
	}
}

func clusterID(t *testing.T, c *testserver.Cluster) string {
	t.Helper()
	resp, err := c.Client(t).Status(t.Context(), c.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(resp.Header.ClusterId, 16)
}

var localCluster = regexp.MustCompile(`"local-member-cluster-id":"([0-9a-f]+)"`)

// ownCluster returns the id of the cluster of a member that is in none.
func ownCluster(t *testing.T, m *testserver.Member) string {
	t.Helper()
	found := localCluster.FindAllStringSubmatch(m.Log(), -1)
	if len(found) == 0 {
		t.Fatalf("%s does not say of which cluster it is", m.Name)
	}
	return found[len(found)-1][1]
}
