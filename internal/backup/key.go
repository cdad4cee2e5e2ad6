package backup

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// MarkerKey is the object that marks a prefix of a store as a repository.
const MarkerKey = "backupd.json"

// Kinds of objects below a cluster's name; see [Key].
const (
	KindManifest = "manifest"
	KindData     = "data"
	KindMark     = "mark"
	// KindAcceptance is that of an acceptance.
	KindAcceptance = "acceptance"
	// KindStream is that of an announcement of a snapshot stream.
	KindStream = "stream"
	// KindPause is that of a pause of the cluster's schedules.
	KindPause = "pause"
)

// Key is the parsed name of an object of a repository:
//
//	<cluster>/snapshots/<id>.<timeline>.<raft index>[.<state>].json  the manifest, the commit point
//	<cluster>/data/<data name>.db[.zst][.age]           the snapshot's bytes
//	<cluster>/data/<data name>.files.tar[.zst][.age]    its companion files
//	<cluster>/marks/<id>.<kind>.json                    a [Mark] about the snapshot
//	<cluster>/marks/<id>.<kind>.<time>.json             a [Mark] of a verification: see [MarkKind.Dated]
//	<cluster>/marks/<data name>.litter.json             a [Mark] about data that no manifest names
//	<cluster>/timelines/<timeline>.json                 an acceptance of a timeline
//	<cluster>/streams/<data name>.<until>.json          a snapshot stream that may be open until then
//	<cluster>/timelines/cluster-<cluster id>.json       an acceptance of the cluster that a restore makes
//	<cluster>/pauses/<data name>.<until>.json           the cluster's schedules rest until then
type Key struct {
	Cluster  string
	Kind     string
	ID       SnapshotID // of a manifest, or of the snapshot that a mark is about
	Timeline string     // of a manifest: the history that the snapshot is of; of an acceptance
	// Index is the last raft entry in the database, of a manifest. It orders the
	// snapshots of one timeline.
	Index     uint64
	State     State     // of a manifest: [Verified], [Unconfirmed] or [Suspect]
	ClusterID MemberID  // of an acceptance that names no timeline
	Mark      MarkKind  // of a mark
	Stamp     string    // of a dated mark: when it was made, as ids have it
	Data      DataName  // of a data object, and of a mark of litter; of a stream and a pause: when it was begun
	Until     time.Time // of a stream: when it has surely ended; of a pause: its end; in whole seconds, UTC
	Files     bool      // of a data object: it holds the companion files, and not the database
	// Suffix is a data object's encoding suffix: "", ".zst", ".age" or
	// ".zst.age".
	Suffix string
}

var manifestPattern = regexp.MustCompile(`^([^.]+)\.([^.]+)\.(0|[1-9]\d{0,19})(?:\.(unconfirmed|suspect))?$`)

// String returns the object's name below the repository's root.
func (k Key) String() string {
	switch {
	case k.Kind == KindData && k.Files:
		return DataPrefix(k.Cluster) + string(k.Data) + filesSuffix + k.Suffix
	case k.Kind == KindData:
		return DataPrefix(k.Cluster) + string(k.Data) + ".db" + k.Suffix
	case k.Kind == KindMark && k.Mark == MarkLitter:
		return MarkPrefix(k.Cluster) + string(k.Data) + "." + string(k.Mark) + ".json"
	case k.Kind == KindMark && k.Mark.Dated():
		return MarkPrefix(k.Cluster) + string(k.ID) + "." + string(k.Mark) + "." + k.Stamp + ".json"
	case k.Kind == KindMark:
		return MarkPrefix(k.Cluster) + string(k.ID) + "." + string(k.Mark) + ".json"
	case k.Kind == KindStream:
		return StreamPrefix(k.Cluster) + string(k.Data) + "." + k.Until.UTC().Format(idTimeLayout) + ".json"
	case k.Kind == KindPause:
		return PausePrefix(k.Cluster) + string(k.Data) + "." + k.Until.UTC().Format(idTimeLayout) + ".json"
	case k.Kind == KindAcceptance && k.Timeline == "":
		return AcceptancePrefix(k.Cluster) + acceptedCluster + k.ClusterID.String() + ".json"
	case k.Kind == KindAcceptance:
		return AcceptancePrefix(k.Cluster) + k.Timeline + ".json"
	}
	name := fmt.Sprintf("%s%s.%s.%d", ManifestPrefix(k.Cluster), k.ID, k.Timeline, k.Index)
	if k.State != Verified && k.State != "" {
		name += "." + string(k.State)
	}
	return name + ".json"
}

// DataName returns the name of the data that the object is, names or is about.
func (k Key) DataName() DataName {
	if k.Data != "" {
		return k.Data
	}
	return k.ID.DataName()
}

// Time returns when a dated mark was made, to the second, or the zero time.
func (k Key) Time() time.Time {
	t, err := time.Parse(idTimeLayout, k.Stamp)
	if err != nil || TimeOf(t) != k.Stamp { // parsing also accepts parts of a second
		return time.Time{}
	}
	return t
}

// ManifestPrefix is the prefix all manifests of a cluster share.
func ManifestPrefix(cluster string) string { return cluster + "/snapshots/" }

// DataPrefix is the prefix all data objects of a cluster share.
func DataPrefix(cluster string) string { return cluster + "/data/" }

