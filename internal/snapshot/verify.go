package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// DefectKind names what is wrong with a stored snapshot.
type DefectKind string

// Kinds of defects.
const (
	DataMissing     DefectKind = "manifest without data"
	ManifestMissing DefectKind = "data without manifest"
	ManifestDamaged DefectKind = "manifest damaged"
	Truncated       DefectKind = "wrong length"
	Changed         DefectKind = "bytes changed"
	Swapped         DefectKind = "swapped with another snapshot"
	Content         DefectKind = "content differs from the manifest"
	Suspect         DefectKind = "suspect since it was taken"
)

// DefectError names one defect. It wraps [backup.ErrCorrupt] by its Err.
type DefectError struct {
	Kind DefectKind
	Key  string
	Err  error
}

func (e *DefectError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Key, e.Kind, e.Err) }
func (e *DefectError) Unwrap() error { return e.Err }

// Depth says how much of a snapshot is verified.
type Depth int

// Depths of verification.
const (
	// Full decodes the stored bytes and recomputes everything the manifest
	// tells of the database.
	Full Depth = iota
	// StoredOnly compares the stored bytes only: what can be done where no
	// identity is.
	StoredOnly
)

// Verifier proves that stored snapshots are what their manifests say.
type Verifier struct {
	Store      storage.Store
	Identities codec.Identities
	Depth      Depth
	Spool      string // as of [Taker]
	Progress   backup.Progress
}

func (v *Verifier) setDefaults() {
	if v.Spool == "" {
		v.Spool = os.TempDir()
	}
	if v.Progress == nil {
		v.Progress = func(backup.Stage, int64, int64) {}
	}
}

// Verify reads one snapshot back and returns its manifest, and a
// [*DefectError] for the first defect found. Other errors mean that the
// snapshot could not be read, and say nothing about it.
func (v *Verifier) Verify(ctx context.Context, e Entry) (*backup.Manifest, error) {
	v.setDefaults()
	m, err := readManifest(ctx, v.Store, e)
	if err != nil {
		return nil, v.manifestDefect(ctx, e, err)
	}
	if v.Depth == StoredOnly {
		err = v.diagnose(ctx, m, readBack(ctx, v.Store, m.DataKey(), m.Stored, v.Progress))
	} else {
		err = v.full(ctx, m)
	}
	if err == nil && !m.Verified() {
		err = &DefectError{Suspect, m.Key(), backup.Corruptf("%s", m.Suspect[0])}
	}
	return m, err
}

func (v *Verifier) manifestDefect(ctx context.Context, e Entry, err error) error {
	if known := (*DefectError)(nil); errors.As(err, &known) {
		return known
	}
	if errors.Is(err, backup.ErrCorrupt) {
		return &DefectError{ManifestDamaged, e.Key(), err}
	}
	if data, lerr := dataOf(ctx, v.Store, e.Cluster, e.ID.DataName()); errors.Is(err, fs.ErrNotExist) && lerr == nil && len(data) > 0 {
		return &DefectError{ManifestMissing, data[0].Key, backup.Corruptf("no manifest %s", e.Key())}
	}
	return err
}

func (v *Verifier) full(ctx context.Context, m *backup.Manifest) error {
	sp, err := newSpool(v.Spool, m.Plain.Bytes)
	if err != nil {
		return err
	}
	return errors.Join(v.fullBy(ctx, m, sp), sp.remove())
}

