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

// MarkedError is returned if the snapshot has a mark of that kind already.
type MarkedError struct{ backup.Mark }

func (e *MarkedError) Error() string {
	return fmt.Sprintf("snapshot %s is %s: %s", e.ID, stateOf(e.Kind), e.Reason)
}

// Is makes it match [fs.ErrExist].
func (e *MarkedError) Is(target error) bool { return target == fs.ErrExist }

// stateOf returns the word for a snapshot with a mark.
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
	// A prune that looked for the mark before it was created may be deleting now.
	// After it deleted the manifest it looks again. So one of the two sees the
	// other.
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

// has reports whether an object exists. It does not read it.
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

// Pin protects a snapshot from retention until [Cluster.Unmark]. The reason is for
// people who ask later; by names the person, as far as that is known.
func (c *Cluster) Pin(ctx context.Context, i Item, reason, by string) error {
	return c.Mark(ctx, i, backup.Mark{Kind: backup.MarkPin, Reason: reason, By: by})
}

// Unmark deletes a mark of a snapshot, which need not exist any longer. It returns
// a [*NotFoundError] if there is no such mark.
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

// FindMark returns the mark of that kind of a snapshot, or nil if there is none. A
// mark that cannot be parsed counts too.
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

// Whole reports whether a verification found the snapshot stored as it was taken.
// A snapshot that was suspect when it was taken is whole if its bytes are.
func Whole(result error) bool {
	var defect *backup.DefectError
	return result == nil || errors.As(result, &defect) && defect.Kind == backup.Doubted
}

// Record writes the result of a verification into the repository. A defect becomes
// a mark, which [Item.State] heeds; if the snapshot is whole, such a mark is
// deleted. by names the finder. It is no error if the mark exists already or the
// snapshot was deleted meanwhile.
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
	return fmt.Errorf("mark the result of verifying snapshot %s: %w", i.ID, err)
}

// readMarks returns the marks of snapshots. It does not read those that known has,
// because marks are never changed.
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
