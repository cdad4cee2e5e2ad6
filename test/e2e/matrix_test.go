package e2e_test

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMatrix takes a snapshot of a three-member cluster of every version into a
// directory and into S3, destroys the cluster, and restores it to one and to
// three members, which servers of the same version must accept as their own. How such
// clusters live on is shown by TestLongMatrix.
func TestMatrix(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			testVersion(t, version)
		})
	}
}

func testVersion(t *testing.T, version string) {
	source := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
	cl := source.Client(t)
	testserver.Fill(t, cl, testserver.FillOptions{Seed: 11, Compact: true})
	s3 := testserver.StartS3(t)
	endpoints := "ETCDCTL_ENDPOINTS=" + strings.Join(source.Endpoints(), ",")
	repos := map[string]*cli{
		"file": newCLI(t, endpoints, "BACKUPD_CLUSTER=prod", "BACKUPD_REPO=file://"+t.TempDir()),
		"s3":   newCLI(t, append(s3.Env(), endpoints, "BACKUPD_CLUSTER=prod", "BACKUPD_REPO="+s3.URL("a/b"))...),
	}
	taken := map[string]manifest{}
	for kind, c := range repos {
		c.run(t, "init")
		taken[kind] = decode[snapshot](t, c.run(t, "backup", "-w", "json")).Manifest
	}
	rev := taken["file"].Revision
	want := contents(t, cl, rev)
	for ep, h := range hashes(t, source, rev) {
		if h != taken["file"].HashKV.Hash {
			t.Fatalf("%s answers HashKV %d, the manifest says %d", ep, h, taken["file"].HashKV.Hash)
		}
	}
	for _, m := range source.Members {
		m.Kill()
	}
	for kind, c := range repos {
		for _, size := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", kind, size), func(t *testing.T) {
				restored := restore(t, c, version, taken[kind], size)
				for ep, h := range hashes(t, restored, rev) {
					if h != taken[kind].HashKV.Hash {
						t.Errorf("restored %s answers HashKV %d, want %d", ep, h, taken[kind].HashKV.Hash)
					}
				}
				cl := restored.Client(t)
				if !equal(contents(t, cl, rev), want) {
					t.Error("the restored keys differ")
				}
				put(t.Context(), t, cl, "after")
			})
		}
	}
}

// plan is the JSON of a restore.
type plan struct {
	Members []member
	Targets []struct{ Member, DataDir string }
	Token   string
}

// restore restores the latest snapshot and starts it: one member under a new
// name and URL, or all three as the manifest records them.
func restore(t *testing.T, c *cli, version string, m manifest, size int) *testserver.Cluster {
	t.Helper()
	dir := t.TempDir()
	// HashKV at the old revision is compared, which a bump would have compacted.
	args := []string{"restore", "latest", "-w", "json", "--bump-revision", "0", "--all-members", "--output-dir",
		filepath.Join(dir, "all")}
	if size == 1 {
		args = []string{"restore", m.ID[:16], "-w", "json", "--bump-revision", "0", "--name", "solo", "--data-dir",
			filepath.Join(dir, "solo"),
			"--initial-cluster", "solo=" + testserver.FreeURL(t)}
	}
	p := decode[plan](t, c.run(t, args...))
	if len(p.Members) != size || len(p.Targets) != size {
		t.Fatalf("planned %+v, want %d members", p, size)
	}
	if size == 3 {
		for i, pm := range p.Members {
			if !reflect.DeepEqual(pm.PeerURLs, peerURLs(m, pm.Name)) || pm.ID == m.Members[i].ID {
				t.Errorf("planned member %+v: want the recorded URLs and, by the fresh token, a new id", pm)
			}
		}
	}
	var run []testserver.RestoredMember
	for i, target := range p.Targets {
		run = append(run, testserver.RestoredMember{
			Name: target.Member, DataDir: target.DataDir, PeerURL: p.Members[i].PeerURLs[0],
			ClientURL: testserver.FreeURL(t),
		})
	}
	restored := testserver.StartRestored(t, version, run)
	sortMembers(p.Members)
	if got := members(t, restored.Client(t)); !reflect.DeepEqual(got, p.Members) {
		t.Errorf("member list is %+v, planned was %+v", got, p.Members)
	}
	return restored
}

func peerURLs(m manifest, name string) []string {
	for _, mem := range m.Members {
		if mem.Name == name {
			return mem.PeerURLs
		}
	}
	return nil
}
