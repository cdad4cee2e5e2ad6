package rescue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// damage is where a log ends that should go on.
type damage struct {
	// Index is the first entry that could not be read.
	Index uint64 `json:"index"`
	Why   string `json:"why"`
	// Torn is the end that a crash leaves of what it interrupted: etcd cuts it off, too.
	Torn bool `json:"torn,omitempty"`
	// Beyond is the newest entry that is seen behind the damage, 0 if none is.
	Beyond uint64 `json:"beyond,omitempty"`
	// Committed is the newest entry that the log behind the damage says is committed. What
	// was read before need not be what it means.
	Committed uint64 `json:"committed,omitempty"`
}

// segment is a file of a WAL. First is the entry that it begins with, by its name.
type segment struct {
	path            string
	sequence, first uint64
}

// segments returns the files of a WAL in their order. Without a folder there are none.
func segments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []segment
	for _, e := range entries {
		s := segment{path: filepath.Join(dir, e.Name())}
		n, err := fmt.Sscanf(e.Name(), "%016x-%016x.wal", &s.sequence, &s.first)
		if err == nil && n == 2 && filepath.Ext(e.Name()) == ".wal" {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b segment) int { return int(a.sequence) - int(b.sequence) })
	return out, nil
}

// needed returns the segments from the one on that has the entry behind after, up to the first
// one that is missing, and whether one is.
func needed(all []segment, after uint64) (out []segment, gap bool) {
	from := 0
	for i, s := range all {
		if s.first <= after+1 {
			from = i
		}
	}
	for i, s := range all[from:] {
		if i > 0 && s.sequence != all[from+i-1].sequence+1 {
			return all[from : from+i], true
		}
	}
	return all[from:], false
}

// walker reads a WAL as etcd does, and keeps what it has read up to the first damage.
type walker struct {
	log   raftLog
	after uint64 // what the database has: no entry up to it is needed
	files []*os.File
	begun int // files of which something was read
	visit func(*raftpb.Entry) error
}

// walk reads the records of the WAL in dir and returns what they say. Visit, which may be nil,
// gets every entry, also those that later ones replace. A damaged WAL is no error.
func walk(dir string, after uint64, visit func(*raftpb.Entry) error) (*raftLog, error) {
	all, err := segments(dir)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return &raftLog{Missing: true}, nil
	}
	list, gap := needed(all, after)
	w := &walker{after: after, visit: visit}
	defer w.close()
	readers, err := w.open(list)
	if err != nil {
		return nil, err
	}
	d := wal.NewDecoder(readers...)
	if err := w.read(d); err != nil {
		return nil, err
	}
	if gap && w.log.Damage == nil {
		w.broken("the segment after %s is missing", filepath.Base(list[len(list)-1].path))
	}
	if w.log.Damage == nil {
		return &w.log, w.checkRest(d.LastOffset())
	}
	if !w.log.Damage.Torn {
		err = w.lookBeyond(all[len(all)-1])
	}
	return &w.log, err
}

func (w *walker) open(list []segment) ([]fileutil.FileReader, error) {
	var out []fileutil.FileReader
	for _, s := range list {
		f, err := os.Open(s.path)
		if err != nil {
			return nil, err
		}
		w.files = append(w.files, f)
		out = append(out, fileutil.NewFileReader(f))
	}
	return out, nil
}

func (w *walker) close() {
	for _, f := range w.files {
		_ = f.Close() // only read from
	}
}

// broken notes where the log ends.
func (w *walker) broken(format string, args ...any) {
	w.log.Damage = &damage{Index: max(w.log.Last, w.after) + 1, Why: fmt.Sprintf(format, args...)}
}

// read reads up to the end or the first damage. Its errors are those of visit.
func (w *walker) read(d wal.Decoder) error {
	for {
		rec := &walpb.Record{}
		err := d.Decode(rec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			w.broken("%v", err)
			w.log.Damage.Torn = errors.Is(err, io.ErrUnexpectedEOF) && w.begun == len(w.files)
			return nil
		}
		if err := w.record(d, rec); err != nil {
			return err
		}
		if w.log.Damage != nil {
			return nil
		}
	}
}

func (w *walker) record(d wal.Decoder, rec *walpb.Record) error {
	switch rec.GetType() {
	case wal.CrcType: // each file begins with the sum of all before it
		w.begun++
		if sum := d.LastCRC(); sum != 0 && rec.Validate(sum) != nil {
			w.broken("%s does not continue the segment before it", filepath.Base(w.files[w.begun-1].Name()))
			return nil
		}
		d.UpdateCRC(rec.GetCrc())
	case wal.MetadataType:
		var m etcdserverpb.Metadata
		if err := proto.Unmarshal(rec.Data, &m); err != nil {
			w.broken("read metadata: %v", err)
			return nil
		}
		w.log.ClusterID, w.log.MemberID = backup.MemberID(m.GetClusterID()), backup.MemberID(m.GetNodeID())
	case wal.StateType:
		var s raftpb.HardState
		if err := proto.Unmarshal(rec.Data, &s); err != nil {
			w.broken("read raft state: %v", err)
			return nil
		}
		w.log.Commit, w.log.Term = max(w.log.Commit, s.GetCommit()), max(w.log.Term, s.GetTerm())
	case wal.SnapshotType:
		var s walpb.Snapshot
		if err := proto.Unmarshal(rec.Data, &s); err != nil {
			w.broken("read snapshot marker: %v", err)
			return nil
		}
		w.mark(&s)
	case wal.EntryType:
		return w.entry(rec.Data)
	default:
		w.broken("a record has the type %d", rec.GetType())
	}
	return nil
}

