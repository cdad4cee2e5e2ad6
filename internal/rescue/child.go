package rescue

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/child"
	"github.com/etcd-backupd/backupd/internal/rescue/entry"
)

// role is that of the children of this package.
const role child.Role = "rescue"

// job is the work of a child, and answer what comes of it. One of its fields is set.
type job struct {
	// WAL is the folder of the copied log, and From the newest entry that the database has.
	WAL  string `json:"wal"`
	From uint64 `json:"from"`
	// Database and To ask for a replay.
	Database string `json:"database,omitempty"`
	To       uint64 `json:"to,omitempty"`
	// Count asks what the entries after From are.
	Count bool `json:"count,omitempty"`
	// Origin asks whether the records of Database that are newer than Compact are of the log.
	Origin  bool            `json:"origin,omitempty"`
	Compact backup.Revision `json:"compact,omitempty"`
	// Digest asks for sums of the entries up to To.
	Digest bool `json:"digest,omitempty"`
}

type answer struct {
	Log      *raftLog          `json:"log,omitempty"`
	Digests  map[uint64]digest `json:"digests,omitempty"`
	Replayed *replayed         `json:"replayed,omitempty"`
	Kinds    map[string]int64  `json:"kinds,omitempty"`
	Origin   entry.Origin      `json:"origin,omitempty"`
	Error    string            `json:"error,omitempty"`
	Corrupt  bool              `json:"corrupt,omitempty"`
	Refused  bool              `json:"refused,omitempty"`
}

// ChildMain must be called first in main, or in the TestMain of a test, of every program that
// uses this package. In a process that this package started as its child, it does the child's
// work and returns ok; then main must exit with the code.
func ChildMain() (code int, ok bool) {
	return child.Main(role, func(j job) answer {
		out, err := j.do()
		if err != nil {
			var refused *backup.RefusedError
			out.Error, out.Corrupt = err.Error(), errors.Is(err, backup.ErrCorrupt)
			if out.Refused = errors.As(err, &refused); out.Refused {
				out.Error = refused.Reason
			}
		}
		return out
	})
}

// do does the work in the child.
func (j job) do() (out answer, err error) {
	defer func() { // etcd's code panics over what it does not expect
		if p := recover(); p != nil {
			err = backup.Corruptf("etcd's own code cannot work on it: %v", p)
		}
	}()
	switch {
	case j.Origin:
		out.Origin, err = j.origin()
	case j.Database != "":
		out.Replayed, err = replay(j.Database, j.WAL, j.From, j.To)
	case j.Digest:
		out.Digests, err = digests(j.WAL, j.To)
	case j.Count:
		out.Kinds, err = count(j.WAL, j.From)
	default:
		out.Log, err = walk(j.WAL, j.From, nil)
		if err == nil && j.From > 0 { // it may end a segment that is not needed
			var before *raftLog
			if before, err = walk(j.WAL, j.From-1, nil); err == nil {
				out.Log.Before = before.term(j.From)
			}
		}
	}
	return out, err
}

// origin looks at the segment that the database ends in and, if that says nothing, at all.
func (j job) origin() (entry.Origin, error) {
	for _, after := range []uint64{max(j.From, 1) - 1, 0} {
		recent := entry.NewRecent(j.From)
		l, err := walk(j.WAL, after, func(e *raftpb.Entry) error {
			recent.Add(e)
			return nil
		})
		if err != nil {
			return entry.Unknown, err
		}
		if l.Last < j.From {
			continue // it is not known to reach up to the database
		}
		if o, err := recent.Origin(j.Database, j.Compact); err != nil || o != entry.Unknown {
			return o, err
		}
	}
	return entry.Unknown, nil
}

// count says what the entries of a WAL after one are.
func count(wal string, from uint64) (map[string]int64, error) {
	kinds := map[uint64]string{}
	l, err := walk(wal, from, func(e *raftpb.Entry) error {
		if e.GetIndex() <= from {
			return nil
		}
		r, err := entry.Decode(e)
		if err != nil {
			r.Kind = entry.KindUnknown
		}
		kinds[e.GetIndex()] = r.Kind // of the last one, if it was replaced
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for i, k := range kinds {
		if i <= l.Last {
			out[k]++
		}
	}
	return out, nil
}

// run lets a child do the work.
func (j job) run(ctx context.Context) (*answer, error) {
	out, err := child.Run[answer](ctx, role, j, nil)
	var death *child.DeathError
	switch {
	case errors.As(err, &death):
		return nil, backup.Corruptf("it is damaged: working on it %w", death)
	case err != nil:
		return nil, err
	case out.Refused:
		return nil, &backup.RefusedError{Reason: out.Error}
	case out.Corrupt:
		return nil, backup.Corruptf("%s", out.Error)
	case out.Error != "":
		return nil, fmt.Errorf("%s", out.Error)
	}
	return out, nil
}
