package rescue_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// refused fails unless the error is a refusal with all the words.
func refused(t testing.TB, err error, words ...string) {
	t.Helper()
	if !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("%v, want a refusal", err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not speak of %q", err, w)
		}
	}
}

// warned fails unless a warning has all the words.
func warned(t testing.TB, r *rescue.Result, words ...string) {
	t.Helper()
	if !slices.ContainsFunc(r.Notes, func(text string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}) {
		t.Errorf("no warning with %q: %q", words, r.Notes)
	}
}

// has says which of the keys are in a rescued database.
func has(t testing.TB, r *rescue.Result, keys ...string) (out []bool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rescued.db")
	must(t, r.Write(t.Context(), path))
	raw, err := os.ReadFile(path)
	must(t, err)
	for _, k := range keys {
		out = append(out, bytes.Contains(raw, []byte(k)))
	}
	return out
}

// TestRun_Uncommitted: what no survivor shows as committed is a person's choice, unless it
// changes nothing. What another survivor shows as committed is taken without a question.
func TestRun_Uncommitted(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	put := func(index, term uint64, key, value string) *raftpb.Entry {
		return putEntry(t, all[0], index, term, key, value)
	}
	quiet, err := run(t, rescue.Undecided, all...)
	must(t, err)
	if quiet.RaftIndex != index || quiet.Uncommitted != nil {
		t.Errorf("%+v, want all up to %d", quiet.Report, index)
	}

	craft(t, all[0], term+1, index, &raftpb.Entry{Index: new(index + 1), Term: new(term + 1)})
	leader, err := run(t, rescue.Undecided, all...)
	must(t, err) // a leader's first entry is empty
	warned(t, leader, "left out", fmt.Sprintf("entry %d (changing nothing)", index+1))

	craft(t, all[0], term+1, index, put(index+2, term+1, "tail/1", "x"), put(index+3, term+1, "tail/2", "x"))
	_, err = run(t, rescue.Undecided, all...)
	refused(t, err, all[0].DataDir, fmt.Sprintf("entries %d to %d (2 put)", index+1, index+3))
	dropped, err := run(t, rescue.Drop, all...)
	must(t, err)
	taken, err := run(t, rescue.Take, all...)
	must(t, err)
	if got := has(t, dropped, "tail/1", "tail/2"); got[0] || got[1] || dropped.RaftIndex != index {
		t.Errorf("dropped, and there: %v, %d", got, dropped.RaftIndex)
	}
	if got := has(t, taken, "tail/1", "tail/2"); !got[0] || !got[1] || taken.RaftIndex != index+3 ||
		taken.DataDir != all[0].DataDir || taken.Revision != dropped.Revision+2 {
		t.Errorf("taken, and not there: %v, %+v", got, taken.Report)
	}

	// The other one knows that the first two of them were committed.
	craft(t, all[1], term+1, index+2,
		&raftpb.Entry{Index: new(index + 1), Term: new(term + 1)}, put(index+2, term+1, "tail/1", "x"))
	known, err := run(t, rescue.Drop, all...)
	must(t, err)
	if got := has(t, known, "tail/1", "tail/2"); !got[0] || got[1] || known.Uncommitted.Count != 1 {
		t.Errorf("there: %v, %+v", got, known.Report)
	}
	if s := known.Survivors; s[0].RaftIndex != index+2 || s[1].RaftIndex != index+2 {
		t.Errorf("survivors %+v", s)
	}
}

// TestRun_Superseded: entries that a later leader has replaced are no part of history, and nobody
// is asked for them.
func TestRun_Superseded(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	put := func(index, term uint64, key, value string) *raftpb.Entry {
		return putEntry(t, all[0], index, term, key, value)
	}
	craft(t, all[0], term+1, index, put(index+1, term+1, "lost/1", "x"), put(index+2, term+1, "lost/2", "x"))
	craft(t, all[1], term+2, index+1, put(index+1, term+2, "won/1", "x"))
	out, err := run(t, rescue.Undecided, all...)
	must(t, err)
	if got := has(t, out, "lost/1", "lost/2", "won/1"); got[0] || got[1] || !got[2] || out.DataDir != all[1].DataDir {
		t.Errorf("there: %v, %+v", got, out.Report)
	}
	// In its own log the new leader's entries come after those that they replace.
	craft(t, all[0], term+2, index+1, put(index+1, term+2, "won/1", "x"))
	alone, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	if alone.HashKV != out.HashKV {
		t.Errorf("HashKV %+v from one, %+v from the other", alone.HashKV, out.HashKV)
	}
}

