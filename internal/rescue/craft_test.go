package rescue_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/rescue"
)

func walOf(f rescue.Folder) string { return filepath.Join(f.DataDir, "member", "wal") }

// lastMark is where etcd begins to read a log.
func lastMark(t testing.TB, f rescue.Folder) *walpb.Snapshot {
	t.Helper()
	marks, err := wal.ValidSnapshotEntries(zap.NewNop(), walOf(f))
	must(t, err)
	return marks[len(marks)-1]
}

// entries reads a log with etcd's own code.
func entries(t testing.TB, f rescue.Folder) []*raftpb.Entry {
	t.Helper()
	w, err := wal.OpenForRead(zap.NewNop(), walOf(f), lastMark(t, f))
	must(t, err)
	_, _, all, err := w.ReadAll() // which closes it
	must(t, err)
	return all
}

// craft appends entries to a log as a member does, with its state.
func craft(t testing.TB, f rescue.Folder, term, commit uint64, more ...*raftpb.Entry) {
	t.Helper()
	w, err := wal.Open(zap.NewNop(), walOf(f), lastMark(t, f))
	must(t, err)
	_, state, _, err := w.ReadAll()
	must(t, err)
	state.Term, state.Commit = &term, &commit
	must(t, w.Save(state, more))
	must(t, w.Close())
}

// putEntry is an entry as a leader makes it for root's put of a key.
func putEntry(t testing.TB, f rescue.Folder, index, term uint64, key, value string) *raftpb.Entry {
	t.Helper()
	header := &etcdserverpb.RequestHeader{}
	for _, e := range entries(t, f) {
		var r etcdserverpb.InternalRaftRequest
		if proto.Unmarshal(e.Data, &r) == nil && r.Put != nil && r.Header.GetUsername() == "root" {
			header = r.Header
		}
	}
	raw, err := proto.Marshal(&etcdserverpb.InternalRaftRequest{
		Header: header,
		Put:    &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte(value)},
	})
	must(t, err)
	return &raftpb.Entry{Index: &index, Term: &term, Data: raw}
}

// change is an entry that changes the members.
func change(
	t testing.TB, index, term uint64, kind raftpb.ConfChangeType, m membership.ConfigChangeContext,
) *raftpb.Entry {
	t.Helper()
	context, err := json.Marshal(m)
	must(t, err)
	raw, err := proto.Marshal(&raftpb.ConfChange{
		Type: kind.Enum(), NodeId: proto.Uint64(uint64(m.ID)), Context: context, Id: &index,
	})
	must(t, err)
	return &raftpb.Entry{Index: &index, Term: &term, Type: raftpb.EntryConfChange.Enum(), Data: raw}
}

// settle makes everything committed that is in both logs, and makes the logs the same. It
// returns the last entry.
func settle(t testing.TB, all []rescue.Folder) (index, term uint64) {
	t.Helper()
	a, b := entries(t, all[0]), entries(t, all[1])
	last := a[len(a)-1]
	if other := b[len(b)-1]; other.GetIndex() > last.GetIndex() {
		a, b, last = b, a, other
		all = []rescue.Folder{all[1], all[0]}
	}
	craft(t, all[1], last.GetTerm(), last.GetIndex(), a[len(a)-int(last.GetIndex()-b[len(b)-1].GetIndex()):]...)
	craft(t, all[0], last.GetTerm(), last.GetIndex())
	return last.GetIndex(), last.GetTerm()
}

// segmentOf is the newest segment of a log, and end where its records end.
func segmentOf(t testing.TB, f rescue.Folder) (path string, raw []byte, end int) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(walOf(f), "*.wal"))
	must(t, err)
	path = found[len(found)-1]
	raw, err = os.ReadFile(path)
	must(t, err)
	end = len(bytes.TrimRight(raw, "\x00"))
	return path, raw, (end + 7) / 8 * 8
}
