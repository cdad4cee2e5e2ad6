package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// MarkedError is returned where a mark of that kind is there already.
type MarkedError struct{ backup.Mark }

func (e *MarkedError) Error() string {
	return fmt.Sprintf("snapshot %s is %s: %s", e.ID, stateOf(e.Kind), e.Reason)
}

// Is makes it match [fs.ErrExist].
func (e *MarkedError) Is(target error) bool { return target == fs.ErrExist }

// stateOf is how a snapshot with a mark is called.
func stateOf(kind backup.MarkKind) string {
	if kind == backup.MarkPin {
		return "pinned"
	}
	return "marked as " + string(kind)
}

func markKey(cluster string, id backup.SnapshotID, kind backup.MarkKind) backup.Key {
	return backup.Key{Cluster: cluster, Kind: backup.KindMark, ID: id, Mark: kind}
}

// Mark states something about a snapshot until [Cluster.Unmark]. The format and
// the time of m are filled in. It returns a [*NotFoundError] if there is no such
// snapshot, and a [*MarkedError] if it has a mark of that kind already.
func (c *Cluster) Mark(ctx context.Context, i Item, m backup.Mark) error {
	m.Format, m.ID, m.At = backup.MarkFormat, i.ID, time.Now().UTC().Truncate(time.Second)
	raw, err := m.Marshal()
	if err != nil {
		return err
	}
	if err := c.stillThere(ctx, i); err != nil {
		return err
	}
	err = c.store().Create(ctx, markKey(c.name, i.ID, m.Kind).String(), bytes.NewReader(raw))
	if errors.Is(err, fs.ErrExist) {
		if old, ferr := c.FindMark(ctx, i.ID, m.Kind); ferr == nil && old != nil {
			return &MarkedError{*old}
		}
	}
	if err != nil {
		return fmt.Errorf("create mark: %w", err)
	}
	// A prune that had looked for the mark before may be deleting now. It looks
	// again after it deleted the manifest: one of the two sees the other.
	if err := c.stillThere(ctx, i); err != nil {
		return fmt.Errorf("%s too late: %w", stateOf(m.Kind), err)
	}
	return nil
}

// stillThere returns a [*NotFoundError] if the manifest is gone.
func (c *Cluster) stillThere(ctx context.Context, i Item) error {
	there, err := c.has(ctx, i.Key())
	if err == nil && !there {
		err = noSuch(i.ID)
	}
	return err
}

// has reports whether an object is there, whatever it says.
func (c *Cluster) has(ctx context.Context, k backup.Key) (bool, error) {
	_, err := c.store().Stat(ctx, k.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", k.Kind, err)
	}
	return true, nil
}

// Pin keeps a snapshot until [Cluster.Unmark], whatever the retention policy
// says. The reason is for people who ask later; by names who it was, as far as
// that is known.
func (c *Cluster) Pin(ctx context.Context, i Item, reason, by string) error {
	return c.Mark(ctx, i, backup.Mark{Kind: backup.MarkPin, Reason: reason, By: by})
}

// Unmark takes a mark away from a snapshot, which need not be there any more. It
// returns a [*NotFoundError] if there is no such mark.
func (c *Cluster) Unmark(ctx context.Context, id backup.SnapshotID, kind backup.MarkKind) error {
	m, err := c.FindMark(ctx, id, kind)
	if err != nil {
		return err
	}
	if m == nil {
		return &NotFoundError{fmt.Sprintf("snapshot %s is not %s", id, stateOf(kind))}
	}
	if err := c.store().Delete(ctx, markKey(c.name, id, kind).String()); err != nil {
		return fmt.Errorf("delete mark: %w", err)
	}
	return nil
}

// FindMark returns the mark of that kind of a snapshot, or nil if there is none.
// A mark that cannot be parsed counts all the same.
func (c *Cluster) FindMark(ctx context.Context, id backup.SnapshotID, kind backup.MarkKind) (*backup.Mark, error) {
	raw, err := c.readRaw(ctx, markKey(c.name, id, kind).String(), backup.MaxMarkBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read mark of snapshot %s: %w", id, err)
	}
	m, err := backup.ParseMark(raw)
	if err != nil || m.ID != id || m.Kind != kind {
		return &backup.Mark{Kind: kind, ID: id, Reason: "the mark cannot be read"}, nil
	}
	return m, nil
}

// Whole reports whether the result of a verification says that what is stored is
// what was stored. That a snapshot is suspect since it was taken is said of one
// that is whole.
func Whole(result error) bool {
	var defect *backup.DefectError
	return result == nil || errors.As(result, &defect) && defect.Kind == backup.Doubted
}

// Record keeps the result of a verification in the repository: a defect as a
// mark, which everything that judges a snapshot reads, or that there is none any
// more. by names who found it. A mark that says so already is no error, and a
// snapshot that was deleted meanwhile needs none.
func (c *Cluster) Record(ctx context.Context, i Item, result error, by string) error {
	var defect *backup.DefectError
	var err error
	switch {
	case Whole(result) && i.Marked(backup.MarkDamaged):
		err = c.Unmark(ctx, i.ID, backup.MarkDamaged)
	case !Whole(result) && i.Exists && errors.As(result, &defect):
		err = c.Mark(ctx, i, backup.Mark{
			Kind: backup.MarkDamaged, Reason: backup.ReasonOf(defect.Err), By: by, Defect: defect.Kind,
		})
	}
	if err == nil || errors.As(err, new(*MarkedError)) || errors.As(err, new(*NotFoundError)) {
		return nil
	}
	return fmt.Errorf("record the verification of snapshot %s: %w", i.ID, err)
}

// readMarks reads the marks of snapshots, but for those that known has: marks are
// written once.
func (c *Cluster) readMarks(
	ctx context.Context, items []Item, known map[backup.Key]backup.Mark,
) (map[backup.Key]backup.Mark, error) {
	out := map[backup.Key]backup.Mark{}
	var mu sync.Mutex // guards out
	var g errgroup.Group
	g.SetLimit(manifestReaders)
	for _, i := range items {
		for _, kind := range i.Marks {
			k := markKey(c.name, i.ID, kind)
			g.Go(func() (err error) {
				old, ok := known[k]
				m := &old
				if !ok {
					m, err = c.FindMark(ctx, k.ID, k.Mark)
				}
				if m != nil {
					mu.Lock()
					out[k] = *m
					mu.Unlock()
				}
				return err
			})
		}
	}
	return out, g.Wait()
}
