package rescue_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// puts are those that the log of a member has, by key.
func puts(t testing.TB, f rescue.Folder) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, e := range entries(t, f) {
		var r etcdserverpb.InternalRaftRequest
		if e.GetType() == raftpb.EntryNormal && proto.Unmarshal(e.Data, &r) == nil && r.Put != nil {
			if key := string(r.Put.Key); strings.HasPrefix(key, "busy/") {
				out[key] = string(r.Put.Value)
			}
		}
	}
	return out
}

// tree is everything in a folder, with times and contents.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum := [32]byte{}
		if !d.IsDir() {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum = sha256.Sum256(raw)
		}
		out[path] = fmt.Sprint(info.Mode(), info.ModTime(), info.Size(), sum)
		return nil
	}))
	return out
}

// readOnly takes the right to write away; what it returns, and the end of the test, give it back.
func readOnly(t testing.TB, dir string) (again func()) {
	t.Helper()
	chmod := func(folders, files fs.FileMode) error {
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				return os.Chmod(path, folders)
			}
			return os.Chmod(path, files)
		})
	}
	must(t, chmod(0o500, 0o400))
	again = func() { must(t, chmod(0o700, 0o600)) }
	t.Cleanup(again)
	return again
}

// boot restores a snapshot file by etcd's own tool to a cluster of one, and starts it.
func boot(t testing.TB, version, path string) *testserver.Cluster {
	t.Helper()
	dir, peer := filepath.Join(t.TempDir(), "new.etcd"), testserver.FreeURL(t)
	out, err := exec.CommandContext(t.Context(), testserver.Binary(t, version, "etcdutl"), "snapshot", "restore", path,
		"--name=new", "--data-dir="+dir, "--initial-cluster=new="+peer, "--initial-advertise-peer-urls="+peer,
		"--initial-cluster-token=rescued").CombinedOutput()
	if err != nil {
		t.Fatalf("etcdutl: %v\n%s", err, out)
	}
	return testserver.StartRestored(t, version, []testserver.RestoredMember{
		{Name: "new", DataDir: dir, PeerURL: peer, ClientURL: testserver.FreeURL(t)},
	})
}

// state is what a cluster has, by its own words.
type state struct {
	Hash   backup.HashKV
	Busy   map[string]string
	Leases []clientv3.LeaseID
	Users  []string
}

// stateOf asks a cluster, as root, for its state at a revision.
func stateOf(t testing.TB, c *testserver.Cluster, revision backup.Revision) state {
	t.Helper()
	ctx, client := t.Context(), c.ClientAs(t, "root", password)
	hash, err := client.HashKV(ctx, c.Endpoints()[0], int64(revision))
	must(t, err)
	got, err := client.Get(ctx, "busy/", clientv3.WithPrefix())
	must(t, err)
	leases, err := client.Leases(ctx)
	must(t, err)
	users, err := client.UserList(ctx)
	must(t, err)
	out := state{
		Hash: backup.HashKV{Hash: hash.Hash, Revision: revision, CompactRevision: backup.Revision(hash.CompactRevision)},
		Busy: map[string]string{}, Users: users.Users,
	}
	for _, kv := range got.Kvs {
		out.Busy[string(kv.Key)] = string(kv.Value)
	}
	for _, l := range leases.Leases {
		out.Leases = append(out.Leases, l.ID)
	}
	slices.Sort(out.Leases)
	return out
}

// missing are the puts of a that b has not.
func missing(a, b map[string]string) []string {
	var out []string
	for key, value := range a {
		if b[key] != value {
			out = append(out, key)
		}
	}
	return out
}

// TestRun rescues a cluster from one survivor and from all, by folders that cannot be written.
// What comes of it is what the cluster itself has when its members are started again.
func TestRun(t *testing.T) {
	dead := crash(t, "3.7", learner(t))
	share(t, dead)
	asItself(t, dead, "3.7")
}

