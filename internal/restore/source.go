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
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
	"github.com/etcd-backupd/backupd/internal/restore/fill"
)

// Source is a database to restore from, such as a stored snapshot or a plain file.
type Source interface {
	// About describes the database. A plan is made from that alone.
	About() Origin
	// Try opens the database and reads its first bytes: it fails if Place would fail at
	// once, for example because nothing decrypts it.
	Try(ctx context.Context) error
	// Place writes the plain database, without etcd's trailer, to f, which is
	// new and empty. It must verify the bytes on the way, and must return an
	// error unless f holds exactly the database that About describes. progress
	// receives how much of the source was read. Place need not sync f.
	Place(ctx context.Context, f *os.File, progress func(done, total int64)) error
}

// Origin describes the database of a [Source].
type Origin struct {
	// Name tells people where the database comes from.
	Name string `json:"name"`
	// Bytes is the length of the database, without a trailer.
	Bytes int64 `json:"bytes"`
	// SHA256 is that of etcd's snapshot file: of the database and the trailer that it
	// has there, whether or not the source has one. It identifies the database.
	SHA256 backup.Digest `json:"sha256"`
	// Revision is exact; 0 if the database was not inspected.
	Revision backup.Revision `json:"revision"`
	// HashKV is etcd's hash of the keys at Revision; nil if it is not known.
	HashKV *backup.HashKV `json:"hashKV,omitempty"`
	// LiveHash is that of [etcddb.Facts]; nil if it is not known.
	LiveHash *uint32 `json:"liveHash,omitempty"`
	// Taken is when the database was received; zero if nobody knows.
	Taken time.Time `json:"startedAt,omitzero"`
	// EtcdVersion is that of the server that the database came from; of a file, the minor
	// version of the oldest that starts on it. It is empty if nobody knows.
	EtcdVersion string `json:"etcdVersion,omitempty"`
	// ClusterID and QuotaBytes are of the cluster that the database came from, and of the
	// server; 0 if nobody knows.
	ClusterID  backup.MemberID `json:"clusterID,omitempty"`
	QuotaBytes int64           `json:"quotaBytes,omitempty"`
	// Members are those of the cluster that the database came from.
	Members     []backup.Member `json:"members"`
	Alarms      []backup.Alarm  `json:"alarms,omitempty"`
	AuthEnabled bool            `json:"authEnabled,omitempty"`
	// AuthRevision counts the changes of users, roles and their rights; 0 if nobody knows.
	AuthRevision uint64 `json:"authRevision,omitempty"`
	Leases       int64  `json:"leases,omitempty"`
	// Kubernetes is nil if no API server keeps anything there.
	Kubernetes *backup.Kubernetes `json:"kubernetes,omitempty"`
	// Warnings are facts that the operator should know about the database.
	Warnings []string `json:"warnings,omitempty"`
}

// TrailerBytes is the length of the SHA-256 that etcd appends to a snapshot.
const TrailerBytes = sha256.Size

// Fill writes the first size bytes of stream to f, which is new and empty, and reads the
// trailer bytes that must follow: see [fill.File]. Every [Source] can use it.
func Fill(ctx context.Context, f *os.File, stream io.Reader, size, trailer int64) error {
	return fill.File(ctx, f, stream, size, trailer)
}

// HashCheck says whether a file's SHA-256 trailer is required.
type HashCheck int

// Hash checks.
const (
	RequireHash HashCheck = iota
	// SkipHash requires none. Files that were copied out of a data directory have
	// none.
	SkipHash
)

// file is a source that reads a plain file.
type file struct {
	path    string
	origin  Origin
	trailer int64
	check   HashCheck
}

