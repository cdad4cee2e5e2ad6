package rescue

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// Compared says what two survivors have in common. At least one of the two was found equal.
type Compared struct {
	DataDirs []string `json:"dataDirs"`
	// Revision is the newest one that both have: their HashKV there is the same. Without one
	// it is 0: then nobody has compared what is in their databases.
	Revision backup.Revision `json:"revision,omitempty"`
	// RaftIndex is the newest entry that both logs have, and it is the same; else 0.
	RaftIndex uint64 `json:"raftIndex,omitempty"`
}

// String says it for people.
func (c Compared) String() string {
	which := fmt.Sprintf("%s and %s", c.DataDirs[0], c.DataDirs[1])
	switch {
	case c.Revision == 0:
		return fmt.Sprintf("%s: the logs are the same up to entry %d; no revision is left that both databases have, "+
			"so their content was not compared", which, c.RaftIndex)
	case c.RaftIndex == 0:
		return fmt.Sprintf("%s: HashKV is the same at revision %d; the logs have nothing in common that could be compared",
			which, c.Revision)
	}
	return fmt.Sprintf("%s: HashKV is the same at revision %d, the logs up to entry %d", which, c.Revision, c.RaftIndex)
}

// HistoriesError is a refusal of survivors that are, or may be, of two histories: a cluster that
// was restored has the ids that it had before. A person must say which is the right one.
type HistoriesError struct {
	Folders []Folder
	Why     string
}

// Error says which ones, and why.
func (e *HistoriesError) Error() string { return e.Unwrap().Error() }

// Unwrap returns a [backup.RefusedError].
func (e *HistoriesError) Unwrap() error { return &backup.RefusedError{Reason: e.Why} }

func histories(a, b *survivor, format string, args ...any) error {
	return &HistoriesError{[]Folder{a.folder, b.folder}, fmt.Sprintf("%s and %s: ", a, b) + fmt.Sprintf(format, args...)}
}

