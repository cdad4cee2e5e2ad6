package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// plannedMembers are size members on free ports, in dir.
func plannedMembers(t testing.TB, dir string, size int) (members []testserver.RestoredMember, initial string) {
	var parts []string
	for i := range size {
		m := testserver.RestoredMember{
			Name: fmt.Sprintf("m%d", i+1), PeerURL: testserver.FreeURL(t), ClientURL: testserver.FreeURL(t),
		}
		m.DataDir = filepath.Join(dir, m.Name)
		members = append(members, m)
		parts = append(parts, m.Name+"="+m.PeerURL)
	}
	return members, strings.Join(parts, ",")
}

// TestExecute_Boots starts servers of the snapshot's version on restored data.
func TestExecute_Boots(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		f := fixtureOf(t, version)
		for _, size := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d", version, size), func(t *testing.T) {
				dir := t.TempDir()
				members, initial := plannedMembers(t, dir, size)
				p := restoreFile(t, f.snapshot, request{
					Site: restore.Site{OutputDir: dir}, Request: restore.Request{InitialCluster: initial},
				})
				noLitter(t, dir)
				c := testserver.StartRestored(t, version, members)
				client := c.Client(t)
				for _, endpoint := range c.Endpoints() {
					resp, err := client.HashKV(t.Context(), endpoint, int64(f.hash.Revision))
					must(t, err)
					if resp.Hash != f.hash.Hash {
						t.Errorf("HashKV of %s is %d, of the source %d", endpoint, resp.Hash, f.hash.Hash)
					}
				}
				list, err := client.MemberList(t.Context())
				must(t, err)
				got := map[backup.MemberID]string{}
				for _, m := range list.Members {
					got[backup.MemberID(m.ID)] = m.Name + " " + strings.Join(m.PeerURLs, ",")
				}
				for _, m := range p.Members {
					if want := m.Name + " " + strings.Join(m.PeerURLs, ","); got[m.ID] != want {
						t.Errorf("member %s is %q, planned was %q", m.ID, got[m.ID], want)
					}
				}
				if len(got) != size || backup.MemberID(list.Header.ClusterId) != p.ClusterID {
					t.Errorf("cluster %x of %d members, planned was %s of %d", list.Header.ClusterId, len(got),
						p.ClusterID, size)
				}
				resp, err := client.Put(t.Context(), "after", "restore")
				if err != nil || resp.Header.Revision != int64(f.hash.Revision)+1 {
					t.Errorf("put: %v, %v", resp, err)
				}
			})
		}
	}
}

// TestExecute_Bumped watches from before a restore.
func TestExecute_Bumped(t *testing.T) {
	f := newest(t)
	members, initial := plannedMembers(t, t.TempDir(), 1)
	restoreFile(t, f.snapshot, request{
		Site:    restore.Site{OutputDir: filepath.Dir(members[0].DataDir)},
		Request: restore.Request{InitialCluster: initial, BumpRevision: 1_000_000, MarkCompacted: true},
	})
	client := testserver.StartRestored(t, f.version, members).Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watched := <-client.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(int64(f.hash.Revision)+1))
	if !errors.Is(watched.Err(), rpctypes.ErrCompacted) {
		t.Errorf("a watcher of the old cluster gets %v, want compacted", watched.Err())
	}
	resp, err := client.Put(ctx, "after", "restore")
	must(t, err)
	if want := int64(f.hash.Revision) + 1_000_001; resp.Header.Revision != want {
		t.Errorf("revision %d, want %d", resp.Header.Revision, want)
	}
}