func (v *Verifier) fullBy(ctx context.Context, m *backup.Manifest, sp *spool) error {
	r, err := OpenData(ctx, v.Store, m, v.Identities, func(done, total int64) { v.Progress(backup.StageVerify, done, total) })
	if errors.Is(err, codec.ErrNoIdentity) {
		// A damaged header looks like a wrong key. The stored bytes tell.
		if derr := v.diagnose(ctx, m, readBack(ctx, v.Store, m.DataKey(), m.Stored, v.Progress)); derr != nil {
			return derr
		}
		return err
	}
	if err != nil {
		return v.diagnose(ctx, m, err)
	}
	_, err = io.CopyBuffer(sp, struct{ io.Reader }{r}, make([]byte, 256<<10))
	if err = errors.Join(err, r.Close()); err != nil {
		return v.diagnose(ctx, m, err)
	}
	v.Progress(backup.StageInspect, 0, m.Plain.Bytes)
	facts, err := etcddb.Inspect(ctx, sp.path)
	if errors.Is(err, backup.ErrCorrupt) {
		return &DefectError{Content, m.DataKey(), err}
	}
	if err != nil {
		return err
	}
	v.Progress(backup.StageInspect, m.Plain.Bytes, m.Plain.Bytes)
	if err := CompareFacts(m, facts); err != nil {
		return &DefectError{Content, m.DataKey(), err}
	}
	return nil
}

// CompareFacts reports how a database differs from what its manifest records,
// or nil.
func CompareFacts(m *backup.Manifest, f *etcddb.Facts) error {
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"revision", int64(f.Revision), int64(m.Revision)},
		{"compact revision", int64(f.CompactRevision), int64(m.CompactRevision)},
		{"HashKV", int64(f.HashKV.Hash), int64(m.HashKV.Hash)},
		{"number of keys", f.TotalKeys, m.Keys},
		{"number of leases", f.Leases, m.Leases},
	} {
		if c.got != c.want {
			return backup.Corruptf("%s is %d, the manifest says %d", c.what, c.got, c.want)
		}
	}
	return nil
}

// diagnose names the defect behind a failed read. It reads the whole object to
// tell changed bytes from those of another snapshot.
func (v *Verifier) diagnose(ctx context.Context, m *backup.Manifest, err error) error {
	var known *DefectError
	if err == nil || errors.As(err, &known) && known.Kind != Truncated || !errors.Is(err, backup.ErrCorrupt) {
		return err
	}
	obj, serr := v.Store.Stat(ctx, m.DataKey())
	if serr != nil {
		return errors.Join(err, serr)
	}
	sum, serr := sumObject(ctx, v.Store, obj)
	if serr != nil {
		return errors.Join(err, serr)
	}
	if other, ok := v.ownerOf(ctx, m, sum); ok {
		return &DefectError{Swapped, m.DataKey(), backup.Corruptf("these are the bytes of %s", other)}
	}
	if known != nil {
		return err
	}
	return &DefectError{Changed, m.DataKey(), err}
}

// ownerOf looks for another snapshot of the repository whose bytes these are.
func (v *Verifier) ownerOf(ctx context.Context, m *backup.Manifest, sum backup.Blob) (key string, ok bool) {
	entries, err := Entries(ctx, v.Store, "")
	if err != nil {
		return "", false // one defect is known, and is named without this
	}
	for l := range List(ctx, v.Store, entries) {
		if l.Err == nil && l.Manifest.Stored == sum && l.Manifest.Key() != m.Key() {
			return l.Manifest.DataKey(), true
		}
	}
	return "", false
}

// litterAge is how old data without a manifest must be to be more than a backup
// that is just being taken.
const litterAge = 24 * time.Hour

// Orphan is a data object that no manifest names.
type Orphan struct {
	Key string
	// Age is how long ago its backup was begun, or it was stored: a backup may
	// wait long for a store that is down.
	Age time.Duration
}

// Fresh reports whether the object may belong to a backup in progress.
func (o Orphan) Fresh() bool { return o.Age < litterAge }

// Orphans lists the data objects of a cluster, or of all if cluster is empty,
// that have no manifest.
func Orphans(ctx context.Context, s storage.Store, cluster string, now time.Time) ([]Orphan, error) {
	var out []Orphan
	for i, err := range Catalog(ctx, s, cluster) {
		if err != nil {
			return nil, err
		}
		if i.Manifest {
			continue
		}
		for _, o := range i.Data {
			out = append(out, Orphan{o.Key, orphanAge(i, o, now)})
		}
	}
	return out, nil
}

func orphanAge(i Item, o storage.Object, now time.Time) time.Duration {
	return min(now.Sub(i.Name.Time()), now.Sub(o.ModTime))
}