func (w *walker) mark(s *walpb.Snapshot) {
	w.log.Marks = append(w.log.Marks, position{s.GetIndex(), s.GetTerm()})
	// A leader sends only what is committed. A crash may come before the raft state that says so.
	w.log.Commit = max(w.log.Commit, s.GetIndex())
	if s.GetIndex() > w.after {
		return
	}
	w.log.Voters = nil
	for _, id := range slices.Concat(s.GetConfState().GetVoters(), s.GetConfState().GetLearners()) {
		w.log.Voters = append(w.log.Voters, backup.MemberID(id))
	}
}

// change notes who is named by a change of members.
func (w *walker) change(e *raftpb.Entry) {
	var cc raftpb.ConfChange
	if e.GetType() != raftpb.EntryConfChange || proto.Unmarshal(e.Data, &cc) != nil {
		return
	}
	id := backup.MemberID(cc.GetNodeId())
	if w.log.Named = append(w.log.Named, id); e.GetIndex() > w.after {
		w.log.Joined = append(w.log.Joined, id)
	}
}

func (w *walker) entry(raw []byte) error {
	var e raftpb.Entry
	if err := proto.Unmarshal(raw, &e); err != nil {
		w.broken("read entry: %v", err)
		return nil
	}
	if l := &w.log; l.Last > 0 && e.GetIndex() > l.Last+1 {
		if e.GetIndex()-1 > w.after {
			w.broken("entry %d follows entry %d", e.GetIndex(), l.Last)
			return nil
		}
		l.Spans = nil // the database has what is missing
	}
	w.log.add(e.GetIndex(), e.GetTerm())
	w.change(&e)
	if w.visit == nil {
		return nil
	}
	return w.visit(&e)
}

// checkRest looks at the bytes after the end of the last segment. A server fills it with zeros:
// else a crash has torn what it wrote there.
func (w *walker) checkRest(at int64) error {
	f := w.files[len(w.files)-1]
	buf := make([]byte, 64<<10)
	for ; ; at += int64(len(buf)) {
		n, err := f.ReadAt(buf, at)
		if slices.ContainsFunc(buf[:n], func(b byte) bool { return b != 0 }) {
			w.broken("something follows the end of the log")
			w.log.Damage.Torn = true
			return nil
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// first returns the first entry after last that the log still has, now that it has e, too.
func (p position) first(e position, last uint64) position {
	switch {
	case e.Index <= last:
		return position{}
	case p.Index == 0 || e.Index <= p.Index:
		return e
	}
	return p
}

// lookBeyond looks at what is behind a damage, to say how much is lost. The sum of each record
// goes on from that of the one before, which is stored: so the records behind can be proved.
func (w *walker) lookBeyond(last segment) error {
	var readers []fileutil.FileReader
	for _, f := range w.files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		readers = append(readers, fileutil.NewFileReader(f))
	}
	newest := uint64(0)
	if last.first > 0 { // it begins there, whatever is in it
		newest = last.first - 1
	}
	committed, next := uint64(0), position{}
	d := wal.NewDecoderAdvanced(true, readers...)
	for rec := (&walpb.Record{}); ; {
		err := d.Decode(rec)
		if errors.Is(err, wal.ErrCRCMismatch) || err == nil && rec.GetType() == wal.CrcType {
			d.UpdateCRC(rec.GetCrc())
			continue
		}
		if err != nil {
			break // nothing shows where the next record begins
		}
		var e raftpb.Entry
		var s raftpb.HardState
		switch {
		case rec.GetType() == wal.EntryType && proto.Unmarshal(rec.Data, &e) == nil:
			newest = max(newest, e.GetIndex())
			next = next.first(position{e.GetIndex(), e.GetTerm()}, w.log.Last)
		case rec.GetType() == wal.StateType && proto.Unmarshal(rec.Data, &s) == nil:
			committed = max(committed, s.GetCommit())
		}
	}
	if w.log.Damage.Committed = committed; next.Term == w.log.term(w.log.Last) {
		// It goes on with entries of the same leader. So nothing behind the damage replaces
		// what was read.
		w.log.Commit = max(w.log.Commit, committed)
	}
	if newest >= w.log.Damage.Index {
		w.log.Damage.Beyond = newest
	}
	return nil
}
