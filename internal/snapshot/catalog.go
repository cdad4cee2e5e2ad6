package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// manifestReaders is how many manifests are read at once.
const manifestReaders = 16

// Entry is a snapshot as its name tells it.
type Entry struct {
	Cluster string
	ID      backup.SnapshotID
	Suspect bool
}

func entryOf(k backup.Key) Entry { return Entry{Cluster: k.Cluster, ID: k.ID, Suspect: k.Suspect} }

// Key names the manifest.
func (e Entry) Key() string {
	return backup.Key{Cluster: e.Cluster, Kind: backup.KindManifest, ID: e.ID, Suspect: e.Suspect}.String()
}

// compareSuspect puts the suspect one of two entries last.
func compareSuspect(a, b Entry) int {
	if a.Suspect == b.Suspect {
		return 0
	}
	if b.Suspect {
		return -1
	}
	return 1
}

// NotFoundError is returned where no snapshot is what was asked for.
type NotFoundError struct{ What string }

func (e *NotFoundError) Error() string { return "no such snapshot: " + e.What }

// Is makes it match [fs.ErrNotExist].
func (e *NotFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// Entries returns the snapshots of one cluster, or of all if cluster is empty,
// the newest first. It reads names only; foreign objects are passed over.
func Entries(ctx context.Context, s storage.Store, cluster string) ([]Entry, error) {
	prefix := ""
	if cluster != "" {
		prefix = backup.ManifestPrefix(cluster)
	}
	var out []Entry
	for obj, err := range s.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		if k, err := backup.ParseKey(obj.Key); err == nil && k.Kind == backup.KindManifest {
			out = append(out, entryOf(k))
		}
	}
	slices.SortFunc(out, func(a, b Entry) int {
		return cmp.Or(strings.Compare(a.Cluster, b.Cluster), b.ID.Time().Compare(a.ID.Time()),
			cmp.Compare(b.ID.Revision(), a.ID.Revision()), strings.Compare(string(b.ID), string(a.ID)), compareSuspect(b, a))
	})
	return out, nil
}

// Listed is an entry with its manifest, or with why that cannot be read.
type Listed struct {
	Entry
	Manifest *backup.Manifest
	Err      error
}

// List yields the snapshots of entries with their manifests, in order, reading
// several at once.
func List(ctx context.Context, s storage.Store, entries []Entry) iter.Seq[Listed] {
	return func(yield func(Listed) bool) {
		for batch := range slices.Chunk(entries, 4*manifestReaders) {
			out := make([]Listed, len(batch))
			var g errgroup.Group
			g.SetLimit(manifestReaders)
			for i, e := range batch {
				g.Go(func() error {
					out[i].Entry = e
					out[i].Manifest, out[i].Err = readManifest(ctx, s, e)
					return nil
				})
			}
			_ = g.Wait() // each error is in its entry
			for _, l := range out {
				if !yield(l) {
					return
				}
			}
		}
	}
}

// Open reads the manifest of one snapshot. It returns a [*NotFoundError] when
// there is none.
func Open(ctx context.Context, s storage.Store, e Entry) (*backup.Manifest, error) {
	return readManifest(ctx, s, e)
}

func readManifest(ctx context.Context, s storage.Store, e Entry) (*backup.Manifest, error) {
	key := e.Key()
	r, err := s.Open(ctx, key, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{string(e.ID)}
	}
	if err != nil {
		return nil, fmt.Errorf("open manifest %s: %w", key, err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, backup.MaxManifestBytes+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", key, err)
	}
	m, err := backup.ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", key, err)
	}
	// A manifest under another's name would restore what nobody asked for.
	if m.Cluster != e.Cluster || m.ID != e.ID {
		return nil, &DefectError{Swapped, key, backup.Corruptf("this is the manifest %s", m.Key())}
	}
	// And listings, and what is decided by them, go by the name.
	if m.Verified() == e.Suspect {
		return nil, &DefectError{ManifestDamaged, key, backup.Corruptf("by what it says its name is %s", m.Key())}
	}
	return m, nil
}

// newest returns the manifest of the newest snapshot that can be read, or nil
// if there is none.
func newest(ctx context.Context, s storage.Store, cluster string) (*backup.Manifest, error) {
	entries, err := Entries(ctx, s, cluster)
	if err != nil {
		return nil, err
	}
	return firstReadable(ctx, s, entries)
}

// firstReadable returns the first manifest of entries that can be read, or nil
// if there is none.
func firstReadable(ctx context.Context, s storage.Store, entries []Entry) (*backup.Manifest, error) {
	for _, e := range entries {
		m, err := readManifest(ctx, s, e)
		if err == nil {
			return m, nil
		}
		var unknown *backup.UnknownFormatError
		if !errors.Is(err, backup.ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &unknown) {
			return nil, err
		}
	}
	return nil, nil
}

// Latest as a reference means the newest snapshot.
const Latest = "latest"

// Resolve finds the snapshot that ref names: an id, the beginning of one, or
// "latest". cluster may be empty while the repository holds only one cluster.
func Resolve(ctx context.Context, s storage.Store, cluster, ref string) (Entry, error) {
	entries, err := Entries(ctx, s, cluster)
	if err != nil {
		return Entry{}, err
	}
	if ref == "" {
		ref = Latest
	}
	var found []Entry
	clusters := map[string]bool{}
	for _, e := range entries {
		clusters[e.Cluster] = true
		// Should an id stand there both as verified and as suspect, which backupd
		// never makes, it is taken for suspect.
		if ref != Latest && strings.HasPrefix(string(e.ID), ref) && (len(found) == 0 || found[len(found)-1].ID != e.ID || found[len(found)-1].Cluster != e.Cluster) {
			found = append(found, e)
		}
	}
	if ref == Latest {
		if len(clusters) > 1 {
			return Entry{}, fmt.Errorf("the repository holds %d clusters: name one with --cluster (%s)", len(clusters), strings.Join(sortedKeys(clusters), ", "))
		}
		if len(entries) == 0 {
			return Entry{}, &NotFoundError{emptyBecause(cluster)}
		}
		return entries[0], nil
	}
	switch len(found) {
	case 0:
		return Entry{}, &NotFoundError{ref}
	case 1:
		return found[0], nil
	}
	return Entry{}, fmt.Errorf("%q is the beginning of %d snapshot ids: give more of it", ref, len(found))
}

func emptyBecause(cluster string) string {
	if cluster == "" {
		return "the repository holds none"
	}
	return "the repository holds none of cluster " + cluster
}

func sortedKeys(m map[string]bool) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