// MarkPrefix is the prefix all marks of a cluster share.
func MarkPrefix(cluster string) string { return cluster + "/marks/" }

// AcceptancePrefix is the prefix all acceptances of a cluster's timelines share.
func AcceptancePrefix(cluster string) string { return cluster + "/timelines/" }

// StreamPrefix is the prefix all announcements of a cluster's snapshot streams share.
func StreamPrefix(cluster string) string { return cluster + "/streams/" }

// PausePrefix is the prefix all pauses of a cluster share.
func PausePrefix(cluster string) string { return cluster + "/pauses/" }

// acceptedCluster begins the name of an acceptance that names no timeline.
const acceptedCluster = "cluster-"

// filesSuffix ends the name of an object with companion files, before its encoding.
const filesSuffix = ".files.tar"

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
	if err := k.parseName(parts[1], parts[2]); err != nil {
		return Key{}, fmt.Errorf("parse key %q: %w", s, err)
	}
	return k, nil
}

// parseName parses the folder and the name below it.
func (k *Key) parseName(folder, name string) error {
	switch folder {
	case "snapshots":
		return k.parseManifest(name)
	case "marks":
		return k.parseMark(name)
	case "data":
		return k.parseData(name)
	case "timelines":
		return k.parseAcceptance(name)
	case "streams":
		k.Kind = KindStream
		return k.parseUntil(name)
	case "pauses":
		k.Kind = KindPause
		return k.parseUntil(name)
	}
	return fmt.Errorf("unknown folder %q", folder)
}

func (k *Key) parseManifest(name string) (err error) {
	k.Kind = KindManifest
	stem, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return errors.New("a manifest ends in .json")
	}
	m := manifestPattern.FindStringSubmatch(stem)
	if m == nil {
		return errors.New("want the form <id>.<timeline>.<raft index>, and a state unless it is verified")
	}
	if k.ID, err = ParseSnapshotID(m[1]); err != nil {
		return err
	}
	k.Timeline, k.State = m[2], cmp.Or(State(m[4]), Verified)
	if err := CheckTimeline(k.Timeline); err != nil {
		return err
	}
	if k.Index, err = strconv.ParseUint(m[3], 10, 64); err != nil {
		return fmt.Errorf("raft index %s is out of range", m[3])
	}
	return nil
}

func (k *Key) parseMark(name string) (err error) {
	k.Kind = KindMark
	stem, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return errors.New("a mark ends in .json")
	}
	id, rest, _ := strings.Cut(stem, ".")
	kind, stamp, dated := strings.Cut(rest, ".")
	if k.Mark, k.Stamp = MarkKind(kind), stamp; !markKindPattern.MatchString(kind) {
		return fmt.Errorf("kind of mark %q: want letters and dashes", kind)
	}
	if dated != k.Mark.Dated() || dated && k.Time().IsZero() {
		return fmt.Errorf("mark %q: marks of verifications have a time, and no others", rest)
	}
	if k.Mark == MarkLitter {
		k.Data, err = ParseDataName(id)
		return err
	}
	k.ID, err = ParseSnapshotID(id)
	return err
}

func (k *Key) parseUntil(name string) (err error) {
	stem, ok := strings.CutSuffix(name, ".json")
	began, until, both := strings.Cut(stem, ".")
	if !ok || !both {
		return errors.New("want the form <data name>.<until>.json")
	}
	if k.Data, err = ParseDataName(began); err != nil {
		return err
	}
	k.Until, err = time.Parse(idTimeLayout, until)
	if err == nil && TimeOf(k.Until) != until { // parsing also accepts parts of a second
		err = fmt.Errorf("time %q: want whole seconds", until)
	}
	return err
}

func (k *Key) parseAcceptance(name string) error {
	k.Kind = KindAcceptance
	subject, ok := strings.CutSuffix(name, ".json")
	if !ok {
		return errors.New("an acceptance ends in .json")
	}
	id, ok := strings.CutPrefix(subject, acceptedCluster)
	if !ok {
		k.Timeline = subject
		return CheckTimeline(subject)
	}
	err := k.ClusterID.UnmarshalText([]byte(id))
	if err == nil && (k.ClusterID == 0 || k.ClusterID.String() != id) {
		err = fmt.Errorf("cluster id %q: want lower-case hexadecimal digits without leading zeros", id)
	}
	return err
}

func (k *Key) parseData(name string) (err error) {
	k.Kind = KindData
	stem, suffix, ok := strings.Cut(name, ".db")
	if !ok {
		stem, suffix, ok = strings.Cut(name, filesSuffix)
		k.Files = ok
	}
	if !ok || suffix != "" && suffix != ".zst" && suffix != ".age" && suffix != ".zst.age" {
		return errors.New("snapshot data ends in .db or .files.tar, and then in nothing, .zst, .age or .zst.age")
	}
	k.Suffix = suffix
	k.Data, err = ParseDataName(stem)
	return err
}

var clusterNamePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckClusterName reports why name cannot name a cluster, or nil. A name is
// one segment of every object's key: 1 to 63 letters, digits, dots, dashes and
// underscores, beginning with a letter or digit.
func CheckClusterName(name string) error {
	if !clusterNamePattern.MatchString(name) {
		return fmt.Errorf("cluster name %q: want 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
			name)
	}
	if name == MarkerKey {
		return fmt.Errorf("cluster name %q is the name of the repository's marker", name)
	}
	return nil
}
