package backup

import (
	"fmt"
	"regexp"
	"strings"
)

// MarkerKey is the object that marks a prefix of a store as a repository.
const MarkerKey = "backupd.json"

// Kinds of objects below a cluster's name; see [Key].
const (
	KindManifest = "manifest"
	KindData     = "data"
)

// Key is the parsed name of an object of a repository:
//
//	<cluster>/snapshots/<id>.json             the manifest, the commit point
//	<cluster>/data/<data name>.db[.zst][.age] the snapshot's bytes
type Key struct {
	Cluster string
	Kind    string
	ID      SnapshotID // of a manifest
	Data    DataName   // of a data object
	// Suffix is a data object's encoding suffix: "", ".zst", ".age" or
	// ".zst.age".
	Suffix string
}

// String returns the object's name below the repository's root.
func (k Key) String() string {
	if k.Kind == KindManifest {
		return ManifestPrefix(k.Cluster) + string(k.ID) + ".json"
	}
	return DataPrefix(k.Cluster) + string(k.Data) + ".db" + k.Suffix
}

// ManifestPrefix is the prefix all manifests of a cluster share.
func ManifestPrefix(cluster string) string { return cluster + "/snapshots/" }

// DataPrefix is the prefix all data objects of a cluster share.
func DataPrefix(cluster string) string { return cluster + "/data/" }

// ManifestKey names the manifest of a snapshot.
func ManifestKey(cluster string, id SnapshotID) string {
	return Key{Cluster: cluster, Kind: KindManifest, ID: id}.String()
}

// ParseKey parses an object's name below the repository's root. It refuses
// everything that backupd would not have written, so that foreign objects are
// never taken for ours.
func ParseKey(s string) (Key, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Key{}, fmt.Errorf("parse key %q: not an object of a repository", s)
	}
	k := Key{Cluster: parts[0]}
	if err := CheckClusterName(k.Cluster); err != nil {
		return Key{}, fmt.Errorf("parse key %q: %w", s, err)
	}
	var err error
	switch parts[1] {
	case "snapshots":
		k.Kind = KindManifest
		stem, ok := strings.CutSuffix(parts[2], ".json")
		if !ok {
			return Key{}, fmt.Errorf("parse key %q: a manifest ends in .json", s)
		}
		k.ID, err = ParseSnapshotID(stem)
	case "data":
		k.Kind = KindData
		stem, suffix, ok := strings.Cut(parts[2], ".db")
		if !ok || suffix != "" && suffix != ".zst" && suffix != ".age" && suffix != ".zst.age" {
			return Key{}, fmt.Errorf("parse key %q: snapshot data ends in .db, .db.zst, .db.age or .db.zst.age", s)
		}
		k.Suffix = suffix
		k.Data, err = ParseDataName(stem)
	default:
		return Key{}, fmt.Errorf("parse key %q: unknown folder %q", s, parts[1])
	}
	if err != nil {
		return Key{}, fmt.Errorf("parse key %q: %w", s, err)
	}
	return k, nil
}

var clusterNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckClusterName reports why name cannot name a cluster, or nil. A name is
// one segment of every object's key: 1 to 63 letters, digits, dots, dashes and
// underscores, beginning with a letter or digit.
func CheckClusterName(name string) error {
	if !clusterNamePattern.MatchString(name) {
		return fmt.Errorf("cluster name %q: want 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit", name)
	}
	if name == MarkerKey {
		return fmt.Errorf("cluster name %q is the name of the repository's marker", name)
	}
	return nil
}