// compare refuses survivors whose content or whose logs differ, and those of which nothing can
// be compared: that they have the same ids says nothing.
func compare(ctx context.Context, all []*survivor) (out []Compared, err error) {
	for i, b := range all {
		for _, a := range all[:i] {
			if why := impossible(a, b); why != "" {
				return nil, histories(a, b, "%s. So one of them is of another history of the cluster, as after a restore", why)
			}
			c := Compared{DataDirs: []string{a.folder.DataDir, b.folder.DataDir}}
			if c.Revision, err = sameData(ctx, a, b); err != nil {
				return nil, err
			}
			if c.RaftIndex, err = sameLogs(ctx, a, b); err != nil {
				return nil, err
			}
			if c.Revision == 0 && c.RaftIndex == 0 {
				return nil, histories(a, b, "nothing of them can be compared: one has compacted all revisions of the other, "+
					"and their logs have no entry in common. They may be of two histories of the cluster, as after a restore")
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// impossible says what cannot be so in one history: there each entry has one term, terms do not
// fall, and each entry makes one revision or none.
func impossible(a, b *survivor) string {
	if a.done.Index > b.done.Index {
		a, b = b, a
	}
	older, newer := a.done.position, b.done.position
	at := fmt.Sprintf("%s has revision %d at raft index %d, %s has revision %d at raft index %d", a.folder.DataDir,
		a.facts.Revision, older.Index, b.folder.DataDir, b.facts.Revision, newer.Index)
	there := b.known().at(older.Index)
	switch {
	case older.Index == newer.Index:
		return "" // their revisions are compared with their content
	case a.facts.Revision > b.facts.Revision:
		return at
	case uint64(b.facts.Revision-a.facts.Revision) > newer.Index-older.Index:
		return at + ": more revisions than entries are between"
	case older.Term > 0 && newer.Term > 0 && older.Term > newer.Term:
		return fmt.Sprintf("%s has term %d at raft index %d, %s has term %d at raft index %d", a.folder.DataDir,
			older.Term, older.Index, b.folder.DataDir, newer.Term, newer.Index)
	case older.Term > 0 && there > 0 && older.Term != there:
		return fmt.Sprintf("entry %d has term %d in one, and %d in the other", older.Index, older.Term, there)
	}
	return ""
}

// sameData compares two survivors at the newest revision that both have, and returns it, or 0
// if there is none.
func sameData(ctx context.Context, a, b *survivor) (backup.Revision, error) {
	revision := min(a.facts.Revision, b.facts.Revision)
	compact := max(a.facts.CompactRevision, b.facts.CompactRevision)
	if a.done.Index == b.done.Index && a.facts.Revision != b.facts.Revision {
		return 0, differ(a, b, fmt.Sprintf("at entry %d one has revision %d, the other %d", a.done.Index,
			a.facts.Revision, b.facts.Revision))
	}
	if compact > revision {
		return 0, nil
	}
	of, err := etcddb.HashAt(ctx, a.db, revision, compact)
	if err != nil {
		return 0, a.explain(err)
	}
	other, err := etcddb.HashAt(ctx, b.db, revision, compact)
	if err != nil {
		return 0, b.explain(err)
	}
	if of != other {
		return 0, differ(a, b, fmt.Sprintf("their HashKV at revision %d differs", revision))
	}
	return revision, nil
}

func differ(a, b *survivor, why string) error {
	return backup.WithHint(backup.Corruptf("%s and %s have diverged: %s", a, b, why),
		"nobody can tell which of them is right: look at both, and give the --from-data-dir of one only")
}

// sameLogs compares the entries that are in both logs and in both databases, and returns the
// newest one, or 0 if there is none that tells one history from another.
func sameLogs(ctx context.Context, a, b *survivor) (uint64, error) {
	to := min(a.done.Index, b.done.Index, a.log.Last, b.log.Last)
	if to == 0 {
		return 0, nil
	}
	of, err := a.digests(ctx, to)
	if err != nil {
		return 0, err
	}
	other, err := b.digests(ctx, to)
	if err != nil {
		return 0, err
	}
	newest, tells := uint64(0), false
	for index, d := range of {
		if e, both := other[index]; both {
			if d.Sum != e.Sum {
				return 0, histories(a, b, "their logs have another entry %d. So one of them is of another history of the "+
					"cluster, as after a restore", index)
			}
			newest, tells = max(newest, index), tells || d.Tells
		}
	}
	if !tells {
		return 0, nil
	}
	return newest, nil
}

// digest is a sum of an entry. Not every entry tells: the first entries of a cluster name its
// members, and those of a restored one are the same; an empty one is like any other.
type digest struct {
	Sum   uint64 `json:"sum"`
	Tells bool   `json:"tells,omitempty"`
}

// digested is how many entries are compared: two logs that have one in common have the same
// ones before it.
const digested = 4096

// digests returns sums of entries of the log up to one.
func (s *survivor) digests(ctx context.Context, to uint64) (map[uint64]digest, error) {
	a, err := job{WAL: s.wal, To: to, Digest: true}.run(ctx)
	if err != nil {
		return nil, s.explain(fmt.Errorf("compare the WAL: %w", err))
	}
	return a.Digests, nil
}

func digests(wal string, to uint64) (map[uint64]digest, error) {
	out := map[uint64]digest{}
	_, err := walk(wal, 0, func(e *raftpb.Entry) error {
		i := e.GetIndex()
		if i > to || i+digested <= to {
			return nil
		}
		head := binary.BigEndian.AppendUint64(nil, e.GetTerm())
		head = binary.BigEndian.AppendUint64(head, uint64(e.GetType()))
		sum := sha256.Sum256(append(head, e.Data...))
		for later := i + 1; later <= to; later++ { // it replaces what was there
			if _, had := out[later]; !had {
				break
			}
			delete(out, later)
		}
		out[i] = digest{binary.BigEndian.Uint64(sum[:]), e.GetType() == raftpb.EntryNormal && len(e.Data) > 0}
		return nil
	})
	return out, err
}
