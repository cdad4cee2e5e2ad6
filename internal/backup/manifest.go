package backup

import (
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

// Manifest is the record that makes a snapshot exist. It is written after the
// data object and deleted before it. Everything in it was read from the
// database file or asked of live members.
type Manifest struct {
	Format  string     `json:"format"`
	ID      SnapshotID `json:"id"`
	Cluster string     `json:"cluster"`
	// ClusterID is etcd's own id of the cluster.
	ClusterID MemberID `json:"clusterID"`
	// Timeline names one unforked history: a snapshot continues the timeline
	// of the one before it when the cluster id is the same and the high-water
	// revision did not go back.
	Timeline   string    `json:"timeline"`
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`
	// Source is the member whose database this is.
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
	// HighWaterRevision is the newest revision any member was seen to serve.
	HighWaterRevision Revision `json:"highWaterRevision"`
	HashKV            HashKV   `json:"hashKV"`
	// MemberHashes is what each voting member answered; empty when the
	// comparison was switched off.
	MemberHashes []MemberHash `json:"memberHashes"`
	// Suspect lists why the content is not trusted; empty means verified.
	Suspect []string `json:"suspect,omitempty"`

	Keys        int64   `json:"keys"`
	Leases      int64   `json:"leases"`
	Alarms      []Alarm `json:"alarms,omitempty"`
	AuthEnabled bool    `json:"authEnabled"`
	RaftTerm    uint64  `json:"raftTerm"`
	RaftIndex   uint64  `json:"raftIndex"`

	// Plain is etcd's file as it came over the wire, trailer included.
	Plain Blob `json:"plain"`
	// Stored is the data object.
	Stored   Blob     `json:"stored"`
	Encoding Encoding `json:"encoding"`
	// Tool is the version of backupd that took the snapshot.
	Tool string `json:"tool"`
}

// ParseSuffix returns the encoding that a data object's suffix tells of: all but
// the recipients.
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

// Key names the manifest below the repository's root.
func (m *Manifest) Key() string {
	return Key{Cluster: m.Cluster, Kind: KindManifest, ID: m.ID, Suspect: !m.Verified()}.String()
}

// DataKey names the data object below the repository's root.
func (m *Manifest) DataKey() string {
	return Key{Cluster: m.Cluster, Kind: KindData, Data: m.ID.DataName(), Suffix: m.Encoding.Suffix()}.String()
}

// Verified reports whether nothing speaks against the content.
func (m *Manifest) Verified() bool { return len(m.Suspect) == 0 }

// Validate checks that m is complete and does not contradict itself.
func (m *Manifest) Validate() error {
	if m.Format != ManifestFormat {
		return fmt.Errorf("format %q: want %q", m.Format, ManifestFormat)
	}
	if _, err := ParseSnapshotID(string(m.ID)); err != nil {
		return err
	}
	if err := CheckClusterName(m.Cluster); err != nil {
		return err
	}
	// The revision stands in the name too, so that a listing can show it
	// without reading the manifest. The two must never disagree.
	if m.ID.Revision() != m.Revision {
		return fmt.Errorf("id %s tells revision %d, the manifest says %d", m.ID, m.ID.Revision(), m.Revision)
	}
	if m.Revision < 1 {
		return fmt.Errorf("revision %d: want at least 1", m.Revision)
	}
	if m.CompactRevision > m.Revision {
		return fmt.Errorf("compact revision %d is after revision %d", m.CompactRevision, m.Revision)
	}
	if m.Timeline == "" {
		return fmt.Errorf("no timeline")
	}
	if m.StartedAt.IsZero() || m.FinishedAt.IsZero() {
		return fmt.Errorf("no start or finish time")
	}
	if m.Plain.Bytes < 1 || m.Plain.SHA256.IsZero() || m.Stored.Bytes < 1 || m.Stored.SHA256.IsZero() {
		return fmt.Errorf("size or sha256 of the plain or stored bytes is missing")
	}
	if c := m.Encoding.Compression; c != "" && c != "zstd" {
		return fmt.Errorf("compression %q is not known", c)
	}
	if c := m.Encoding.Encryption; c != "" && c != "age" {
		return fmt.Errorf("encryption %q is not known", c)
	}
	return m.validateMembers()
}

func (m *Manifest) validateMembers() error {
	if len(m.Members) == 0 {
		return fmt.Errorf("no members")
	}
	seen := make(map[MemberID]bool, len(m.Members))
	for _, mem := range m.Members {
		if seen[mem.ID] {
			return fmt.Errorf("member %s stands there twice", mem.ID)
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
