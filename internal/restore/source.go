package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Source is a database to restore from: a stored snapshot or a plain file.
type Source struct {
	// Name says for people what it is.
	Name string
	// Bytes is its length, trailer included.
	Bytes int64
	// Revision is exact; 0 where the database was not inspected.
	Revision backup.Revision
	Alarms   []backup.Alarm
	// Members are those of the cluster the database came from.
	Members     []backup.Member
	AuthEnabled bool
	Leases      int64
	// Warnings are what the operator should know about it.
	Warnings []string

	// trailer is how many bytes at the end are not the database's.
	trailer int64
	open    func(ctx context.Context, progress func(done, total int64)) (io.ReadCloser, error)
}

// trailerBytes is the length of the SHA-256 that etcd appends to a snapshot.
const trailerBytes = 32

// FromSnapshot makes a source of a stored snapshot. Its bytes are verified
// against the manifest while they stream into place.
func FromSnapshot(s storage.Store, m *backup.Manifest, ids codec.Identities) *Source {
	src := &Source{
		Name: fmt.Sprintf("snapshot %s of cluster %s", m.ID, m.Cluster), Bytes: m.Plain.Bytes, Revision: m.Revision,
		Alarms: m.Alarms, Members: m.Members, AuthEnabled: m.AuthEnabled, Leases: m.Leases, trailer: trailerBytes,
	}
	for _, why := range m.Suspect {
		src.Warnings = append(src.Warnings, "suspect: "+why)
	}
	src.open = func(ctx context.Context, progress func(done, total int64)) (io.ReadCloser, error) {
		return snapshot.OpenData(ctx, s, m, ids, progress)
	}
	return src
}

// HashCheck says whether a file's SHA-256 trailer is required.
type HashCheck int

// Hash checks.
const (
	RequireHash HashCheck = iota
	// SkipHash is for files copied out of a data directory, which have none.
	SkipHash
)

// FromFile makes a source of a plain file after it was checked: its frame, its
// trailer, and in a child process every page and record of it. progress may be
// nil.
func FromFile(ctx context.Context, path string, check HashCheck, progress func(done, total int64)) (*Source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if check == RequireHash {
		err := etcddb.VerifyTrailer(ctx, path, func(n int64) { progress(n, size) })
		if errors.Is(err, etcddb.ErrNoTrailer) {
			err = backup.WithHint(fmt.Errorf("snapshot missing hash but --skip-hash-check=false: %w", err),
				"a snapshot ends in a SHA-256 of 32 bytes; a file copied from a data directory has none and needs --skip-hash-check")
		}
		if err != nil {
			return nil, err
		}
	}
	frame, err := etcddb.ReadFrame(path)
	if err != nil {
		return nil, err
	}
	src := &Source{Name: "file " + path, Bytes: frame.FileBytes}
	if frame.HasTrailer {
		src.trailer = trailerBytes
	}
	facts, err := etcddb.Inspect(ctx, path)
	if err != nil {
		return nil, err
	}
	src.Revision, src.Alarms, src.Members = facts.Revision, facts.Alarms, facts.Members
	src.AuthEnabled, src.Leases = facts.AuthEnabled, facts.Leases
	src.open = func(_ context.Context, progress func(done, total int64)) (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open snapshot: %w", err)
		}
		r := &fileReader{File: f, total: frame.FileBytes, report: progress}
		if check == RequireHash {
			r.sum = sha256.New()
		}
		return r, nil
	}
	return src, nil
}

// fileReader checks the trailer once more, on the bytes that are restored, and
// tells how much was read.
type fileReader struct {
	*os.File
	done, total int64
	sum         hash.Hash // of all but the trailer; nil when none is required
	trailer     []byte
	report      func(done, total int64)
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.File.Read(p)
	if r.sum != nil {
		plain := max(0, min(int64(n), r.total-trailerBytes-r.done))
		r.sum.Write(p[:plain])
		r.trailer = append(r.trailer, p[plain:n]...)
	}
	r.done += int64(n)
	r.report(r.done, r.total)
	if err == io.EOF && r.sum != nil {
		if got := r.sum.Sum(nil); !bytes.Equal(got, r.trailer) {
			return n, backup.Corruptf("expected sha256 %x, got %x in %s", r.trailer, got, r.Name())
		}
	}
	return n, err
}
