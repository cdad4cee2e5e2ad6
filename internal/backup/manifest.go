package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// ManifestFormat is the format a manifest of this version declares. Readers
// ignore unknown fields of a known format and refuse an unknown format.
const ManifestFormat = "backupd/snapshot/v1"

// MaxManifestBytes bounds what a reader accepts as a manifest.
const MaxManifestBytes = 1 << 20

// Manifest is the object that makes a snapshot exist. It is written after the
// data object and deleted before it.
type Manifest struct {
	Format string     `json:"format"`
	ID     SnapshotID `json:"id"`
	// Repository is the id of the repository that the snapshot was stored in.
	Repository string `json:"repositoryID"`
	// Timeline names one unforked history: see the package history.
	Timeline string `json:"timeline"`
	// Origin tells why the timeline began; nil if it is the cluster's first.
	Origin *Origin `json:"origin,omitempty"`
	Capture
	FinishedAt time.Time `json:"finishedAt"`
	// Stored is the data object. Table is the seek table at the end of compressed bytes, before encryption.
	Stored   Blob     `json:"stored"`
	Table    *Blob    `json:"table,omitempty"`
	Encoding Encoding `json:"encoding"`
	// Companions is nil if no companion files were asked for. They are encoded as the data is.
	Companions *Companions `json:"companions,omitempty"`
}

// Origin tells why a timeline began. All snapshots of the timeline repeat it.
type Origin struct {
	Timeline string     `json:"timeline"` // the one that could not go on
	Snapshot SnapshotID `json:"snapshot"` // its furthest then
	Reason   string     `json:"reason"`
}

// Capture is all that is known of a snapshot before it is stored. Everything in
// it was read from the database file or asked of live members.
type Capture struct {
	Cluster string `json:"cluster"`
	// ClusterID is etcd's own id of the cluster. 0: it is not known, for the snapshot was imported
	// where none of the same history had it.
	ClusterID MemberID  `json:"clusterID"`
	StartedAt time.Time `json:"startedAt"`
	// Source is the member whose database this is. Its id is 0 if a proxy stood between:
	// then nobody knows.
	Source Member `json:"source"`
	// Endpoint is the address the snapshot was streamed from.
	Endpoint string   `json:"endpoint"`
	Members  []Member `json:"members"`

	EtcdVersion    string `json:"etcdVersion"`
	StorageVersion string `json:"storageVersion,omitempty"`

	// Revision is exact: the largest of the newest record, the last finished
	// and the last scheduled compaction in the file.
	Revision        Revision `json:"revision"`
	CompactRevision Revision `json:"compactRevision"`
	// HighWaterRevision is the newest revision any member was seen to serve, or that a
	// quorum confirmed, before the stream began.
	HighWaterRevision Revision `json:"highWaterRevision"`
	// HighWaterIndex and HighWaterTerm are the newest raft applied index and term
	// that any member reported before the stream began.
	HighWaterIndex uint64 `json:"highWaterIndex"`
	HighWaterTerm  uint64 `json:"highWaterTerm"`
	// CommittedIndex is the commit index that a quorum confirmed before the stream began; 0
	// if no member could tell.
	CommittedIndex uint64 `json:"committedIndex,omitempty"`
	// SourceIndex and SourceTerm are what the source reported before the stream
	// began: the database holds at least everything up to there.
	SourceIndex uint64 `json:"sourceIndex"`
	SourceTerm  uint64 `json:"sourceTerm"`
	// NewestTimeline is the newest timeline that the repository was seen to hold when
	// the snapshot was taken; empty if it held none, or could not be read.
	NewestTimeline string `json:"newestTimeline,omitempty"`
	HashKV         HashKV `json:"hashKV"`
	// LiveHash is a hash like HashKV, but only over the newest record of each key that exists at Revision.
	// A restore with a bumped revision is compared by it. Nil: it is not known.
	LiveHash *uint32 `json:"liveHash,omitempty"`
	// Sketch is a small part of the live keys.
	Sketch Sketch `json:"sketch"`
	// MemberHashes is what each voting member answered that was asked, or why one was
	// not asked that should have been; empty when the comparison was switched off.
	MemberHashes []MemberHash `json:"memberHashes"`
	// Suspect lists why the content is not trusted.
	Suspect []string `json:"suspect,omitempty"`
	// Unconfirmed lists why the content could not be compared with a voting member,
	// or why the member may be behind.
	Unconfirmed []string `json:"unconfirmed,omitempty"`

	// Kubernetes is nil if no API server keeps anything there.
	Kubernetes *Kubernetes `json:"kubernetes,omitempty"`

	Keys        int64   `json:"keys"`
	Leases      int64   `json:"leases"`
	Alarms      []Alarm `json:"alarms,omitempty"`
	AuthEnabled bool    `json:"authEnabled"`
	// AuthRevision counts the changes of users, roles and their rights; 0 if it is not known.
	AuthRevision uint64 `json:"authRevision,omitempty"`
	// QuotaBytes is the quota of the source's database; 0 if it does not tell, as before etcd 3.6.
	QuotaBytes int64 `json:"quotaBytes,omitempty"`
	// V2Keys says that the member also served keys of etcd's v2 API, which no snapshot
	// holds.
	V2Keys bool `json:"v2Keys,omitempty"`
	// Cautions say what the database holds that is no damage, and that people should know
	// before a restore.
	Cautions  []string `json:"cautions,omitempty"`
	RaftTerm  uint64   `json:"raftTerm"`
	RaftIndex uint64   `json:"raftIndex"`

	// Plain is etcd's file as it came over the wire, trailer included.
	Plain Blob `json:"plain"`
	// Tool is the version of backupd that took the snapshot.
	Tool string `json:"tool"`
	// Imported is nil if backupd took the snapshot.
	Imported *Imported `json:"imported,omitempty"`
}