// asItself rescues a crashed cluster, and compares with what its own members have.
func asItself(t *testing.T, dead *crashed, version string) {
	t.Helper()
	var all []rescue.Folder
	for _, m := range dead.cluster.Members {
		all = append(all, rescue.Folder{DataDir: m.DataDir})
	}
	var before []map[string]string
	var again []func()
	for _, f := range all {
		again = append(again, readOnly(t, f.DataDir))
		before = append(before, tree(t, f.DataDir))
	}
	one, _ := rescued(t, rescue.Take, all[1])
	dropped, _ := rescued(t, rescue.Drop, all[0])
	best, path := rescued(t, rescue.Take, all...)
	for i, f := range all {
		if diff := cmp.Diff(before[i], tree(t, f.DataDir)); diff != "" {
			t.Errorf("%s was changed: %s", f.DataDir, diff)
		}
	}
	if last := entries(t, all[1]); one.RaftIndex != last[len(last)-1].GetIndex() {
		t.Errorf("rescued up to entry %d, the log has %d", one.RaftIndex, last[len(last)-1].GetIndex())
	}
	for _, r := range []*rescue.Result{one, dropped, best} {
		if s := r.Survivors[0]; s.Replayed < 20 || s.StoredIndex >= r.RaftIndex {
			t.Errorf("%d entries were replayed after %d: the database was not behind its log", s.Replayed, s.StoredIndex)
		}
		if r.LostEntries != 0 || len(r.Members) != len(best.Members) {
			t.Errorf("lost %d, members %v", r.LostEntries, r.Members)
		}
	}

	restored := boot(t, version, path)
	got := stateOf(t, restored, best.Revision)
	for _, f := range all {
		if lacks := missing(puts(t, f), got.Busy); len(lacks) > 0 {
			t.Errorf("the log of %s has what was not rescued: %v", f.DataDir, lacks)
		}
	}
	if lacks := missing(dead.acked, got.Busy); len(lacks) > 0 || len(dead.acked) < 100 {
		t.Errorf("of %d acknowledged puts are missing: %v", len(dead.acked), lacks)
	}
	if _, err := restored.ClientAs(t, "alice", "wonder").Get(t.Context(), "busy/0/0000"); err != nil {
		t.Errorf("alice: %v", err)
	}
	// Now the same members on their own data.
	for i, m := range dead.cluster.Members {
		again[i]()
		m.Restart(t)
	}
	dead.cluster.WaitReady(t)
	want := stateOf(t, dead.cluster, best.Revision)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the rescued cluster differs from its own members: %s", diff)
	}
	if want.Hash != best.HashKV {
		t.Errorf("HashKV %+v, reported %+v", want.Hash, best.HashKV)
	}
	sameMembers(t, dead.cluster, best.Members)
	for _, m := range dead.cluster.Members {
		m.Kill()
	}
}

// sameMembers compares the member list of a cluster with one that was rescued.
func sameMembers(t testing.TB, c *testserver.Cluster, got []backup.Member) {
	t.Helper()
	list, err := c.ClientAs(t, "root", password).MemberList(t.Context())
	must(t, err)
	want := map[string]string{}
	for _, m := range list.Members {
		want[m.Name] = fmt.Sprint(backup.MemberID(m.ID), m.PeerURLs, m.ClientURLs, m.IsLearner)
	}
	have := map[string]string{}
	for _, m := range got {
		have[m.Name] = fmt.Sprint(m.ID, m.PeerURLs, m.ClientURLs, m.Learner)
	}
	if !maps.Equal(want, have) {
		t.Errorf("members %v, want %v", have, want)
	}
}

// TestRun_File: what is written is a snapshot file as etcd makes it.
func TestRun_File(t *testing.T) {
	all := survivors(t)
	out, path := rescued(t, rescue.Drop, all[0])
	must(t, trailer.Verify(t.Context(), path, nil))
	facts, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	if facts.HashKV != out.HashKV || facts.ConsistentIndex != out.RaftIndex || !facts.AuthEnabled || facts.Users != 2 ||
		len(facts.RemovedMembers) != 1 {
		t.Errorf("facts %+v, reported %+v", facts, out.Report)
	}
	if raw, err := os.ReadFile(path); err != nil || backup.Digest(sha256.Sum256(raw)) != out.SHA256 {
		t.Errorf("SHA-256 %s, reported for another file: %v", out.SHA256, err)
	}
}