// TestRun_Members: changes of the members in the log are in the list that a restore takes.
func TestRun_Members(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	before, err := run(t, rescue.Drop, all[0])
	must(t, err)
	var learner, voter backup.Member
	for _, m := range before.Members {
		if m.Learner {
			learner = m
		} else {
			voter = m
		}
	}
	promoted := membership.ConfigChangeContext{IsPromote: true, Member: membership.Member{ID: types.ID(learner.ID)}}
	moved := membership.ConfigChangeContext{Member: membership.Member{ID: types.ID(voter.ID)}}
	moved.PeerURLs = []string{"http://127.0.0.1:2"}
	craft(t, all[0], term, index+2,
		change(t, index+1, term, raftpb.ConfChangeAddNode, promoted),
		change(t, index+2, term, raftpb.ConfChangeUpdateNode, moved))
	out, err := run(t, rescue.Drop, all[0])
	must(t, err)
	for _, m := range out.Members {
		if m.Learner || m.ID == voter.ID && m.PeerURLs[0] != "http://127.0.0.1:2" {
			t.Errorf("members %+v", out.Members)
		}
	}
}

// TestRun_Torn: what a crash leaves of its last write is cut off, as etcd does.
func TestRun_Torn(t *testing.T) {
	all := survivors(t)
	index, _ := settle(t, all)
	path, raw, end := segmentOf(t, all[0])
	raw[end] = 0x90 // a record of 0x290 bytes
	raw[end+1] = 2
	copy(raw[end+8:], "half of a record")
	must(t, os.WriteFile(path, raw, 0o600))
	out, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	if out.RaftIndex != index || out.LostEntries != 0 {
		t.Errorf("%+v, want all up to %d", out.Report, index)
	}
	warned(t, out, all[0].DataDir, "a crash has torn", fmt.Sprintf("after entry %d", index))
}

// TestRun_Damaged: a WAL is taken up to its damage. What is behind is lost, and said so, unless
// another survivor has it.
func TestRun_Damaged(t *testing.T) {
	all := survivors(t)
	index, _ := settle(t, all)
	whole, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	path, raw, _ := segmentOf(t, all[0])
	at := bytes.Index(raw, []byte("busy/0/0005")) // it is in each log
	raw[at] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
	out, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	if out.RaftIndex >= index || out.LostEntries != int64(index-out.RaftIndex) || out.CommittedIndex != index ||
		out.RaftIndex <= out.Survivors[0].StoredIndex {
		t.Errorf("%+v, want less than all up to %d", out.Report, index)
	}
	warned(t, out, all[0].DataDir, fmt.Sprintf("damaged from entry %d on", out.RaftIndex+1),
		fmt.Sprintf("goes on to entry %d", index))
	warned(t, out, "LOST", fmt.Sprintf("%d to %d", out.RaftIndex+1, index))
	if got := has(t, out, "busy/0/0004", "busy/0/0005"); !got[0] || got[1] {
		t.Errorf("there: %v", got)
	}
	both, err := run(t, rescue.Undecided, all...)
	must(t, err)
	if both.LostEntries != 0 || both.DataDir != all[1].DataDir || both.HashKV != whole.HashKV {
		t.Errorf("%+v, want what the other survivor has", both.Report)
	}
}

