package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// PendingError is returned by [Taker.Take] if the snapshot was received but not
// stored, and now waits in the spool. [Taker.StorePending] stores it; another Take
// would ask etcd for another stream.
type PendingError struct {
	Pending spool.Pending
	Err     error // why it could not be stored
}

func (e *PendingError) Error() string {
	return fmt.Sprintf("%v (the received snapshot waits in %s)", e.Err, e.Pending.Path)
}

func (e *PendingError) Unwrap() error { return e.Err }

// leave leaves the spool pending in its folder, and returns the error that says
// so.
func (t *Taker) leave(file *spool.File, err error) error {
	p, werr := file.Leave(err)
	if werr != nil {
		t.log().Warn("a pending snapshot may not survive a power cut", "path", file.Path(), "err", werr)
	}
	return &PendingError{p, err}
}

// StorePending stores the pending snapshots of a cluster that are for this
// repository, the oldest first, without asking etcd for anything. It returns the
// manifests of those that are stored now. Each has the time and the revision at
// which it was taken. The others stay pending; the error says why. Those that are too
// many or too old are then dropped, but never the newest: see [spool.Folder.Tidy].
func (t *Taker) StorePending(ctx context.Context, to *repository.Cluster) ([]*backup.Manifest, error) {
	all, err := t.Spool.All()
	if err != nil {
		return nil, err
	}
	var stored []*backup.Manifest
	var failed []error
	for _, p := range all {
		if p.Capture.Cluster != to.Name() {
			continue
		}
		if p.Repository != to.Repository().ID() {
			t.log().Warn("a pending snapshot belongs to another repository", "path", p.Path, "repository", p.Repository)
			continue
		}
		m, err := t.storeOne(ctx, p, to)
		if err != nil {
			failed = append(failed, err)
		}
		if m != nil {
			stored = append(stored, m)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if ctx.Err() == nil {
		t.Spool.Tidy(to.Name(), to.Repository().ID()) // only now: the repository could have taken what is old
	}
	return stored, errors.Join(failed...)
}

// storeOne stores one pending snapshot. It returns neither an error nor a manifest
// if there is nothing to store: another process was quicker, or the spool was
// damaged and dropped.
func (t *Taker) storeOne(ctx context.Context, p spool.Pending, to *repository.Cluster) (*backup.Manifest, error) {
	file, err := t.Spool.Claim(p)
	if errors.Is(err, disk.ErrInUse) || errors.Is(err, disk.ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	guarded, stop := file.Guard(ctx)
	m, err := t.storeClaimed(guarded, file, to)
	err = withCause(guarded, err)
	stop()
	err = t.release(file, err)
	var damaged *spool.DamagedError
	switch {
	case file.GaveWay() != nil && err != nil:
		return nil, err
	case errors.As(err, &damaged):
		t.log().Error("dropped a pending snapshot", "path", p.Path, "started", p.Capture.StartedAt,
			"revision", int64(p.Capture.Revision), "err", err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	t.log().Info("stored a pending snapshot", "snapshot", m.ID, "revision", int64(m.Revision), "bytes", m.Stored.Bytes)
	return m, nil
}

func (t *Taker) storeClaimed(
	ctx context.Context, file *spool.File, to *repository.Cluster,
) (*backup.Manifest, error) {
	c := file.Pending().Capture
	sum, err := file.Verify(ctx)
	if err != nil {
		return nil, err
	}
	// What is stored leaves the spool, so it must be this very repository.
	if err := to.Repository().Check(ctx); err != nil {
		return nil, err
	}
	same, err := findStored(ctx, to, &c)
	if err != nil || same != nil { // a process stored it and ended before it removed the spool
		return same, err
	}
	known, placement, err := placeLate(ctx, to, &c)
	if err != nil {
		return nil, err
	}
	m, err := StoreSpooled(ctx, t, file, Spooled{c, sum}, to, known, placement)
	if err != nil {
		return nil, fmt.Errorf("store pending snapshot: %w", err)
	}
	return m, nil
}

// Spooled is what is known of a database that is complete in a spool.
type Spooled struct {
	Capture backup.Capture
	Sum     backup.Checksum // of the bytes that the capture vouches for
}

// StoreSpooled stores a complete spool as a snapshot of the known timeline that the placement
// names, or as the first of a new one. It leaves the spool.
func StoreSpooled(
	ctx context.Context, t *Taker, file *spool.File, s Spooled, to *repository.Cluster,
	known repository.Timelines, placement history.Placement,
) (*backup.Manifest, error) {
	stored, err := t.storer(to, s.Capture.StartedAt).store(ctx, file.Reader())
	if err != nil {
		return nil, err
	}
	m, err := complete(ctx, to, s.Capture, stored, s.Sum)
	if err != nil {
		return nil, err
	}
	attach(ctx, t, to, m)
	settle(m, known, placement)
	if err := to.Commit(ctx, m); err != nil {
		return nil, err
	}
	return m, nil
}

// findStored returns the manifest of a pending snapshot that is stored already, or nil.
func findStored(ctx context.Context, to *repository.Cluster, c *backup.Capture) (*backup.Manifest, error) {
	second := c.StartedAt.Truncate(time.Second)
	for i, err := range to.Items(ctx) {
		if err != nil {
			return nil, err
		}
		if !i.Exists || !i.ID.Time().Equal(second) {
			continue
		}
		found, err := repository.FirstReadable(ctx, to, []repository.Item{i})
		if err != nil {
			return nil, err
		}
		if found != nil && found.StartedAt.Equal(c.StartedAt) && found.Plain == c.Plain {
			return found, nil
		}
	}
	return nil, nil
}