// Imported tells from which file a snapshot was made that another program has taken.
type Imported struct {
	File string `json:"file"` // its name, without the folder
	// TimeFrom says by what the time is known at which it was taken.
	TimeFrom TimeFrom `json:"timeFrom"`
}

// TimeFrom says where the time of an imported snapshot is from.
type TimeFrom string

// String names it for people.
func (t TimeFrom) String() string {
	switch t {
	case TimeFromName:
		return "the name of the file"
	case TimeFromFlag:
		return "--taken-at"
	case TimeFromFile:
		return "the time of modification of the file"
	}
	return string(t)
}

// Where the time of an imported snapshot is from.
const (
	TimeFromName TimeFrom = "name" // of the file
	TimeFromFile TimeFrom = "file" // its time of modification
	TimeFromFlag TimeFrom = "flag" // an operator said it
)

// Position returns how far the cluster had come when the snapshot was taken.
func (c *Capture) Position() Position {
	return Position{c.ClusterID, c.HighWaterRevision, c.HighWaterIndex, c.HighWaterTerm}
}

// State returns the state that the snapshot had when it was taken.
func (c *Capture) State() State {
	switch {
	case len(c.Suspect) > 0:
		return Suspect
	case len(c.Unconfirmed) > 0:
		return Unconfirmed
	}
	return Verified
}

// Current reports whether the database held everything that the cluster had committed when
// it was taken, by the word of a quorum. A member that is cut off answers for itself only.
func (c *Capture) Current() bool { return c.CommittedIndex > 0 && c.Revision >= c.HighWaterRevision }

// Uncompared reports whether nothing keeps the snapshot from being verified but that no
// member was asked for a comparison.
func (c *Capture) Uncompared() bool {
	return c.State() == Unconfirmed && len(c.Unconfirmed) == 1 && len(c.MemberHashes) == 0 && c.Current()
}

// Verified reports whether the content was compared and nothing speaks against it.
func (c *Capture) Verified() bool { return c.State() == Verified }

// ParseSuffix returns the encoding that the suffix of a data object names. A
// suffix does not name the recipients.
func ParseSuffix(suffix string) Encoding {
	var e Encoding
	if strings.Contains(suffix, ".zst") {
		e.Compression = "zstd"
	}
	if strings.Contains(suffix, ".age") {
		e.Encryption = "age"
	}
	return e
}

// Encoding says how Plain became Stored: compressed first, then encrypted.
type Encoding struct {
	Compression string `json:"compression,omitempty"` // "zstd" or empty
	Encryption  string `json:"encryption,omitempty"`  // "age" or empty
	// Recipients are the public age recipients the data was encrypted to.
	Recipients []string `json:"recipients,omitempty"`
}

// Suffix returns the object-name suffix of the encoding: ".zst", ".zst.age",
// ".age" or nothing.
func (e Encoding) Suffix() string {
	s := ""
	if e.Compression != "" {
		s += ".zst"
	}
	if e.Encryption != "" {
		s += ".age"
	}
	return s
}

// String names the encoding for people: "zstd", "zstd+age", "age" or "none".
func (e Encoding) String() string {
	switch {
	case e.Compression != "" && e.Encryption != "":
		return e.Compression + "+" + e.Encryption
	case e.Compression+e.Encryption != "":
		return e.Compression + e.Encryption
	}
	return "none"
}

