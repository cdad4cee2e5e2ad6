package copies

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/pace"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Result says what a run has copied. It is complete also if the run has failed.
type Result struct {
	Copied []repository.Item // in the order in which they were copied
	Bytes  int64             // of the data of those
	// LeftOut are those of the plan, and those that were found out about since.
	LeftOut     []LeftOut
	Pins        []backup.Key // made for snapshots that the destination had
	Acceptances []backup.Key // made
}

// Run does what the plan says, and nothing else. A snapshot that cannot be copied is left
// out, with the reason. A failure of the source or of the destination as a whole ends the
// run: the next one goes on where this one was. A manifest is made last, when its data was
// read back, so whatever happens there is never a manifest without data.
func (c *Copier) Run(ctx context.Context, p *Plan) (*Result, error) {
	r := &run{
		Copier: c, source: objectsOf(c.From), destination: objectsOf(c.To), store: c.To.Repository().Store(),
		pace: pace.New(c.Rate), log: c.Log, result: &Result{LeftOut: append([]LeftOut{}, p.LeftOut...)},
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if p.Cluster != c.From.Name() {
		return r.result, fmt.Errorf("the plan is for cluster %s, not for %s", p.Cluster, c.From.Name())
	}
	return r.result, r.all(ctx, p)
}

// run is one run in progress.
type run struct {
	*Copier
	source, destination catalog.Catalog
	store               storage.Store // of the destination
	pace                *pace.Limiter
	log                 *slog.Logger
	result              *Result
}

func (r *run) all(ctx context.Context, p *Plan) error {
	if err := r.To.Repository().Check(ctx); err != nil {
		return fmt.Errorf("look at the destination: %w", err)
	}
	// Which history is the present one comes before what is of it: until the snapshots are
	// there it says nothing.
	for _, k := range p.Acceptances {
		made, err := r.small(ctx, k, backup.MaxManifestBytes)
		if err != nil {
			return fmt.Errorf("copy %s: %w", k, err)
		}
		if made {
			r.result.Acceptances = append(r.result.Acceptances, k)
		}
	}
	var unread []error // pins that the source does not give, which must not hold up what is missing
	for _, k := range p.Pins {
		made, err := r.small(ctx, k, backup.MaxMarkBytes)
		if err != nil {
			err = fmt.Errorf("copy the pin of snapshot %s: %w", k.ID, err)
		}
		switch {
		case errors.As(err, new(*leftOutError)):
			unread = append(unread, err)
		case err != nil:
			return err
		case made:
			r.result.Pins = append(r.result.Pins, k)
		}
	}
	return errors.Join(append(unread, snapshots(ctx, r, p))...)
}

// snapshots copies those that are missing.
func snapshots(ctx context.Context, r *run, p *Plan) error {
	for _, i := range p.Missing {
		err := r.snapshot(ctx, i)
		var out *leftOutError
		switch {
		case ctx.Err() != nil && err != nil:
			return context.Cause(ctx)
		case errors.As(err, &out):
			r.result.LeftOut = append(r.result.LeftOut, LeftOut{i, out.cause, out.reason})
			r.log.Warn("snapshot was not copied", "snapshot", i.ID, "reason", out.reason)
		case err != nil:
			return fmt.Errorf("copy snapshot %s: %w", i.ID, err)
		default:
			r.result.Copied = append(r.result.Copied, i)
			r.log.Info("copied snapshot", "snapshot", i.ID, "bytes", i.StoredBytes())
		}
	}
	return nil
}

// leftOutError is the reason why one snapshot is left out, and the others are copied.
type leftOutError struct {
	cause  Cause
	reason string
}

func (e *leftOutError) Error() string { return e.reason }

func leave(cause Cause, format string, args ...any) error {
	return &leftOutError{cause, fmt.Sprintf(format, args...)}
}

// snapshot copies one. Its marks are made before the manifest: retention at the destination
// must not come between them. A prune that has listed the marks, but the data too early, may
// take one for litter; so they are looked at again.
func (r *run) snapshot(ctx context.Context, i repository.Item) error {
	raw, m, err := r.manifest(ctx, i.Key())
	if err != nil {
		return err
	}
	parts := partsOf(m)
	for _, p := range parts {
		if err := r.data(ctx, p); err != nil {
			return unlessGone(ctx, r.source, i.Key(), err)
		}
	}
	var lost *storage.NotKeptError // to a prune, or the second look tells that the store keeps nothing
	if err := r.marks(ctx, i); err != nil && (!errors.As(err, &lost) || lost.Other) {
		return err
	}
	before, err := r.stays(ctx, i, parts)
	if err != nil {
		return err
	}
	made, err := r.commit(ctx, i, m.Key(), raw)
	if err != nil {
		return err
	}
	if made {
		if err := r.confirm(ctx, i, m.Key(), before); err != nil {
			return err
		}
	}
	for _, p := range parts {
		r.result.Bytes += p.want.Bytes
	}
	return r.marks(ctx, i)
}

// marks makes those marks at the destination that are about the snapshot, and not about its
// bytes at one place, if they are not there.
func (r *run) marks(ctx context.Context, i repository.Item) error {
	for _, kind := range []backup.MarkKind{backup.MarkDamaged, backup.MarkPin} {
		if !i.Marked(kind) {
			continue
		}
		k := repository.MarkKey(&i, kind)
		there, err := r.destination.Has(ctx, k)
		if err == nil && !there {
			_, err = r.small(ctx, k, backup.MaxMarkBytes)
		}
		if err != nil {
			return fmt.Errorf("copy the mark %s: %w", kind, err)
		}
	}
	return nil
}

// manifest reads a manifest of the source. One that is not whole is read once more: it may
// have been damaged on its way.
func (r *run) manifest(ctx context.Context, k backup.Key) ([]byte, *backup.Manifest, error) {
	for again := false; ; again = true {
		raw, err := r.source.Read(ctx, k.String(), backup.MaxManifestBytes)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil, leave(Removed, "the source has removed it meanwhile")
		case backup.Withheld(err):
			return nil, nil, leave(Withheld, "read its manifest: %v", err)
		case err != nil:
			return nil, nil, fmt.Errorf("read manifest: %w", err)
		}
		m, err := backup.ParseManifest(raw)
		if err == nil && m.ObjectKey() != k {
			err = backup.Corruptf("by its content its name is %s", m.Key())
		}
		if err == nil {
			return raw, m, nil
		}
		if again || !errors.Is(err, backup.ErrCorrupt) {
			return nil, nil, leave(Damaged, "at the source: %s: %v", k, err)
		}
	}
}