// TestRun_NoWAL takes what the database has, and says what that means.
func TestRun_NoWAL(t *testing.T) {
	all := survivors(t)
	index, _ := settle(t, all)
	apart := filepath.Join(t.TempDir(), "wal")
	must(t, os.Rename(walOf(all[0]), apart))
	_, err := rescue.Run(t.Context(), rescue.Request{
		Folders: all, Work: t.TempDir(), MinFree: disk.ReserveOf(0), Progress: func(backup.Stage, int64, int64) {},
	})
	bare, ok := errors.AsType[*rescue.NoWALError](err)
	if !ok || !slices.Equal(bare.DataDirs, []string{all[0].DataDir}) || !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("without its WAL: %v", err)
	}
	out, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	warned(t, out, all[0].DataDir, "has no WAL", "--from-wal-dir", fmt.Sprintf("after entry %d", out.RaftIndex))
	both, err := run(t, rescue.Undecided, all...)
	must(t, err)
	for _, r := range []rescue.Report{out.Report, both.Report} {
		if len(r.NotKnown) != 1 || !strings.Contains(r.NotKnown[0], all[0].DataDir) {
			t.Errorf("not known: %q", r.NotKnown)
		}
	}
	given, err := run(t, rescue.Undecided, rescue.Folder{DataDir: all[0].DataDir, WALDir: apart})
	must(t, err)
	if len(given.NotKnown) > 0 {
		t.Errorf("with the WAL %q are not known", given.NotKnown)
	}
	if both.RaftIndex != index || given.RaftIndex != index || given.HashKV != both.HashKV {
		t.Errorf("%+v, and with the WAL from elsewhere %+v", both.Report, given.Report)
	}
}

// TestRun_Refused: what does not belong together, or is not known, or is in use.
func TestRun_Refused(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	put := func(index, term uint64, key, value string) *raftpb.Entry {
		return putEntry(t, all[0], index, term, key, value)
	}
	stranger := testserver.StartCluster(t, testserver.Options{})
	other := rescue.Folder{DataDir: stranger.Members[0].DataDir}
	_, err := run(t, rescue.Take, all[0], other)
	refused(t, err, "a running process holds "+other.DataDir)
	stranger.Members[0].Kill()
	_, err = run(t, rescue.Take, all[0], other)
	refused(t, err, all[0].DataDir, other.DataDir, " is of cluster ")
	twin := rescue.Folder{DataDir: copyTree(t, all[0].DataDir, filepath.Join(t.TempDir(), "twin"))}
	_, err = run(t, rescue.Take, all[0], twin)
	refused(t, err, all[0].DataDir, twin.DataDir, "both the data of member")
	_, err = run(t, rescue.Take, rescue.Folder{DataDir: filepath.Dir(all[0].DataDir)})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want one that says that there is no database", err)
	}

	newer := rescue.Folder{DataDir: copyTree(t, all[0].DataDir, filepath.Join(t.TempDir(), "newer"))}
	edit(t, newer, func(tx *bolt.Tx) error {
		return errors.Join(tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("3.8.0")),
			tx.Bucket([]byte("cluster")).Put([]byte("clusterVersion"), []byte("3.8.0")))
	})
	_, err = run(t, rescue.Take, newer)
	refused(t, err, newer.DataDir, "it is of etcd 3.8", "3.7 is the newest")

	craft(t, all[0], term, index+1, put(index+1, term, "split", "brain"))
	craft(t, all[1], term, index+1, put(index+1, term, "split", "other"))
	_, err = run(t, rescue.Take, all...)
	if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), all[0].DataDir) ||
		!strings.Contains(err.Error(), all[1].DataDir) {
		t.Errorf("%v, want one that names two survivors that have diverged", err)
	}
	if _, err = run(t, rescue.Take, all[1]); err != nil {
		t.Errorf("one of them: %v", err)
	}

	craft(t, all[1], term, index+2, &raftpb.Entry{Index: new(index + 2), Term: &term, Data: []byte{0xfa, 0xff, 1, 0}})
	_, err = run(t, rescue.Take, all[1])
	refused(t, err, all[1].DataDir, fmt.Sprintf("entry %d", index+2), "newer etcd")
}

// edit changes the database of a folder.
func edit(t testing.TB, f rescue.Folder, change func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(f.DataDir, "member", "snap", "db"), 0o600, nil)
	must(t, err)
	must(t, db.Update(change))
	must(t, db.Close())
}

// TestRun_DamagedDatabase: it never comes to etcd's own code.
func TestRun_DamagedDatabase(t *testing.T) {
	all := survivors(t)
	settle(t, all)
	path := filepath.Join(all[0].DataDir, "member", "snap", "db")
	frame, err := etcddb.ReadFrame(path)
	must(t, err)
	raw, err := os.ReadFile(path)
	must(t, err)
	for at := 2 * frame.PageBytes; at < len(raw); at += 64 {
		raw[at] ^= 0xff
	}
	must(t, os.WriteFile(path, raw, 0o600))
	_, err = run(t, rescue.Undecided, all...)
	if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want one that names %s", err, path)
	}
	if _, err = run(t, rescue.Undecided, all[1]); err != nil {
		t.Errorf("the other one: %v", err)
	}
}

