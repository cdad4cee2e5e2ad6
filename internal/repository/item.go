package repository

import (
	"cmp"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// LitterAge is the age from which data without a manifest is litter. Younger data
// may belong to a backup in progress.
const LitterAge = 24 * time.Hour

// Item is one snapshot as the names and sizes of its objects describe it, or the
// rest of a snapshot: data without a manifest, or marks without either.
type Item struct {
	Cluster string
	ID      backup.SnapshotID // empty for data that neither a manifest nor a mark names
	Name    backup.DataName
	// Exists reports whether there is a manifest: without it there is no snapshot.
	Exists   bool
	Timeline string       // the history that the snapshot is of
	Index    uint64       // the last raft entry in the database
	Taken    backup.State // when it was taken: verified, unconfirmed or suspect
	// Doubtful says that it is unconfirmed for another reason than that the comparison is
	// switched off. It is known of those only whose manifests were read.
	Doubtful bool
	// Denied is why its manifest cannot be read here, although others can: it may be as
	// good as any, but nothing here can count on it. It is known of the newest only.
	Denied error
	// Source is the member that it is of, and Content its HashKV. They are zero if its
	// manifest was not read; that is not needed of those that count.
	Source  backup.MemberID
	Content backup.HashKV
	// Data are the data objects: the database and, if there are any, the companion files.
	Data []storage.Object
	// Marks are the kinds of marks that are there, but for the dated ones.
	Marks []backup.MarkKind
	// Verifications are the names of the dated marks: each tells what a verification
	// read, and when. See [backup.MarkKind.Dated].
	Verifications []backup.Key
	// Claimed reports that another version of backupd may have written a manifest that
	// names the data. Then it is not known whether a snapshot exists.
	Claimed bool

	marked map[backup.MarkKind]time.Time // when the marks were made
	stored time.Time                     // when the manifest was stored
	clash  bool                          // another manifest names the same data, which backupd never makes
	defect error                         // found by reading the manifest or a mark
}

// itemOf makes an item from the name of a manifest or of a mark.
func itemOf(k backup.Key) Item {
	return Item{
		Cluster: k.Cluster, ID: k.ID, Name: k.DataName(), Exists: k.Kind == backup.KindManifest,
		Timeline: k.Timeline, Index: k.Index, Taken: k.State,
	}
}

// newItem makes the item of a snapshot that was stored a moment ago.
func newItem(m *backup.Manifest) Item {
	i := itemOf(m.ObjectKey())
	i.Doubtful = m.State() == backup.Unconfirmed && !m.Uncompared()
	i.Source, i.Content = m.Source.ID, m.HashKV
	i.Data, i.stored = []storage.Object{{Key: m.DataKey(), Size: m.Stored.Bytes}}, m.FinishedAt
	if key := m.FilesKey(); key != "" {
		i.Data = append(i.Data, storage.Object{Key: key, Size: m.Companions.Stored.Bytes})
	}
	return i
}

// Key is the parsed name of the manifest.
func (i *Item) Key() backup.Key {
	return backup.Key{
		Cluster: i.Cluster, Kind: backup.KindManifest, ID: i.ID, Timeline: i.Timeline, Index: i.Index, State: i.Taken,
	}
}

// Marked reports whether there is a mark of that kind.
func (i *Item) Marked(kind backup.MarkKind) bool { return slices.Contains(i.Marks, kind) }

// MarkedAt returns when the mark of that kind was made, as far as it was read, and
// when it was stored: the later of both, because clocks differ. It is zero if there is
// no such mark, or if it was read and is damaged.
func (i *Item) MarkedAt(kind backup.MarkKind) time.Time { return i.marked[kind] }

// MarkKeys are the names of all marks about the item.
func MarkKeys(i *Item) []backup.Key {
	out := slices.Clone(i.Verifications)
	for _, kind := range i.Marks {
		out = append(out, MarkKey(i, kind))
	}
	return out
}

// MarkKey is the name of a mark about the item, of a kind that is not dated.
func MarkKey(i *Item, kind backup.MarkKind) backup.Key {
	k := backup.Key{Cluster: i.Cluster, Kind: backup.KindMark, ID: i.ID, Mark: kind}
	if kind == backup.MarkLitter {
		k.ID, k.Data = "", i.Name
	}
	return k
}

// Pinned reports whether the snapshot must stay.
func (i *Item) Pinned() bool { return i.Marked(backup.MarkPin) }

// StoredBytes returns the size of the snapshot's data.
func (i *Item) StoredBytes() int64 {
	n := int64(0)
	for _, o := range i.Data {
		n += o.Size
	}
	return n
}

// Encoding names the encoding of the data; it is empty if the data is missing.
func (i *Item) Encoding() string {
	var out []string
	for _, o := range i.Data {
		if k, err := backup.ParseKey(o.Key); err == nil && !k.Files {
			out = append(out, backup.ParseSuffix(k.Suffix).String())
		}
	}
	return strings.Join(out, ",")
}

// Defect returns why the snapshot cannot be restored, as far as its names, sizes
// and marks, and the manifests that were read, tell: a [*backup.DefectError], or
// nil.
func (i *Item) Defect() error {
	switch key := i.Key().String(); {
	case i.clash:
		return &backup.DefectError{Kind: backup.ManifestDamaged, Key: key,
			Err: backup.Corruptf("another manifest names the same data")}
	case i.Encoding() == "":
		return &backup.DefectError{Kind: backup.DataMissing, Key: key,
			Err: backup.Corruptf("its data object is not there")}
	case i.defect != nil:
		return i.defect
	case i.Marked(backup.MarkDamaged):
		return &backup.DefectError{Kind: backup.Changed, Key: key,
			Err: backup.Corruptf("a verification found it damaged")}
	}
	return nil
}

// State judges the snapshot. No other code does.
func (i *Item) State() backup.State {
	if i.Defect() != nil {
		return backup.Damaged
	}
	return i.Taken
}

// Future reports whether the snapshot is from the future: see
// [backup.SnapshotID.Future].
func (i *Item) Future(now time.Time) bool { return i.ID.Future(now) }

// Litter returns data without a manifest that belongs to no backup in progress:
// the backup began long ago, and none of its objects was stored lately. That nothing
// names it is what one listing says, which may lag.
func (i *Item) Litter(now time.Time) []storage.Object {
	if i.Exists || i.Claimed {
		return nil
	}
	for _, o := range i.Data {
		// The age of the name is not enough: a backup may wait long for a store
		// that is down.
		if min(now.Sub(i.Name.Time()), now.Sub(o.ModTime)) < LitterAge {
			return nil
		}
	}
	return i.Data
}

// compareItems puts the items of one cluster in order, the oldest first.
func compareItems(a, b Item) int {
	return cmp.Or(backup.CompareIDs(a.ID, b.ID), strings.Compare(string(a.Name), string(b.Name)),
		strings.Compare(a.Key().String(), b.Key().String()))
}

// CompareProgress puts snapshots of one timeline in the order of their history,
// whatever the clocks said.
func CompareProgress(a, b Item) int {
	return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.ID.Revision(), b.ID.Revision()), compareItems(a, b))
}

// CompareHistory puts the snapshots of one cluster in the order of its histories.
func CompareHistory(a, b Item) int {
	return cmp.Or(backup.CompareTimelines(a.Timeline, b.Timeline), CompareProgress(a, b))
}

// NotFoundError is returned if no such snapshot or mark exists.
type NotFoundError struct{ Reason string }

func (e *NotFoundError) Error() string { return e.Reason }

// Is makes it match [fs.ErrNotExist].
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// damagedBy reports whether reading failed because the stored object is bad.
// Otherwise the store could not be read.
func damagedBy(err error) bool {
	return errors.Is(err, backup.ErrCorrupt) || errors.As(err, new(*backup.UnknownFormatError))
}

func noSuch(id backup.SnapshotID) error { return &NotFoundError{"no such snapshot: " + string(id)} }

// Clash reports whether another manifest names the same data, which backupd never
// makes: somebody copied or renamed objects.
func (i *Item) Clash() bool { return i.clash }