// unlessGone returns err, or says that the source has removed the snapshot meanwhile.
func unlessGone(ctx context.Context, source catalog.Catalog, k backup.Key, err error) error {
	if !errors.As(err, new(*leftOutError)) {
		return err
	}
	if there, herr := source.Has(ctx, k); herr == nil && !there {
		return leave(Removed, "the source has removed it meanwhile")
	}
	return err
}

// stays makes sure that the data at the destination is there and that no prune removes it: it
// was stored lately, or nobody has marked it as litter long ago. A prune removes what has no
// manifest a day after it was marked, or a day after it was stored if the snapshot was removed
// on purpose. The manifest is made within moments from now.
// It returns when a removal of the snapshot was announced there, or zero.
func (r *run) stays(ctx context.Context, i repository.Item, parts []part) (removed time.Time, err error) {
	removed, err = r.storedAt(ctx, repository.MarkKey(&i, backup.MarkRemoved).String())
	if err != nil {
		return removed, err
	}
	if !removed.IsZero() && r.Only == "" {
		return removed, leave(Removed, "the destination has removed it meanwhile")
	}
	litter, err := r.storedAt(ctx, repository.MarkKey(&i, backup.MarkLitter).String())
	if err != nil {
		return removed, err
	}
	for _, p := range parts {
		data, err := r.storedAt(ctx, p.key)
		switch {
		case err != nil:
			return removed, err
		case data.IsZero():
			return removed, leave(Waiting, "%s was removed at the destination meanwhile: another run copies it", p.key)
		case !removed.IsZero() && isOld(data), !litter.IsZero() && isOld(litter):
			return removed, leave(Waiting, "%s is at the destination without a manifest, and a prune is about to remove it: "+
				"after 'backupd prune' there another run copies it", p.key)
		}
	}
	return removed, nil
}