// TestRun_DamagedTurn: what was read before a damage may be replaced behind it, by another
// leader. Then it does not count as committed because something behind says so.
func TestRun_DamagedTurn(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	put := func(index, term uint64, key, value string) *raftpb.Entry {
		return putEntry(t, all[0], index, term, key, value)
	}
	craft(t, all[0], term+1, index, put(index+1, term+1, "lost/1", "x"))
	craft(t, all[0], term+2, index+2, put(index+1, term+2, "won/1", "x"), put(index+2, term+2, "won/2", "x"))
	whole, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	if got := has(t, whole, "lost/1", "won/1", "won/2"); got[0] || !got[1] || !got[2] {
		t.Errorf("there: %v", got)
	}
	path, raw, _ := segmentOf(t, all[0])
	raw[bytes.Index(raw, []byte("won/1"))] ^= 1
	must(t, os.WriteFile(path, raw, 0o600))
	out, err := run(t, rescue.Undecided, all[0])
	must(t, err)
	if got := has(t, out, "lost/1"); got[0] || out.RaftIndex != index || out.LostEntries != 2 {
		t.Errorf("there: %v, %+v", got, out.Report)
	}
}

// TestRun_Sent: a member that died before it took the database that its leader had sent has that
// beside its own, and its log says that it is the one to begin with.
func TestRun_Sent(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	own, path := rescued(t, rescue.Drop, all[0])
	voters := &raftpb.ConfState{Voters: []uint64{uint64(own.Members[0].ID)}}
	must(t, os.Rename(path, filepath.Join(all[0].DataDir, "member", "snap", fmt.Sprintf("%016x.snap.db", index))))
	mark(t, all[0], &walpb.Snapshot{Index: &index, Term: &term, ConfState: voters})
	out, err := run(t, rescue.Undecided, all...)
	must(t, err)
	if s := out.Survivors; s[0].StoredIndex != index || s[0].Replayed != 0 || s[1].StoredIndex >= index ||
		s[0].HashKV != s[1].HashKV {
		t.Errorf("survivors %+v, want the first one to begin with the database of entry %d", s, index)
	}
}

// mark writes to a log that a snapshot is there.
func mark(t testing.TB, f rescue.Folder, s *walpb.Snapshot) {
	t.Helper()
	w, err := wal.Open(zap.NewNop(), walOf(f), lastMark(t, f))
	must(t, err)
	_, _, _, err = w.ReadAll()
	must(t, err)
	must(t, w.SaveSnapshot(s))
	must(t, w.Close())
}

// TestRun_SentLast: a member that died while it took a database that its leader had sent may show in
// its log that it has it, or not yet, and not that all of it is committed. It is not passed over.
func TestRun_SentLast(t *testing.T) {
	all := survivors(t)
	index, term := settle(t, all)
	index++
	craft(t, all[1], term, index, putEntry(t, all[1], index, term, "sent/1", "value"))
	leader, path := rescued(t, rescue.Drop, all[1])
	must(t, os.Rename(path, filepath.Join(all[0].DataDir, "member", "snap", fmt.Sprintf("%016x.snap.db", index))))
	_, err := run(t, rescue.Undecided, all[0])
	refused(t, err, fmt.Sprintf("%016x.snap.db is a database that a leader has sent", index))
	out, err := run(t, rescue.Undecided, all...)
	must(t, err)
	if out.RaftIndex != index {
		t.Errorf("of both: entry %d, want %d", out.RaftIndex, index)
	}
	voters := &raftpb.ConfState{Voters: []uint64{uint64(leader.Members[0].ID)}}
	mark(t, all[0], &walpb.Snapshot{Index: &index, Term: &term, ConfState: voters})
	out, err = run(t, rescue.Undecided, all[0])
	must(t, err)
	if out.RaftIndex != index || out.Revision != leader.Revision || !has(t, out, "sent/1")[0] {
		t.Errorf("got %+v, want what the leader had sent", out.Report)
	}
}
