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
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
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

// Marks are what is stated about the snapshots of a cluster.
type Marks struct {
	store   storage.Store
	objects catalog.Catalog
}

// Add states something about a snapshot until [Marks.Remove]. The format and
// the time of mark are filled in. It returns a [*NotFoundError] if there is no such
// snapshot, and a [*MarkedError] if it has a mark of that kind already.
func (m Marks) Add(ctx context.Context, i Item, mark backup.Mark) error {
	mark.Format, mark.ID, mark.At = backup.MarkFormat, i.ID, time.Now().UTC().Truncate(time.Second)
	raw, err := mark.Marshal()
	if err != nil {
		return err
	}
	if err := stillThere(ctx, m.objects, i); err != nil {
		return err
	}
	err = storage.Keep(ctx, m.store, markKey(m.objects.Cluster, i.ID, mark.Kind).String(), raw)
	if errors.Is(err, fs.ErrExist) {
		if old, ferr := m.Find(ctx, i.ID, mark.Kind); ferr == nil && old != nil {
			return &MarkedError{*old}
		}
	}
	if err != nil {
		return fmt.Errorf("create mark: %w", err)
	}
	// A prune that had looked for the mark before may be deleting now. It looks
	// again after it deleted the manifest: one of the two sees the other.
	if err := stillThere(ctx, m.objects, i); err != nil {
		return fmt.Errorf("%s too late: %w", stateOf(mark.Kind), err)
	}
	return nil
}

// stillThere returns a [*NotFoundError] if the manifest is gone.
func stillThere(ctx context.Context, in catalog.Catalog, i Item) error {
	there, err := in.Has(ctx, i.Key())
	if err == nil && !there {
		err = noSuch(i.ID)
	}
	return err
}

// Pin protects a snapshot from retention until [Marks.Remove]. The reason is for
// people who ask later; by names the person, as far as that is known.
func (m Marks) Pin(ctx context.Context, i Item, reason, by string) error {
	return m.Add(ctx, i, backup.Mark{Kind: backup.MarkPin, Reason: reason, By: by})
}

// Remove deletes a mark of a snapshot, which need not exist any longer. It returns
// a [*NotFoundError] if there is no such mark.
func (m Marks) Remove(ctx context.Context, id backup.SnapshotID, kind backup.MarkKind) error {
	mark, err := m.Find(ctx, id, kind)
	if err != nil {
		return err
	}
	if mark == nil {
		return &NotFoundError{fmt.Sprintf("snapshot %s is not %s", id, stateOf(kind))}
	}
	if err := storage.Remove(ctx, m.store, markKey(m.objects.Cluster, id, kind).String()); err != nil {
		return fmt.Errorf("delete mark: %w", err)
	}
	return nil
}

// Find returns the mark of that kind of a snapshot, or nil if there is none. A
// mark that cannot be parsed counts too.
func (m Marks) Find(ctx context.Context, id backup.SnapshotID, kind backup.MarkKind) (*backup.Mark, error) {
	return m.find(ctx, markKey(m.objects.Cluster, id, kind))
}

func (m Marks) find(ctx context.Context, k backup.Key) (*backup.Mark, error) {
	raw, err := m.objects.Read(ctx, k.String(), backup.MaxMarkBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read mark %s: %w", k, err)
	}
	mark, err := backup.ParseMark(raw)
	if err != nil || mark.ID != k.ID || mark.Data != k.Data || mark.Kind != k.Mark {
		return unread(k), nil
	}
	return mark, nil
}

func unread(k backup.Key) *backup.Mark {
	return &backup.Mark{Kind: k.Mark, ID: k.ID, Data: k.Data, Reason: "the mark cannot be read"}
}

// Note makes a mark whatever there is of its snapshot or its data. The format and the
// time of mark are filled in. It is no error if there is a mark of that kind already.
func (m Marks) Note(ctx context.Context, mark backup.Mark) error {
	mark.Format, mark.At = backup.MarkFormat, time.Now().UTC().Truncate(time.Second)
	raw, err := mark.Marshal()
	if err != nil {
		return err
	}
	k := backup.Key{
		Cluster: m.objects.Cluster, Kind: backup.KindMark, ID: mark.ID, Data: mark.Data, Mark: mark.Kind,
	}
	err = m.store.Create(ctx, k.String(), bytes.NewReader(raw))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create mark %s: %w", k, err)
	}
	return nil
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
func (m Marks) Record(ctx context.Context, i Item, result error, by string) error {
	var defect *backup.DefectError
	var err error
	switch {
	case Whole(result) && i.Marked(backup.MarkDamaged):
		err = m.Remove(ctx, i.ID, backup.MarkDamaged)
	case !Whole(result) && i.Exists && errors.As(result, &defect):
		err = m.Add(ctx, i, backup.Mark{
			Kind: backup.MarkDamaged, Reason: backup.ReasonOf(defect.Err), By: by, Defect: defect.Kind,
		})
	}
	if err == nil || errors.As(err, new(*MarkedError)) || errors.As(err, new(*NotFoundError)) {
		return nil
	}
	return fmt.Errorf("mark the result of verifying snapshot %s: %w", i.ID, err)
}

// read returns the marks of snapshots, and those that explain data without one. It does not read those that known has,
// because marks are never changed.
func (m Marks) read(
	ctx context.Context, items []Item, known map[backup.Key]backup.Mark,
) (map[backup.Key]backup.Mark, error) {
	out := map[backup.Key]backup.Mark{}
	var mu sync.Mutex // guards out
	var g errgroup.Group
	g.SetLimit(manifestReaders)
	for _, i := range items {
		for _, kind := range i.Marks {
			if !readsMark(&i, kind) {
				continue
			}
			k := MarkKey(&i, kind)
			g.Go(func() (err error) {
				old, ok := known[k]
				mark := &old
				if !ok {
					mark, err = m.find(ctx, k)
				}
				if backup.Withheld(err) { // its name counts
					mark, err = unread(k), nil
				}
				if mark != nil {
					mu.Lock()
					out[k] = *mark
					mu.Unlock()
				}
				return err
			})
		}
	}
	return out, g.Wait()
}

// readsMark reports whether a look reads the content of a mark about the item. There may
// be many marks of removed snapshots, whose names and times are enough.
func readsMark(i *Item, kind backup.MarkKind) bool {
	ofData := kind == backup.MarkLitter || kind == backup.MarkRemoved
	return i.Exists && !ofData || !i.Exists && ofData && len(i.Data) > 0
}