// isOld reports whether half of the time is over after which a prune may remove something.
func isOld(at time.Time) bool { return time.Since(at) > repository.LitterAge/2 }

// storedAt returns when an object was stored at the destination, or zero if it is not there.
func (r *run) storedAt(ctx context.Context, key string) (time.Time, error) {
	o, err := r.store.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look for %s at the destination: %w", key, err)
	}
	return o.ModTime, nil
}

// tidyTime bounds what must be done after a failure, also if the caller's context has ended.
const tidyTime = 10 * time.Second

// commit makes the manifest at the destination, if that is still the same repository. It
// returns false if another run has made it.
func (r *run) commit(ctx context.Context, i repository.Item, key string, raw []byte) (made bool, err error) {
	if err := r.To.Repository().Check(ctx); err != nil {
		return false, fmt.Errorf("create manifest: %w", err)
	}
	err = storage.Keep(ctx, r.store, key, raw)
	if err == nil {
		return true, nil
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	ours := !errors.Is(err, fs.ErrExist)
	var other *storage.NotKeptError
	if !errors.As(err, &other) {
		// Another run has made it, or only the answer was lost. The object itself can tell.
		kept := storage.Kept(asking, r.store, key, raw)
		if kept == nil {
			return ours, nil
		}
		if !ours && errors.As(kept, &other) {
			err = kept
		}
	}
	switch {
	case other == nil:
		return false, fmt.Errorf("create manifest: %w", err)
	case !other.Other && wasRemoved(asking, r, i):
		return false, leave(Removed, "the destination has removed it meanwhile")
	case !ours && other.Other:
		return false, leave(Differs, "the destination has another %s than the source", key)
	case !ours:
		return false, fmt.Errorf("create manifest: %w", err)
	}
	if left := storage.Remove(asking, r.store, key); left != nil {
		return false, fmt.Errorf("create manifest: %w; it is no backup, and what is there of it could not be removed: %w",
			err, left)
	}
	return false, fmt.Errorf("create manifest: %w; it was removed again", err)
}

// confirm looks whether a prune at the destination removes the snapshot just now: another run
// may have copied it before, and a prune announces what it removes before it deletes the
// manifest. Then the manifest that was made since must not stay, for the data goes.
func (r *run) confirm(ctx context.Context, i repository.Item, key string, before time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTime)
	defer cancel()
	now, err := r.storedAt(ctx, repository.MarkKey(&i, backup.MarkRemoved).String())
	if err != nil || now.IsZero() || now.Equal(before) {
		return err
	}
	if err := storage.Remove(ctx, r.store, key); err != nil {
		return fmt.Errorf("remove the manifest of a snapshot that a prune removes at the destination: %w", err)
	}
	return leave(Removed, "the destination has removed it meanwhile")
}

// wasRemoved reports whether a prune of the destination, which may come at any moment, has
// removed the snapshot.
func wasRemoved(ctx context.Context, r *run, i repository.Item) bool {
	at, err := r.storedAt(ctx, repository.MarkKey(&i, backup.MarkRemoved).String())
	return err == nil && !at.IsZero()
}

// small copies a mark or an acceptance, byte for byte, and reports whether it did: it may be
// gone at the source, and another may be at the destination, which then stays.
func (r *run) small(ctx context.Context, k backup.Key, limit int) (bool, error) {
	raw, err := r.source.Read(ctx, k.String(), int64(limit))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case backup.Withheld(err):
		return false, leave(Withheld, "%v", err)
	case err != nil:
		return false, fmt.Errorf("read from the source: %w", err)
	case len(raw) > limit:
		return false, leave(Damaged, "at the source: %s is larger than any of its kind", k)
	}
	err = storage.Keep(ctx, r.store, k.String(), raw)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}
