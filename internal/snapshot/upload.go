package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// uploadTries is how many times a complete spool is offered to a store that fails.
// The store retries on its own within each try.
const uploadTries = 3

// storer encodes a spool and stores it as a data object.
type storer struct {
	to       *repository.Cluster
	codec    codec.Options
	began    time.Time // of the snapshot
	progress backup.Progress
}

func (t *Taker) storer(to *repository.Cluster, began time.Time) storer {
	return storer{to, t.Codec, began, t.progress()}
}

// storedData is what was stored.
type storedData struct {
	name     backup.DataName
	key      string
	plain    backup.Checksum // of what was read from the spool
	stored   backup.Blob
	table    *backup.Blob
	encoding backup.Encoding
}

// store encodes src into a new data object and reads it back. Each try uses a new
// name: an object whose answer was lost may exist all the same.
func (s storer) store(ctx context.Context, src *spool.Reader) (storedData, error) {
	out := storedData{name: backup.NewDataName(s.began), encoding: s.codec.Encoding()}
	out.key = s.to.Data().Key(out.name, out.encoding)
	enc, err := codec.NewEncoder(&reporting{src, s.progress}, s.codec)
	if err != nil {
		return out, err
	}
	defer enc.Close()
	report := func() {
		done, total := src.Progress()
		s.progress(backup.StageStore, done, total)
	}
	report()
	err = s.to.Data().Put(ctx, out.key, enc)
	if errors.Is(err, fs.ErrExist) {
		return out, err // the object of another process, by a chance of one in 2^30: it must stay
	}
	if err != nil {
		s.to.Data().Discard(ctx, out.key)
		return out, err
	}
	report() // the store had its last bytes to do after they were read here
	out.plain, out.stored = enc.Sums()
	out.table = enc.Table()
	// Nothing that cannot be read back is called a backup.
	if err := s.to.Data().ReadBack(ctx, out.key, out.stored, s.progress); err != nil {
		s.to.Data().Discard(ctx, out.key)
		return out, fmt.Errorf("read back: %w", err)
	}
	return out, nil
}

// reporting reports how much of the spool was stored.
type reporting struct {
	src      *spool.Reader
	progress backup.Progress
}

func (r *reporting) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	done, total := r.src.Progress()
	r.progress(backup.StageStore, done, total)
	return n, err
}

// upload stores a spool while it still grows. Its methods are for one goroutine;
// start leaves another one behind, which stop and wait end.
type upload struct {
	storer
	spool   *spool.File
	log     *slog.Logger
	pause   time.Duration // before the second try; 0 means 2 s
	refused error         // why the store is not tried at all; nil if it is

	running *try // nil if there is none, or wait has returned its result
}

// try is one data object being stored.
type try struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when what follows is set
	result storedData
	err    error
}

// start begins to store the spool.
func (u *upload) start(ctx context.Context) {
	if u.refused != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &try{cancel: cancel, done: make(chan struct{})}
	src := u.spool.Reader()
	go func() {
		defer close(r.done)
		r.result, r.err = u.store(ctx, src)
	}()
	u.running = r
}

// stop ends an upload whose result was not returned, and leaves nothing of it.
func (u *upload) stop(ctx context.Context) {
	r := u.running
	if r == nil {
		return
	}
	u.running = nil
	r.cancel()
	u.spool.AbandonReaders()
	<-r.done
	if r.err == nil {
		u.to.Data().Discard(ctx, r.result.key)
	}
}

// wait waits for the upload and returns what was stored. After a failure it offers
// the complete spool to the store again: etcd is not asked twice because of a
// fault of the store. If wait returns an error, the upload must still be stopped.
func (u *upload) wait(ctx context.Context) (storedData, error) {
	if u.refused != nil {
		return storedData{}, u.refused
	}
	pause := u.pause
	if pause <= 0 {
		pause = 2 * time.Second
	}
	for n := 1; ; n++ {
		r := u.running
		select {
		case <-r.done:
		case <-ctx.Done():
			return storedData{}, fmt.Errorf("store snapshot: %w", context.Cause(ctx))
		}
		r.cancel()
		if r.err == nil {
			u.running = nil // now stop has nothing to undo
			return r.result, nil
		}
		if n == uploadTries || !retryable(ctx, r.err) {
			return storedData{}, fmt.Errorf("store snapshot: %w", r.err)
		}
		u.log.Warn("store failed, trying again from the spool", "err", r.err, "pause", pause)
		if err := sleep(ctx, pause); err != nil {
			return storedData{}, fmt.Errorf("store snapshot: %w", errors.Join(err, r.err))
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

// retryable reports whether the store may accept the spool at the next try.
func retryable(ctx context.Context, err error) bool {
	return ctx.Err() == nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) &&
		!errors.Is(err, backup.ErrCorrupt)
}