// ObjectKey is the parsed name of the manifest.
func (m *Manifest) ObjectKey() Key {
	return Key{
		Cluster: m.Cluster, Kind: KindManifest, ID: m.ID, Timeline: m.Timeline, Index: m.RaftIndex, State: m.State(),
	}
}

// Key names the manifest below the repository's root.
func (m *Manifest) Key() string { return m.ObjectKey().String() }

// DataKey names the data object below the repository's root.
func (m *Manifest) DataKey() string {
	return Key{Cluster: m.Cluster, Kind: KindData, Data: m.ID.DataName(), Suffix: m.Encoding.Suffix()}.String()
}

// Marshal validates m and returns it as indented JSON with its seal.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	raw, err := Seal(m, MaxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return raw, nil
}

// ParseManifest decodes and validates a manifest. Its errors wrap [ErrCorrupt],
// except for an [*UnknownFormatError].
func ParseManifest(raw []byte) (*Manifest, error) {
	if err := Unseal(raw, ManifestFormat, MaxManifestBytes); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, Corruptf("decode manifest: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, Corruptf("manifest: %w", err)
	}
	return &m, nil
}

// Validate checks that m is complete and does not contradict itself.
func (m *Manifest) Validate() error {
	if m.Format != ManifestFormat {
		return fmt.Errorf("format %q: want %q", m.Format, ManifestFormat)
	}
	if _, err := ParseSnapshotID(string(m.ID)); err != nil {
		return err
	}
	// The revision is in the name too, so that a listing can show it without
	// reading the manifest. The two must never disagree.
	if m.ID.Revision() != m.Revision {
		return fmt.Errorf("id %s tells revision %d, the manifest says %d", m.ID, m.ID.Revision(), m.Revision)
	}
	if len(m.Repository) < MinRepositoryID {
		return fmt.Errorf("repository %q: want the id of one", m.Repository)
	}
	if err := cmp.Or(CheckTimeline(m.Timeline), m.Origin.validate()); err != nil {
		return err
	}
	if m.FinishedAt.IsZero() {
		return errors.New("no start or finish time")
	}
	if m.Stored.Bytes < 1 || m.Stored.SHA256.IsZero() {
		return errors.New("size or sha256 of the plain or stored bytes is missing")
	}
	if c := m.Encoding.Compression; c != "" && c != "zstd" {
		return fmt.Errorf("compression %q is not known", c)
	}
	if c := m.Encoding.Encryption; c != "" && c != "age" {
		return fmt.Errorf("encryption %q is not known", c)
	}
	if (m.Table != nil) != (m.Encoding.Compression != "") {
		return errors.New("compressed bytes have a seek table, and no others have")
	}
	if err := m.Companions.Validate(); err != nil {
		return err
	}
	return m.Capture.Validate()
}

// Validate checks that c is complete and does not contradict itself.
func (c *Capture) Validate() error {
	if err := CheckClusterName(c.Cluster); err != nil {
		return err
	}
	if c.Revision < 1 {
		return fmt.Errorf("revision %d: want at least 1", c.Revision)
	}
	if c.CompactRevision > c.Revision {
		return fmt.Errorf("compact revision %d is after revision %d", c.CompactRevision, c.Revision)
	}
	if c.NewestTimeline != "" {
		if err := CheckTimeline(c.NewestTimeline); err != nil {
			return err
		}
	}
	if c.StartedAt.IsZero() {
		return errors.New("no start or finish time")
	}
	if c.Plain.Bytes < 1 || c.Plain.SHA256.IsZero() {
		return errors.New("size or sha256 of the plain or stored bytes is missing")
	}
	return c.validateMembers()
}

func (o *Origin) validate() error {
	if o == nil {
		return nil
	}
	if err := CheckTimeline(o.Timeline); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	if _, err := ParseSnapshotID(string(o.Snapshot)); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	return nil
}

func (c *Capture) validateMembers() error {
	if len(c.Members) == 0 {
		return errors.New("no members")
	}
	seen := make(map[MemberID]bool, len(c.Members))
	for _, mem := range c.Members {
		if seen[mem.ID] {
			return fmt.Errorf("member %s is listed twice", mem.ID)
		}
		seen[mem.ID] = true
		for _, u := range mem.PeerURLs {
			if _, err := url.Parse(u); err != nil {
				return fmt.Errorf("member %s: peer URL %q: %w", mem.ID, u, err)
			}
		}
	}
	return nil
}
