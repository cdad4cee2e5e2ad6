package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// damagedSpoolError says that the local copy is not what was received. It is
// worth nothing any more.
type damagedSpoolError struct{ err error }

func (e *damagedSpoolError) Error() string { return "the spooled copy is damaged: " + e.err.Error() }
func (e *damagedSpoolError) Unwrap() error { return e.err }

// remember writes the record that lets another process store the snapshot.
func (t *Taker) remember(sp *spool, repository string, m *backup.Manifest) {
	copied := *m
	r := &pendingRecord{Repository: repository, Manifest: &copied}
	if err := writeRecord(sp.path, r); err != nil {
		// The backup may well succeed without.
		t.Log.Warn("the snapshot cannot be kept should the store fail", "err", err)
		return
	}
	sp.record = r
}

// keep leaves in the spool folder what could not be stored, and returns the
// error that says so.
func (t *Taker) keep(sp *spool, err error) error {
	r := sp.record
	r.Tries, r.Reason = r.Tries+1, err.Error()
	if werr := writeRecord(sp.path, r); werr != nil {
		t.Log.Warn("cannot record why a snapshot is pending", "path", sp.path, "err", werr) // the record before this one stands
	}
	// Not earlier: while all goes well nothing has to reach the disk, which may
	// be the one an etcd waits for.
	if serr := errors.Join(sp.f.Sync(), sp.f.Close()); serr != nil {
		t.Log.Warn("a pending snapshot may not survive a power cut", "path", sp.path, "err", serr)
	}
	t.tidyPending()
	return &PendingError{r.describe(sp.path), err}
}

// StorePending stores the snapshots of this cluster that were received but could
// not be stored in this repository, the oldest first, without asking etcd for
// anything. It returns the manifests of those that are stored now. Each keeps
// the time and the revision at which it was taken. What cannot be stored stays
// pending, for a week at most; the error tells why.
func (t *Taker) StorePending(ctx context.Context) ([]*backup.Manifest, error) {
	t.setDefaults()
	if err := backup.CheckClusterName(t.Cluster); err != nil {
		return nil, err
	}
	all, err := pendings(t.Spool)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	marker, err := storage.OpenRepository(ctx, t.Store)
	if err != nil {
		t.tidyPending()
		return nil, err
	}
	return t.storePending(ctx, marker.ID)
}

func (t *Taker) storePending(ctx context.Context, repository string) ([]*backup.Manifest, error) {
	t.tidyPending()
	all, err := pendings(t.Spool)
	if err != nil {
		return nil, err
	}
	var stored []*backup.Manifest
	var failed []error
	for _, p := range all {
		if p.err != nil || p.record.Manifest.Cluster != t.Cluster {
			continue
		}
		if p.record.Repository != repository {
			t.Log.Warn("a pending snapshot belongs to another repository", "path", p.path, "repository", p.record.Repository)
			continue
		}
		m, err := t.storeSpool(ctx, p)
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
	return stored, errors.Join(failed...)
}

// storeSpool stores one pending snapshot. Without an error and a manifest there
// was nothing to store.
func (t *Taker) storeSpool(ctx context.Context, p pendingSpool) (*backup.Manifest, error) {
	sp, err := claim(p.path)
	if errors.Is(err, errSpoolInUse) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := t.storeClaimed(ctx, sp)
	var damaged *damagedSpoolError
	switch {
	case errors.As(err, &damaged):
		t.Log.Error("dropped a pending snapshot", "path", p.path, "started", p.record.Manifest.StartedAt, "revision", int64(p.record.Manifest.Revision), "err", err)
	case err != nil:
		return nil, t.keep(sp, err)
	default:
		t.Log.Info("stored a pending snapshot", "snapshot", m.ID, "revision", int64(m.Revision), "bytes", m.Stored.Bytes)
	}
	if rerr := sp.remove(); rerr != nil {
		t.Log.Error("spool is left behind", "path", sp.path, "err", rerr)
	}
	return m, nil
}

func (t *Taker) storeClaimed(ctx context.Context, sp *spool) (*backup.Manifest, error) {
	m := *sp.record.Manifest
	sum, err := sp.verify(ctx, m.Plain)
	if err != nil {
		return nil, err
	}
	n, err := findNeighbours(ctx, t.Store, &m)
	if err != nil {
		return nil, err
	}
	if n.same != nil { // the process that stored it had no time to say so
		return n.same, nil
	}
	m.Timeline = history.Timeline(&m, n.before, n.after)
	stored, err := t.store(ctx, sp.reader(), m.StartedAt)
	if err != nil {
		return nil, fmt.Errorf("store pending snapshot: %w", err)
	}
	if err := t.finish(ctx, &m, stored, sum); err != nil {
		return nil, err
	}
	return &m, nil
}

// verify reads a whole spool and compares it with what was received: a power cut
// may have torn it. It returns the checksum of it.
func (s *spool) verify(ctx context.Context, want backup.Blob) (backup.Checksum, error) {
	var sum backup.Checksum
	h := sha256.New()
	r := storage.ReaderContext(ctx, io.NewSectionReader(s.f, 0, s.n))
	_, err := io.CopyBuffer(io.MultiWriter(h, &sum), r, make([]byte, 256<<10))
	if ctx.Err() != nil {
		return sum, fmt.Errorf("read pending spool: %w", context.Cause(ctx))
	}
	if err != nil {
		return sum, &damagedSpoolError{fmt.Errorf("read it: %w", err)}
	}
	if got := (backup.Blob{Bytes: sum.Bytes, SHA256: backup.Digest(h.Sum(nil))}); got != want {
		return sum, &damagedSpoolError{backup.Corruptf("it has %d bytes with sha256 %s, %d with %s were received", got.Bytes, got.SHA256, want.Bytes, want.SHA256)}
	}
	return sum, nil
}

// neighbours are the snapshots around one that is about to be stored late.
type neighbours struct {
	same          *backup.Manifest // this very snapshot
	before, after *backup.Manifest
}

func findNeighbours(ctx context.Context, s storage.Store, m *backup.Manifest) (neighbours, error) {
	var n neighbours
	all, err := Entries(ctx, s, m.Cluster) // the newest first
	if err != nil {
		return n, err
	}
	second := m.StartedAt.Truncate(time.Second)
	i := slices.IndexFunc(all, func(e Entry) bool { return !e.ID.Time().After(second) })
	if i < 0 {
		i = len(all)
	}
	later, others := all[:i:i], all[i:]
	for j, e := range others {
		if !e.ID.Time().Equal(second) {
			break
		}
		found, err := firstReadable(ctx, s, others[j:j+1])
		if err != nil {
			return n, err
		}
		if found != nil && found.StartedAt.Equal(m.StartedAt) && found.Plain == m.Plain {
			n.same = found
			return n, nil
		}
	}
	if n.before, err = firstReadable(ctx, s, others); err != nil {
		return n, err
	}
	slices.Reverse(later)
	n.after, err = firstReadable(ctx, s, later)
	return n, err
}
