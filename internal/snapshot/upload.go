package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// uploadTries is how often a complete spool is offered to a store that fails.
// Each try has the store's own retries in it.
const uploadTries = 3

// cleanUpTime bounds what is done for tidiness after a failure, when the
// caller's context may be over already.
const cleanUpTime = 10 * time.Second

// storedBlobs is what was stored.
type storedBlobs struct {
	name   backup.DataName
	plain  backup.Checksum // of what was read from the spool
	stored backup.Blob
}

// upload encodes a spool and stores it, while the spool still grows. Its
// methods are for one goroutine; start leaves another one behind, which stop
// and wait end.
type upload struct {
	taker   *Taker
	spool   *spool
	started time.Time
	refused error // why the store is not even tried; nil if it is

	running *try // nil when there is none, or its outcome was taken
}

// try is one data object being stored.
type try struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when what follows is set
	result storedBlobs
	err    error
}

// start begins to store what the spool receives.
func (u *upload) start(ctx context.Context) {
	if u.refused != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &try{cancel: cancel, done: make(chan struct{})}
	src := u.spool.reader()
	go func() {
		defer close(r.done)
		r.result, r.err = u.taker.store(ctx, src, u.started)
	}()
	u.running = r
}

// stop ends an upload whose outcome was not taken, and leaves nothing of it.
func (u *upload) stop(ctx context.Context) {
	r := u.running
	if r == nil {
		return
	}
	u.running = nil
	r.cancel()
	u.spool.abandonReaders()
	<-r.done
	if r.err == nil {
		discard(ctx, u.taker.Store, u.taker.dataKey(r.result.name))
	}
}

// wait returns what was stored. A store that failed is offered the complete
// spool again: etcd is not asked twice for a fault of the store. When wait
// returns an error the upload must still be stopped.
func (u *upload) wait(ctx context.Context) (storedBlobs, error) {
	if u.refused != nil {
		return storedBlobs{}, u.refused
	}
	pause := u.taker.RetryPause
	for n := 1; ; n++ {
		r := u.running
		select {
		case <-r.done:
		case <-ctx.Done():
			return storedBlobs{}, fmt.Errorf("store snapshot: %w", context.Cause(ctx))
		}
		r.cancel()
		if r.err == nil {
			u.running = nil // taken: stop has nothing to undo any more
			return r.result, nil
		}
		if n == uploadTries || !retryable(ctx, r.err) {
			return storedBlobs{}, fmt.Errorf("store snapshot: %w", r.err)
		}
		u.taker.Log.Warn("store failed, trying again from the spool", "err", r.err, "pause", pause)
		if err := sleep(ctx, pause); err != nil {
			return storedBlobs{}, fmt.Errorf("store snapshot: %w", errors.Join(err, r.err))
		}
		pause *= 4
		u.start(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// retryable tells a store in trouble from one that will say the same again.
func retryable(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backup.ErrCorrupt)
}

// store encodes src into a new data object and reads it back. Each try has a name of its own: one
// whose answer was lost may be there all the same.
func (t *Taker) store(ctx context.Context, src *spoolReader, started time.Time) (storedBlobs, error) {
	out := storedBlobs{name: backup.NewDataName(started)}
	enc, err := codec.NewEncoder(&reporting{src: src, report: t.stage(backup.StageStore)}, t.Codec)
	if err != nil {
		return out, err
	}
	defer enc.Close()
	err = t.Store.Create(ctx, t.dataKey(out.name), enc)
	if errors.Is(err, fs.ErrExist) {
		return out, err // another's, by a chance of one in 2^30
	}
	if err != nil {
		discard(ctx, t.Store, t.dataKey(out.name))
		return out, err
	}
	out.plain, out.stored = enc.Sums()
	// Nothing that cannot be read back is called a backup.
	if err := readBack(ctx, t.Store, t.dataKey(out.name), out.stored, t.Progress); err != nil {
		discard(ctx, t.Store, t.dataKey(out.name))
		return out, fmt.Errorf("read back: %w", err)
	}
	return out, nil
}

// discard deletes a data object that no manifest will name. Its error is of no
// use to anyone: what stays is litter, which prune collects.
func discard(ctx context.Context, s storage.Store, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	_ = s.Delete(ctx, key)
}

// reporting tells how much of the spool was stored.
type reporting struct {
	src    *spoolReader
	report func(done, total int64)
}

func (r *reporting) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.report(min(r.src.off, r.src.s.expect), r.src.s.expect)
	return n, err
}
