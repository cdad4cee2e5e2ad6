//go:build long

package rescue_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// incarnations are the folders of a cluster that was restored by etcd's own tool to the ids that
// it had before.
type incarnations struct {
	// early is of a member that died before the others wrote more, and compacted.
	early rescue.Folder
	// before are of two members as they were when the cluster was restored, restored as they
	// came out of that, and after as they were later, all compacted: at a higher revision,
	// and a lower raft index.
	before, restored, after [2]rescue.Folder
}

// puts writes keys, one after the other, and returns the last revision.
func putAll(t testing.TB, client *clientv3.Client, prefix string, count int) (revision int64) {
	t.Helper()
	for i := range count {
		resp, err := client.Put(t.Context(), fmt.Sprintf("%s/%03d", prefix, i), prefix+" value")
		must(t, err)
		revision = resp.Header.Revision
	}
	return revision
}

func compact(t testing.TB, client *clientv3.Client, revision int64) {
	t.Helper()
	_, err := client.Compact(t.Context(), revision, clientv3.WithCompactPhysical())
	must(t, err)
}

func saveSnapshot(t testing.TB, client *clientv3.Client, path string) {
	t.Helper()
	stream, err := client.Snapshot(t.Context())
	must(t, err)
	raw, err := io.ReadAll(stream)
	must(t, errors.Join(err, os.WriteFile(path, raw, 0o600)))
}

// restoreTwice makes a cluster of three, and restores it with the token that it had.
func restoreTwice(t testing.TB) *incarnations {
	t.Helper()
	out, dir := &incarnations{}, t.TempDir()
	keep := func(from, name string) rescue.Folder {
		return rescue.Folder{DataDir: copyTree(t, from, filepath.Join(dir, name))}
	}
	const token = "etcd-cluster" // the default of etcd and of its tool
	c := testserver.StartCluster(t, testserver.Options{Size: 3, Args: []string{"--initial-cluster-token=" + token}})
	client, snapshot := c.Client(t), filepath.Join(dir, "snapshot.db")
	putAll(t, client, "old", 40)
	saveSnapshot(t, client, snapshot)
	putAll(t, client, "old", 5)
	followerLast(t, c)
	c.Members[2].Kill()
	out.early = keep(c.Members[2].DataDir, "early")
	compact(t, client, putAll(t, client, "later", 60)-2)
	initial := ""
	for i, m := range c.Members {
		m.Kill()
		if i < 2 {
			out.before[i] = keep(m.DataDir, "before-"+m.Name)
		}
		initial += "," + m.Name + "=" + m.PeerURL
	}
	var members []testserver.RestoredMember
	for i, m := range c.Members[:2] {
		to := filepath.Join(dir, "new-"+m.Name)
		said, err := exec.CommandContext(t.Context(), testserver.Binary(t, "3.7", "etcdutl"), "snapshot", "restore", snapshot,
			"--name="+m.Name, "--data-dir="+to, "--initial-cluster="+initial[1:],
			"--initial-advertise-peer-urls="+m.PeerURL, "--initial-cluster-token="+token).CombinedOutput()
		if err != nil {
			t.Fatalf("etcdutl: %v\n%s", err, said)
		}
		out.restored[i] = keep(to, "restored-"+m.Name)
		members = append(members, testserver.RestoredMember{
			Name: m.Name, DataDir: to, PeerURL: m.PeerURL, ClientURL: m.ClientURL,
		})
	}
	again := testserver.StartRestored(t, "3.7", members)
	client = again.Client(t)
	compact(t, client, putAll(t, client, "new", 75)-1)
	for i, m := range again.Members {
		m.Kill()
		out.after[i] = keep(m.DataDir, "after-"+m.Name)
	}
	return out
}

// followerLast makes the last member of the list one that does not lead: the others go on at once
// when it ends.
func followerLast(t testing.TB, c *testserver.Cluster) {
	t.Helper()
	last := len(c.Members) - 1
	st, err := c.Client(t).Status(t.Context(), c.Members[last].ClientURL)
	must(t, err)
	if st.Leader == st.Header.MemberId {
		c.Members[0], c.Members[last] = c.Members[last], c.Members[0]
	}
}

// noWAL returns a copy of a folder without its log.
func noWAL(t testing.TB, f rescue.Folder) rescue.Folder {
	t.Helper()
	to := rescue.Folder{DataDir: copyTree(t, f.DataDir, filepath.Join(t.TempDir(), "no-wal"))}
	must(t, os.RemoveAll(walOf(to)))
	return to
}

// asked fails unless two folders were refused as of two histories.
func asked(t testing.TB, err error, folders [2]rescue.Folder, words ...string) {
	t.Helper()
	refused(t, err, append(words, folders[0].DataDir, folders[1].DataDir)...)
	var two *rescue.HistoriesError
	if !errors.As(err, &two) || len(two.Folders) != 2 {
		t.Errorf("%v, want one with both folders", err)
	}
}

