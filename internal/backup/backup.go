// Package backup holds the nouns of backupd and the errors callers branch on:
// revisions, snapshot identifiers, members and the manifest that makes a
// snapshot exist. It imports only the standard library and does no I/O, so
// every other package may import it.
package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strconv"
)

// Revision is etcd's store revision: the number of the last transaction that
// changed the key space. A fresh cluster is at revision 1; 0 means unknown.
type Revision int64

// String returns the decimal number.
func (r Revision) String() string { return strconv.FormatInt(int64(r), 10) }

// Position is how far the history of one cluster had come when it was seen: its
// id, and the newest that any member reported of revision, raft applied index and
// raft term. The index moves with each change, also with those of users, roles,
// leases, alarms and members, for which the revision stands still.
type Position struct {
	ClusterID MemberID
	Revision  Revision
	Index     uint64
	Term      uint64
}

// MemberID is etcd's 64-bit id of a cluster or of one of its members. Text and
// JSON use lower-case hexadecimal without leading zeros, as etcd prints it.
type MemberID uint64

// String returns the id in etcd's own hexadecimal spelling.
func (id MemberID) String() string { return strconv.FormatUint(uint64(id), 16) }

// MarshalText implements [encoding.TextMarshaler].
func (id MemberID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *MemberID) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil {
		return fmt.Errorf("parse member id %q: want up to 16 hexadecimal digits", text)
	}
	*id = MemberID(n)
	return nil
}

// Member is one etcd server as the cluster's own membership records it.
type Member struct {
	ID         MemberID `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs,omitempty"`
	Learner    bool     `json:"learner,omitempty"`
}

// Alarm is one alarm stored in an etcd database: NOSPACE or CORRUPT, raised
// for one member.
type Alarm struct {
	MemberID MemberID `json:"memberID"`
	Type     string   `json:"type"`
}

// CorruptMembers returns the members for which there is a CORRUPT alarm.
func CorruptMembers(alarms []Alarm) []MemberID {
	var out []MemberID
	for _, a := range alarms {
		if a.Type == "CORRUPT" {
			out = append(out, a.MemberID)
		}
	}
	return out
}

// HashKV is etcd's hash of the key bucket: a CRC-32C over every record up to
// Revision that compaction at CompactRevision keeps. Two hashes may be
// compared only when both revisions are equal
// (etcd server/storage/mvcc/hash.go).
type HashKV struct {
	Hash            uint32   `json:"hash"`
	Revision        Revision `json:"revision"`
	CompactRevision Revision `json:"compactRevision"`
}

// Hash check results of one member; see [MemberHash].
const (
	HashEqual         = "equal"          // the member holds the same data as the snapshot
	HashDiffers       = "differs"        // the member holds other data at the same revision
	HashNotComparable = "not-comparable" // the member answered, but for another compact revision
	HashUnavailable   = "unavailable"    // the member did not answer
)

// MemberHash is what one voting member answered when asked for its HashKV at
// the snapshot's revision.
type MemberHash struct {
	MemberID MemberID `json:"memberID"`
	Endpoint string   `json:"endpoint,omitempty"`
	Result   string   `json:"result"`
	Answer   *HashKV  `json:"answer,omitempty"`
	Detail   string   `json:"detail,omitempty"`
}

// Blob describes one sequence of bytes by length and SHA-256.
type Blob struct {
	Bytes  int64  `json:"bytes"`
	SHA256 Digest `json:"sha256"`
}

// BlobOf describes bytes in memory.
func BlobOf(raw []byte) Blob { return Blob{Bytes: int64(len(raw)), SHA256: sha256.Sum256(raw)} }

// Digest is a SHA-256 sum, spelled in text and JSON as 64 lower-case
// hexadecimal digits.
type Digest [32]byte

// String returns the hexadecimal spelling, as sha256sum prints it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether no digest was set.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements [encoding.TextMarshaler].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Digest) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(d) {
		return fmt.Errorf("parse sha256 %q: want 64 hexadecimal digits", text)
	}
	copy(d[:], raw)
	return nil
}

// Checksum is the length and the CRC-32C of a sequence of bytes. It shows the
// damage that a disk or a program does, at a tenth of the cost of a SHA-256. It
// does not show a change that somebody made on purpose.
type Checksum struct {
	Bytes  int64
	CRC32C uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Write adds p. It never fails.
func (c *Checksum) Write(p []byte) (int, error) {
	c.Bytes += int64(len(p))
	c.CRC32C = crc32.Update(c.CRC32C, castagnoli, p)
	return len(p), nil
}