// FromFile checks a plain file and returns it as a source. It checks the frame,
// the trailer and, in a child process, every page and record. progress may be nil.
func FromFile(ctx context.Context, path string, check HashCheck, progress func(done, total int64)) (Source, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	s := &file{path: path, check: check}
	if check == RequireHash {
		if s.origin.SHA256, err = verifyTrailer(ctx, path, st.Size(), progress); err != nil {
			return nil, err
		}
	}
	frame, err := etcddb.ReadFrame(path)
	if err != nil {
		return nil, err
	}
	facts, err := etcddb.Inspect(ctx, path)
	if err != nil {
		return nil, err
	}
	s.origin = Origin{
		Name: "file " + path, Bytes: frame.FileBytes, SHA256: s.origin.SHA256, Revision: facts.Revision,
		EtcdVersion: facts.EtcdVersion(), HashKV: &facts.HashKV, LiveHash: &facts.LiveHash,
		Members: facts.Members, Alarms: facts.Alarms, AuthEnabled: facts.AuthEnabled, Leases: facts.Leases,
		AuthRevision: facts.AuthRevision, Kubernetes: facts.Kubernetes,
	}
	if why := etcddb.NewerWarning(facts.StorageVersion, facts.ClusterVersion); why != "" {
		s.origin.Warnings = append(s.origin.Warnings, why)
	}
	s.origin.Warnings = append(s.origin.Warnings, slices.Concat(facts.Doubts, facts.Cautions, facts.Kubernetes.Notes())...)
	if frame.HasTrailer {
		s.trailer = TrailerBytes
		s.origin.Bytes -= TrailerBytes
	}
	if check == SkipHash {
		s.origin.SHA256, err = sumOf(ctx, path, s.origin.Bytes)
	}
	return s, err
}

// sumOf returns the SHA-256 of the snapshot file that etcd would make of the first
// size bytes of the file at path.
func sumOf(ctx context.Context, path string, size int64) (backup.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return backup.Digest{}, err
	}
	defer f.Close() // only read from
	sum := sha256.New()
	if _, err := io.Copy(sum, fill.Cancellable(ctx, io.LimitReader(f, size))); err != nil {
		return backup.Digest{}, fmt.Errorf("read %s: %w", path, err)
	}
	return withTrailer(sum), nil
}

// withTrailer adds the trailer to the sum of a database.
func withTrailer(sum hash.Hash) backup.Digest {
	sum.Write(sum.Sum(nil)) // a hash does not fail
	return backup.Digest(sum.Sum(nil))
}

func verifyTrailer(
	ctx context.Context, path string, size int64, progress func(done, total int64),
) (backup.Digest, error) {
	sum, err := trailer.Sum(ctx, path, func(n int64) {
		if progress != nil {
			progress(n, size)
		}
	})
	if errors.Is(err, trailer.ErrNone) {
		return sum, backup.WithHint(fmt.Errorf("snapshot missing hash but --skip-hash-check=false: %w", err),
			"a snapshot ends in a SHA-256 of 32 bytes; "+
				"a file copied from a data directory has none and needs --skip-hash-check")
	}
	return sum, err
}

// About implements [Source].
func (s *file) About() Origin { return s.origin }

// Try implements [Source]. [FromFile] has read the whole file.
func (s *file) Try(context.Context) error {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	return f.Close()
}

// Place implements [Source].
func (s *file) Place(ctx context.Context, f *os.File, progress func(done, total int64)) error {
	in, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	defer in.Close() // only read from
	r := &fileReader{
		f: in, plain: s.origin.Bytes, total: s.origin.Bytes + s.trailer, report: progress,
		sum: sha256.New(), want: s.origin.SHA256, check: s.check,
	}
	return Fill(ctx, f, r, s.origin.Bytes, s.trailer)
}

// fileReader verifies the trailer again, now on the bytes that are restored, and
// that these are the bytes that the source described. It reports how much was read.
type fileReader struct {
	f                  *os.File
	done, plain, total int64
	sum                hash.Hash // of all but the trailer
	want               backup.Digest
	check              HashCheck
	trailer            []byte
	report             func(done, total int64)
}

func (r *fileReader) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	plain := max(0, min(int64(n), r.plain-r.done))
	r.sum.Write(p[:plain]) // a hash does not fail
	if r.check == RequireHash {
		r.trailer = append(r.trailer, p[plain:n]...)
	}
	r.done += int64(n)
	r.report(r.done, r.total)
	if err == io.EOF {
		if bad := r.verify(); bad != nil {
			return n, bad
		}
	}
	return n, err
}

func (r *fileReader) verify() error {
	if got := r.sum.Sum(nil); r.check == RequireHash && !bytes.Equal(got, r.trailer) {
		return backup.Corruptf("expected sha256 %x, got %x in %s", r.trailer, got, r.f.Name())
	}
	if got := withTrailer(r.sum); got != r.want {
		return backup.Corruptf("%s has changed since it was checked: its sha256 was %s, now it is %s",
			r.f.Name(), r.want, got)
	}
	return nil
}
