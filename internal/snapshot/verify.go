package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// Depth says which part of a snapshot is verified.
type Depth int

// Depths of verification.
const (
	// Full decodes the stored bytes and recomputes everything that the manifest
	// records of the database.
	Full Depth = iota
	// StoredOnly compares the stored bytes only. It needs no identity.
	StoredOnly
)

// Verifier checks that stored snapshots of one cluster agree with their manifests.
type Verifier struct {
	Cluster    *repository.Cluster
	Identities codec.Identities
	Depth      Depth
	Spool      spool.Folder // for the decoded copy
	Progress   backup.Progress
	Now        func() time.Time // dates marks; nil means time.Now
}

func (v *Verifier) progress() backup.Progress {
	if v.Progress == nil {
		return func(backup.Stage, int64, int64) {}
	}
	return v.Progress
}

// Verify reads one snapshot back and returns its manifest, and a
// [*backup.DefectError] for the first defect found. Any other error means that the
// snapshot could not be read, and says nothing about it. The caller passes the
// error to [Verifier.Record].
func (v *Verifier) Verify(ctx context.Context, i repository.Item) (*backup.Manifest, error) {
	m, err := v.Cluster.Manifest(ctx, i)
	if err != nil {
		return nil, v.manifestDefect(ctx, i, err)
	}
	if v.Depth == StoredOnly {
		err = v.diagnose(ctx, m, v.Cluster.Data().ReadBack(ctx, m.DataKey(), m.Stored, v.progress()))
	} else if err = v.full(ctx, m); differs(err) {
		// The bytes may have been changed on their way.
		if again := v.full(ctx, m); again == nil || differs(again) {
			err = again
		}
	}
	if err == nil {
		err = v.companions(ctx, m)
	}
	var defect *backup.DefectError
	if errors.As(err, &defect) && (defect.Kind == backup.DataMissing || defect.Kind == backup.CompanionsBad) {
		err = v.removedMeanwhile(ctx, i, err)
	}
	if err == nil && m.State() == backup.Suspect {
		err = &backup.DefectError{Kind: backup.Doubted, Key: m.Key(), Err: backup.Corruptf("%s", m.Suspect[0])}
	}
	return m, err
}

// differs reports whether a verification found other bytes or another content.
func differs(err error) bool {
	var defect *backup.DefectError
	return errors.As(err, &defect) && slices.Contains(
		[]backup.DefectKind{backup.Changed, backup.Content, backup.Swapped}, defect.Kind)
}

// Record writes the result of a verification into the repository: a defect as
// [repository.Marks.Record] does, with one exception: if only the stored bytes were verified,
// a mark that says that the content differs stays. If the snapshot is whole, it returns the
// name of the mark that says so now.
func (v *Verifier) Record(ctx context.Context, i repository.Item, result error, by string) (backup.Key, error) {
	marks := v.Cluster.Marks()
	if v.Depth == StoredOnly && repository.Whole(result) && i.Marked(backup.MarkDamaged) {
		m, err := marks.Find(ctx, i.ID, backup.MarkDamaged)
		if err != nil {
			return backup.Key{}, err
		}
		if m != nil && (m.Defect == backup.Content || m.Defect == "") { // no kind: the mark cannot be read
			return backup.Key{}, nil
		}
	}
	if err := marks.Record(ctx, i, result, by); err != nil || !repository.Whole(result) {
		return backup.Key{}, err
	}
	kind := backup.MarkVerified
	if v.Depth == StoredOnly {
		kind = backup.MarkReadBack
	}
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	k, err := marks.Verified(ctx, i, kind, now(), by)
	switch {
	case errors.As(err, new(*repository.NotFoundError)): // it was deleted meanwhile
		return backup.Key{}, nil
	case err != nil:
		return k, fmt.Errorf("mark snapshot %s as verified: %w", i.ID, err)
	}
	return k, nil
}

// removedMeanwhile returns a [*repository.NotFoundError] where the manifest, which
// goes first, is gone by now, too: the whole snapshot was removed.
func (v *Verifier) removedMeanwhile(ctx context.Context, i repository.Item, missing error) error {
	if _, err := v.Cluster.Manifest(ctx, i); errors.As(err, new(*repository.NotFoundError)) {
		return err
	}
	return missing
}

