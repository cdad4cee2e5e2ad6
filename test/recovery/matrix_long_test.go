//go:build long

package recovery_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// next is the minor to which a cluster is upgraded. One at a time: 3.5 with requests of the v2
// API in its WAL that is taken to 3.6 and at once to 3.7 panics.
var next = map[string]string{"3.5": "3.6", "3.6": "3.7"}

// TestLongMatrix restores one snapshot of each version, with users and leases, to clusters of
// each size, with and without a bump of the revision. What comes out lives as any other cluster: it
// forms, its members are the same also when each was started again, it takes one more member,
// and it can be upgraded.
func TestLongMatrix(t *testing.T) {
	program := replaceProgram(t)
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := newSecured(t, program, version)
			for _, size := range []int{1, 3, 5} {
				for _, bump := range []string{"auto", "0"} {
					t.Run(fmt.Sprintf("%d/bump=%s", size, bump), func(t *testing.T) {
						t.Parallel()
						s.live(t, size, bump)
					})
				}
			}
		})
	}
}

// secured is a snapshot of a cluster with users and leases, which is no more.
type secured struct {
	*testserver.Cluster
	program string
	env     []string
	leases  map[clientv3.LeaseID][]string // with their keys
	keys    int64
}

func newSecured(t *testing.T, program, version string) *secured {
	t.Helper()
	s := &secured{program: program, Cluster: testserver.StartCluster(t, testserver.Options{Version: version})}
	s.env = append(environment(t), "ETCDCTL_USER=root:secret")
	filled := testserver.Fill(t, s.Client(t), testserver.FillOptions{Keys: 500, Seed: 5, Compact: true})
	if len(filled.Leases) == 0 {
		t.Fatal("no lease")
	}
	s.AddUser(t, "app", "of the app", "app")
	s.EnableAuth(t, "secret")
	s.leases, s.keys = leases(t, s.Client(t)), count(t, s.Client(t))
	s.run(t, "init")
	s.run(t, "backup", "--endpoints="+strings.Join(s.Endpoints(), ","))
	s.Members[0].Kill()
	return s
}

// environment has an empty repository.
func environment(t *testing.T) []string {
	t.Helper()
	return append(os.Environ(), "BACKUPD_CLUSTER=prod", "BACKUPD_REPO=file://"+filepath.Join(t.TempDir(), "repo"),
		"BACKUPD_SPOOL_MIN_FREE=0B", "TMPDIR="+t.TempDir())
}

// run runs the program.
func (s *secured) run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(s.program, args...)
	cmd.Env, cmd.Dir = s.env, t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("backupd %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// restore makes a cluster of that size from the snapshot.
func (s *secured) restore(t *testing.T, size int, bump string) *testserver.Cluster {
	t.Helper()
	dir := t.TempDir()
	plan, out := filepath.Join(dir, "plan.yaml"), filepath.Join(dir, "out")
	var run []testserver.RestoredMember
	var members []string
	for i := range size {
		m := testserver.RestoredMember{Name: fmt.Sprintf("n%d", i+1), PeerURL: testserver.FreeURL(t),
			ClientURL: testserver.FreeURL(t)}
		m.DataDir = filepath.Join(out, m.Name)
		run, members = append(run, m), append(members, m.Name+"="+m.PeerURL)
	}
	s.run(t, "plan", "latest", "--output="+plan, "--bump-revision="+bump, "--initial-cluster="+strings.Join(members, ","))
	s.run(t, "restore", "--plan="+plan, "--all-members", "--output-dir="+out)
	c := s.StartRestored(t, run, "--unsafe-no-fsync")
	s.run(t, "verify-cluster", "--plan="+plan, "--endpoints="+strings.Join(c.Endpoints(), ","))
	return c
}

// live has a restored cluster live on.
func (s *secured) live(t *testing.T, size int, bump string) {
	c := s.restore(t, size, bump)
	s.holds(t, c)
	c.AddMember(t)
	if n := len(c.Endpoints()); n != size+1 {
		t.Errorf("%d members", n)
	}
	s.holds(t, c)
	for _, m := range c.Members {
		m.Kill()
		m.Restart(t)
	}
	c.WaitReady(t)
	s.holds(t, c)
	if to := next[s.Version]; to != "" {
		c.Upgrade(t, to)
		s.holds(t, c)
	}
}

// holds fails unless all members hold the same, which is what was backed up, for those who may
// see it, and takes a write.
func (s *secured) holds(t *testing.T, c *testserver.Cluster) {
	t.Helper()
	client := c.Client(t)
	if got := leases(t, client); !reflect.DeepEqual(got, s.leases) {
		t.Errorf("the leases are %v, want %v", got, s.leases)
	}
	if got := count(t, client); got != s.keys {
		t.Errorf("%d keys, want %d", got, s.keys)
	}
	if _, err := c.ClientAs(t, "", "").Get(t.Context(), "any"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("without a login: %v", err)
	}
	app := c.ClientAs(t, "app", "of the app")
	if _, err := app.Put(t.Context(), "after", "the restore"); err != nil {
		t.Errorf("the user of the snapshot: %v", err)
	}
	if _, err := app.UserList(t.Context()); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Errorf("a user that is not root lists users: %v", err)
	}
	resp, err := client.Delete(t.Context(), "after")
	if err != nil {
		t.Fatal(err)
	}
	sameHash(t, c, resp.Header.Revision)
}

// sameHash fails unless every member has the same HashKV at a revision.
func sameHash(t *testing.T, c *testserver.Cluster, rev int64) {
	t.Helper()
	client, seen := c.Client(t), map[string]uint32{}
	for _, url := range c.Endpoints() {
		testserver.Eventually(t, url+" answers HashKV", func() bool {
			h, err := client.HashKV(t.Context(), url, rev)
			if err == nil {
				seen[url] = h.Hash
			}
			return err == nil
		})
	}
	for url, hash := range seen {
		if hash != seen[c.Endpoints()[0]] {
			t.Errorf("HashKV at %d: %s has %d, all are %v", rev, url, hash, seen)
		}
	}
}

// leases returns all leases with the keys that are attached.
func leases(t *testing.T, client *clientv3.Client) map[clientv3.LeaseID][]string {
	t.Helper()
	resp, err := client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[clientv3.LeaseID][]string{}
	for _, l := range resp.Leases {
		of, err := client.TimeToLive(t.Context(), l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		out[l.ID] = []string{}
		for _, key := range of.Keys {
			out[l.ID] = append(out[l.ID], string(key))
		}
		slices.Sort(out[l.ID])
	}
	return out
}

// count returns how many keys of the snapshot there are.
func count(t *testing.T, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Get(t.Context(), "fill/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Count
}