// TestRun_Histories: a cluster that was restored by etcd's own tool has the ids that it had
// before. What is of the time before is never mixed with what is of the time after.
func TestLongRun_Histories(t *testing.T) {
	all := restoreTwice(t)
	t.Run("WAL", func(t *testing.T) { otherWAL(t, all) })
	old, now := all.before, all.after

	same, err := run(t, rescue.Take, now[:]...)
	must(t, err)
	if c := same.Compared; len(c) != 1 || c[0].Revision == 0 || c[0].RaftIndex == 0 {
		t.Errorf("compared %+v", c)
	}
	warned(t, same, "2 of 3 voting members", "which is a quorum", "their data is the same")

	one, err := run(t, rescue.Take, old[0])
	must(t, err)
	if one.Revision >= same.Revision || one.RaftIndex <= same.RaftIndex || one.ClusterID != same.ClusterID {
		t.Fatalf("before %+v, after %+v: not what this test is about", one.Report, same.Report)
	}
	for _, pair := range [][2]rescue.Folder{
		{old[0], now[1]}, {now[1], old[0]}, {noWAL(t, old[0]), now[1]}, {old[1], noWAL(t, now[0])},
	} {
		_, err = run(t, rescue.Take, pair[0], pair[1])
		asked(t, err, pair, fmt.Sprintf("revision %d at raft index", one.Revision), "as after a restore")
	}
	// At the restore the database is that of the time before; only the logs differ.
	_, err = run(t, rescue.Take, old[0], all.restored[1])
	asked(t, err, [2]rescue.Folder{old[0], all.restored[1]}, "as after a restore")

	// The data is the same, and the restored member has a leader already: only the logs tell.
	raw, err := proto.Marshal(&etcdserverpb.InternalRaftRequest{
		Header: &etcdserverpb.RequestHeader{ID: 1}, LeaseGrant: &etcdserverpb.LeaseGrantRequest{ID: 7, TTL: 99},
	})
	must(t, err)
	craft(t, all.restored[0], 2, 5, &raftpb.Entry{Index: new(uint64(4)), Term: new(uint64(2))},
		&raftpb.Entry{Index: new(uint64(5)), Term: new(uint64(2)), Data: raw})
	_, err = run(t, rescue.Take, all.early, all.restored[0])
	asked(t, err, [2]rescue.Folder{all.early, all.restored[0]}, "their logs have another entry")

	// A member that died long ago has no revision that the others still have. The logs prove it.
	long, err := run(t, rescue.Take, all.early, old[0])
	must(t, err)
	if c := long.Compared; len(c) != 1 || c[0].Revision != 0 || c[0].RaftIndex == 0 || long.DataDir != old[0].DataDir {
		t.Errorf("%+v, want that the logs were compared", long.Report)
	}
	warned(t, long, "a quorum", "do not start them together")
	bare := noWAL(t, all.early)
	_, err = run(t, rescue.Take, bare, old[0])
	asked(t, err, [2]rescue.Folder{bare, old[0]}, "nothing of them can be compared")

	// Nothing says of what a database without a log is.
	alone, err := run(t, rescue.Take, bare)
	must(t, err)
	if alone.ClusterID != 0 {
		t.Errorf("cluster %s", alone.ClusterID)
	}
	warned(t, alone, "has no WAL", "nothing shows which cluster and which member it is of")
}

// longer returns a copy of a folder with forty entries more in its log.
func longer(t *testing.T, f rescue.Folder) rescue.Folder {
	t.Helper()
	to := rescue.Folder{DataDir: copyTree(t, f.DataDir, filepath.Join(t.TempDir(), "longer"))}
	had := entries(t, to)
	last := had[len(had)-1]
	var more []*raftpb.Entry
	for i := range uint64(40) {
		more = append(more, putEntry(t, to, last.GetIndex()+1+i, last.GetTerm(), "more", "and more"))
	}
	craft(t, to, last.GetTerm(), last.GetIndex()+40, more...)
	return to
}

// otherWAL: the log of another cluster, and that of the same member at the time before or after the
// restore, is not applied to a database.
func otherWAL(t *testing.T, all *incarnations) {
	stranger := testserver.StartCluster(t, testserver.Options{})
	putAll(t, stranger.Client(t), "stranger", 150)
	stranger.Members[0].Kill()
	other := rescue.Folder{DataDir: stranger.Members[0].DataDir}
	for _, c := range map[string]struct {
		data, log rescue.Folder
		words     string
	}{
		"Stranger":       {all.after[1], other, "none names a member of the database"},
		"OfStranger":     {other, all.before[1], "member"},
		"Longer":         {all.before[1], longer(t, all.after[1]), ""},
		"Before":         {all.after[1], all.before[1], ""},
		"After":          {all.before[1], all.after[1], "it ends at entry"},
		"BeforeRestored": {all.restored[1], all.before[1], "it begins with an empty cluster"},
		"AfterRestored":  {all.before[1], all.restored[1], "it ends at entry"},
	} {
		for _, what := range []rescue.Uncommitted{rescue.Undecided, rescue.Drop, rescue.Take} {
			_, err := run(t, what, rescue.Folder{DataDir: c.data.DataDir, WALDir: walOf(c.log)})
			refused(t, err, walOf(c.log), "is not that of the database in "+c.data.DataDir, c.words)
		}
	}
	// Its own log is taken from elsewhere, too; and a restored member that has just begun says
	// that nothing could be compared.
	own, err := run(t, rescue.Take, rescue.Folder{DataDir: all.after[1].DataDir, WALDir: walOf(all.after[1])})
	must(t, err)
	again, err := run(t, rescue.Take, all.after[1])
	must(t, err)
	if own.HashKV != again.HashKV {
		t.Errorf("HashKV %+v with its log from elsewhere, want %+v", own.HashKV, again.HashKV)
	}
	begun, err := run(t, rescue.Take, rescue.Folder{DataDir: all.restored[1].DataDir, WALDir: walOf(all.after[1])})
	must(t, err)
	if begun.HashKV != again.HashKV || begun.Survivors[0].Replayed < 50 {
		t.Errorf("%+v, want what came of it: %+v", begun.Report, again.HashKV)
	}
	warned(t, begun, "no entry by which it could be compared with the database")
}
