package copies

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/pace"
)

// part is one object with data of a snapshot.
type part struct {
	key  string
	want backup.Blob // by the manifest
}

func partsOf(m *backup.Manifest) []part {
	out := []part{{m.DataKey(), m.Stored}}
	if key := m.FilesKey(); key != "" {
		out = append(out, part{key, m.Companions.Stored})
	}
	return out
}

// data makes sure that the destination holds the bytes of one object, as the manifest tells
// them. Those that an interrupted run has left are used if they are the same.
func (r *run) data(ctx context.Context, p part) error {
	_, err := r.store.Stat(ctx, p.key)
	switch {
	case err == nil:
		return r.held(ctx, p)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s at the destination: %w", p.key, err)
	}
	err = r.transfer(ctx, p)
	switch {
	case errors.Is(err, fs.ErrExist): // another run was quicker
		return r.held(ctx, p)
	case err != nil:
		return err
	}
	if err := r.readBack(ctx, p); err != nil {
		return backup.WithHint(fmt.Errorf("read %s back at the destination: %w", p.key, err),
			"do not trust a store that keeps other bytes than were sent: 'backupd check' tries what it can do; what is "+
				"there of this snapshot has no manifest, and 'backupd prune' removes it after two days")
	}
	return nil
}

// held compares an object that the destination has already. It is never overwritten.
func (r *run) held(ctx context.Context, p part) error {
	err := r.readBack(ctx, p)
	if errors.Is(err, backup.ErrCorrupt) {
		return leave(Differs, "the destination has other bytes as %s, without a manifest, than the source: %v; "+
			"'backupd prune' there marks them, and removes them a day later", p.key, err)
	}
	if err != nil {
		return fmt.Errorf("read %s at the destination: %w", p.key, err)
	}
	return nil
}

func (r *run) readBack(ctx context.Context, p part) error {
	before := int64(0)
	return r.To.Data().ReadBack(ctx, p.key, p.want, func(stage backup.Stage, done, total int64) {
		r.report(stage, done, total)
		if done > before {
			r.pace.Wait(ctx, int(done-before))
		}
		before = done
	})
}

func (r *run) report(stage backup.Stage, done, total int64) {
	if r.Progress != nil {
		r.Progress(stage, done, total)
	}
}

// transfer stores the bytes of the source at the destination, if they are those of the
// manifest. Bytes that differ are read once more: they may have been changed on their way.
func (r *run) transfer(ctx context.Context, p part) error {
	err := r.transferOnce(ctx, p)
	var changed *changedError
	if errors.As(err, &changed) {
		err = r.transferOnce(ctx, p)
	}
	if errors.As(err, &changed) {
		return leave(Damaged, "at the source: %v", &backup.DefectError{Kind: backup.Changed, Key: p.key, Err: changed.err})
	}
	return err
}

func (r *run) transferOnce(ctx context.Context, p part) error {
	r.report(backup.StageCopy, 0, p.want.Bytes)
	src, err := r.From.Data().Open(ctx, p.key, p.want, func(done, total int64) {
		r.report(backup.StageCopy, done, total)
	})
	if err != nil {
		return unread(err)
	}
	defer src.Close()
	body := &compared{ctx: ctx, r: src, sum: sha256.New(), want: p.want, pace: r.pace}
	err = r.To.Data().Put(ctx, p.key, body)
	switch {
	case body.err != nil: // then nothing is stored
		return unread(body.err)
	case err != nil:
		return fmt.Errorf("store %s at the destination: %w", p.key, err)
	}
	return nil
}

// unread says of an error of reading the source whether others can be read all the same.
func unread(err error) error {
	var changed *changedError
	switch {
	case errors.As(err, &changed):
		return changed // it is read again
	case errors.Is(err, backup.ErrCorrupt), errors.Is(err, fs.ErrNotExist):
		return leave(Damaged, "at the source: %v", err)
	case backup.Withheld(err):
		return leave(Withheld, "%v", err)
	}
	return fmt.Errorf("read from the source: %w", err)
}

// changedError says that other bytes came than the manifest tells.
type changedError struct{ err error }

func (e *changedError) Error() string { return e.err.Error() }
func (e *changedError) Unwrap() error { return e.err }

// compared reads stored bytes at a bounded rate, and fails in place of ending if they are
// not those that the manifest tells: so a store keeps nothing of them.
type compared struct {
	ctx  context.Context // Read has no parameter for it
	r    io.Reader
	sum  hash.Hash
	n    int64
	want backup.Blob
	pace *pace.Limiter
	err  error // the first that is not io.EOF
}

func (c *compared) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	c.n += int64(n)
	c.pace.Wait(c.ctx, n)
	if err == io.EOF {
		got := backup.Blob{Bytes: c.n, SHA256: backup.Digest(c.sum.Sum(nil))}
		if got != c.want {
			err = &changedError{backup.Corruptf("%d bytes with sha256 %s were read, the manifest tells %d with %s",
				got.Bytes, got.SHA256, c.want.Bytes, c.want.SHA256)}
		}
	}
	if err != nil && err != io.EOF && c.err == nil {
		c.err = err
	}
	return n, err
}