// TestExecute_Alarm restores a cluster that was out of space.
func TestExecute_Alarm(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{Args: []string{"--quota-backend-bytes=2000000"}})
	client := source.Client(t)
	value := strings.Repeat("x", 200_000)
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = client.Put(t.Context(), fmt.Sprint("key", i), value)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("a quota of 2 MB filled with 20 MB: %v", err)
	}
	path := download(t, client, filepath.Join(t.TempDir(), "snapshot.db"))
	for _, clear := range []bool{false, true} {
		t.Run(fmt.Sprintf("Clear=%v", clear), func(t *testing.T) {
			members, initial := plannedMembers(t, t.TempDir(), 1)
			p := restoreFile(t, path, request{
				Site:    restore.Site{OutputDir: filepath.Dir(members[0].DataDir)},
				Request: restore.Request{InitialCluster: initial, ClearAlarms: clear},
			})
			if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "NOSPACE") {
				t.Errorf("the plan does not mention the alarm: %s", notes)
			}
			client := testserver.StartRestored(t, source.Version, members).Client(t)
			_, err := client.Put(t.Context(), "after", "restore")
			if clear && err != nil || !clear && !errors.Is(err, rpctypes.ErrNoSpace) {
				t.Errorf("put: %v", err)
			}
			alarms, err := client.AlarmList(t.Context())
			must(t, err)
			if clear && len(alarms.Alarms) > 0 || !clear && alarms.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
				t.Errorf("alarms: %v", alarms.Alarms)
			}
		})
	}
}

// TestExecute_Auth restores a cluster that asks for passwords.
func TestExecute_Auth(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	source.AddUser(t, "reader", "secret", "readers")
	_, err := source.Client(t).Put(t.Context(), "key", "value")
	must(t, err)
	source.EnableAuth(t, "root-secret")
	path := download(t, source.Client(t), filepath.Join(t.TempDir(), "snapshot.db"))

	members, initial := plannedMembers(t, t.TempDir(), 1)
	p := restoreFile(t, path, request{
		Site:    restore.Site{OutputDir: filepath.Dir(members[0].DataDir)},
		Request: restore.Request{InitialCluster: initial},
	})
	if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "auth is enabled") {
		t.Errorf("the plan does not mention auth: %s", notes)
	}
	c := source.StartRestored(t, members)
	for _, user := range []string{"root", "reader"} {
		password := map[string]string{"root": "root-secret", "reader": "secret"}[user]
		if resp, err := c.ClientAs(t, user, password).Get(t.Context(), "key"); err != nil || len(resp.Kvs) != 1 {
			t.Errorf("get as %s: %v, %v", user, resp, err)
		}
	}
	if _, err := c.ClientAs(t, "", "").Get(t.Context(), "key"); !errors.Is(err, rpctypes.ErrUserEmpty) {
		t.Errorf("get without a login: %v", err)
	}
}

// TestExecute_ClosedToServers starts real servers on a target between the steps
// of a restore with a WAL directory of its own. None may begin to work there.
func TestExecute_ClosedToServers(t *testing.T) {
	f := newest(t)
	crash := errors.New("crash")
	for _, before := range []string{"new", "old"} {
		g := newGround(t, f, t.TempDir(), before, true)
		req := g.request()
		req.before = func(_, path string) error {
			if path == g.WALDir {
				return crash
			}
			return nil
		}
		src := fromFile(t, f.snapshot)
		w, err := req.plan(t.Context(), src)
		must(t, err)
		if err := req.execute(t.Context(), w, src); !errors.Is(err, crash) {
			t.Fatal(err)
		}
		was := identities(t, g.root)
		for _, version := range testserver.Versions(t) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			out, err := exec.CommandContext(ctx, testserver.Binary(t, version, "etcd"),
				"--name=m1", "--data-dir="+g.DataDir, "--wal-dir="+g.WALDir,
				"--listen-peer-urls="+testserver.FreeURL(t), "--listen-client-urls="+testserver.FreeURL(t),
				"--advertise-client-urls=http://10.0.0.1:1").CombinedOutput()
			cancel()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() < 1 {
				t.Errorf("%s, etcd %s on a closed target: %v\n%s", before, version, err, out)
			}
		}
		same(t, before+", after servers were tried", identities(t, g.root), was)
		g.finish(t, f, before)
	}
}