func (v *Verifier) manifestDefect(ctx context.Context, i repository.Item, err error) error {
	if known := (*backup.DefectError)(nil); errors.As(err, &known) {
		return known
	}
	if errors.Is(err, backup.ErrCorrupt) {
		return &backup.DefectError{Kind: backup.ManifestDamaged, Key: i.Key().String(), Err: err}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The data may have been deleted with the manifest since the listing.
	if now, lerr := v.Cluster.Item(ctx, i.ID); lerr == nil && !now.Exists && len(now.Data) > 0 {
		return &backup.DefectError{Kind: backup.ManifestMissing, Key: now.Data[0].Key,
			Err: backup.Corruptf("no manifest names it")}
	}
	return err
}

func (v *Verifier) full(ctx context.Context, m *backup.Manifest) error {
	// Pending snapshots give way to a new snapshot, but not to a verification.
	folder := v.Spool
	folder.Keep = false
	file, err := folder.New(m.Plain.Bytes)
	if err != nil {
		return err
	}
	guarded, stop := file.Guard(ctx)
	err = v.fullBy(guarded, m, file)
	stop()
	if gone := file.GaveWay(); gone != nil {
		err = fmt.Errorf("verify snapshot %s: %w", m.ID, gone) // which is no defect of the snapshot
	}
	return errors.Join(err, file.Remove())
}

func (v *Verifier) fullBy(ctx context.Context, m *backup.Manifest, file *spool.File) error {
	progress := v.progress()
	progress(backup.StageVerify, 0, m.Stored.Bytes)
	r, err := Open(ctx, v.Cluster, m, v.Identities,
		func(done, total int64) { progress(backup.StageVerify, done, total) })
	if errors.Is(err, codec.ErrNoIdentity) {
		// A damaged header looks like a wrong key. The stored bytes show which it
		// is.
		if derr := v.diagnose(ctx, m, v.Cluster.Data().ReadBack(ctx, m.DataKey(), m.Stored, progress)); derr != nil {
			return derr
		}
		return err
	}
	if err != nil {
		return v.diagnose(ctx, m, err)
	}
	_, err = r.WriteTo(file)
	if err = errors.Join(err, r.Close()); err != nil {
		return v.diagnose(ctx, m, err)
	}
	progress(backup.StageInspect, 0, m.Plain.Bytes)
	facts, err := etcddb.Inspect(ctx, file.Path())
	if errors.Is(err, backup.ErrCorrupt) {
		return &backup.DefectError{Kind: backup.Content, Key: m.DataKey(), Err: err}
	}
	if err != nil {
		return err
	}
	progress(backup.StageInspect, m.Plain.Bytes, m.Plain.Bytes)
	if err := CompareFacts(m, facts); err != nil {
		return &backup.DefectError{Kind: backup.Content, Key: m.DataKey(), Err: err}
	}
	return nil
}

// CompareFacts returns how a database differs from its manifest, or nil.
func CompareFacts(m *backup.Manifest, f *etcddb.Facts) error {
	for _, c := range []struct {
		what      string
		got, want int64
	}{
		{"revision", int64(f.Revision), int64(m.Revision)},
		{"compact revision", int64(f.CompactRevision), int64(m.CompactRevision)},
		{"HashKV", int64(f.HashKV.Hash), int64(m.HashKV.Hash)},
		{"number of keys", f.Keys(), m.Keys},
		{"number of leases", f.Leases, m.Leases},
	} {
		if c.got != c.want {
			return backup.Corruptf("%s is %d, the manifest says %d", c.what, c.got, c.want)
		}
	}
	if m.AuthRevision != 0 && m.AuthRevision != f.AuthRevision {
		return backup.Corruptf("auth revision is %d, the manifest says %d", f.AuthRevision, m.AuthRevision)
	}
	if m.LiveHash != nil && *m.LiveHash != f.LiveHash {
		return backup.Corruptf("hash of the live keys is %d, the manifest says %d", f.LiveHash, *m.LiveHash)
	}
	if !reflect.DeepEqual(f.Kubernetes, m.Kubernetes) {
		return backup.Corruptf("what Kubernetes keeps there is not as the manifest says")
	}
	if !reflect.DeepEqual(f.Sketch, m.Sketch) {
		return backup.Corruptf("the live keys are not those of the manifest's sketch")
	}
	return nil
}

// diagnose names the defect behind a failed read. It reads the whole object, to
// tell changed bytes from the bytes of another snapshot.
func (v *Verifier) diagnose(ctx context.Context, m *backup.Manifest, err error) error {
	var known *backup.DefectError
	if err == nil || errors.As(err, &known) && known.Kind != backup.Truncated || !errors.Is(err, backup.ErrCorrupt) {
		return err
	}
	if known == nil {
		err = &backup.DefectError{Kind: backup.Changed, Key: m.DataKey(), Err: err}
	}
	sum, serr := v.Cluster.Data().Sum(ctx, m.DataKey())
	if serr != nil {
		return errors.Join(err, serr) // it is damaged all the same
	}
	if sum == m.Stored { // the bytes are as they were stored, and hold something else
		return &backup.DefectError{Kind: backup.Content, Key: m.DataKey(), Err: err}
	}
	if owner := v.owner(ctx, m, sum); owner != "" {
		return &backup.DefectError{Kind: backup.Swapped, Key: m.DataKey(),
			Err: backup.Corruptf("these are the bytes of %s", owner)}
	}
	return err
}

// owner looks in all clusters of the repository for another snapshot that has
// these stored bytes, and returns the key of its data. Errors are ignored: the
// defect is known without it.
func (v *Verifier) owner(ctx context.Context, m *backup.Manifest, stored backup.Blob) string {
	clusters, err := v.Cluster.Repository().Clusters(ctx)
	if err != nil {
		return ""
	}
	for _, name := range clusters {
		c := v.Cluster.Repository().Cluster(name)
		var items []repository.Item
		for i, err := range c.Items(ctx) {
			if err == nil && i.Exists {
				items = append(items, i)
			}
		}
		for r := range c.Manifests(ctx, items) {
			if r.Err == nil && r.Manifest.Stored == stored && r.Manifest.Key() != m.Key() {
				return r.Manifest.DataKey()
			}
		}
	}
	return ""
}
