// Package etcddb reads etcd's database files without etcd: what a snapshot or
// a member/snap/db holds, whether it is whole, and the HashKV a server would
// answer for it. It also makes a copied database startable as a member of a
// new cluster.
//
// A database file is a bbolt B+tree that bbolt maps into memory without any
// page checksum, so a damaged one can kill the process that looks at it. This
// package therefore works in a child process: the program's main function must
// call [ChildMain] before anything else. The reading side does not use bbolt
// at all. It walks the pages itself, in one pass and with every offset checked,
// which is stricter than bbolt's own check, several times faster, and needs
// one bit of memory per page where bbolt needs map entries.
package etcddb

import (
	"context"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// NeverCompacted is the compact revision etcd reports for a database that was
// never compacted.
const NeverCompacted backup.Revision = -1

// Facts is what a database file tells about itself.
type Facts struct {
	// What etcdutl snapshot status prints of the same file, since 3.6: before,
	// it counted the entries of all buckets as keys.

	// StatusHash is a CRC-32C over the names and contents of all buckets. It
	// has nothing to do with HashKV.
	StatusHash uint32 `json:"statusHash"`
	// LastRecordRevision is the revision of the newest record. After a
	// compaction that removed the newest records it is behind Revision.
	LastRecordRevision backup.Revision `json:"lastRecordRevision"`
	TotalKeys          int64           `json:"totalKeys"`
	// DatabaseBytes is the length up to the last page in use, without trailer.
	DatabaseBytes int64 `json:"databaseBytes"`
	// StorageVersion is empty before etcd 3.6.
	StorageVersion string `json:"storageVersion"`

	// Revision is the revision of a server that boots this file.
	Revision backup.Revision `json:"revision"`
	// CompactRevision is the compact revision of a server that boots this
	// file, or [NeverCompacted]. It differs from FinishedCompactRevision when
	// the file was taken while a compaction ran: the server resumes it.
	CompactRevision backup.Revision `json:"compactRevision"`
	// ScheduledCompactRevision and FinishedCompactRevision are as stored; 0
	// when absent.
	ScheduledCompactRevision backup.Revision `json:"scheduledCompactRevision"`
	FinishedCompactRevision  backup.Revision `json:"finishedCompactRevision"`
	// HashKV is at Revision and CompactRevision.
	HashKV backup.HashKV `json:"hashKV"`
	// Records counts all records of the key bucket: old versions and
	// tombstones too.
	Records int64 `json:"records"`
	// Bumped tells that the file holds a record without content, which only
	// etcdutl's --bump-revision writes.
	Bumped bool `json:"bumped,omitempty"`

	Leases         int64             `json:"leases"`
	Alarms         []backup.Alarm    `json:"alarms,omitempty"`
	AuthEnabled    bool              `json:"authEnabled"`
	Users          int64             `json:"users"`
	Roles          int64             `json:"roles"`
	Members        []backup.Member   `json:"members,omitempty"`
	RemovedMembers []backup.MemberID `json:"removedMembers,omitempty"`
	// ClusterVersion is the version all members agreed on, like "3.6.0".
	ClusterVersion string `json:"clusterVersion,omitempty"`
	// ConsistentIndex and RaftTerm name the last raft entry applied.
	ConsistentIndex uint64 `json:"consistentIndex"`
	RaftTerm        uint64 `json:"raftTerm"`

	PageBytes int `json:"pageBytes"`
	// BytesInUse leaves out free pages.
	BytesInUse int64 `json:"bytesInUse"`
}

// Inspect reads the whole database at path in a child process, verifies its
// structure and every record, and returns what it holds. The file is neither
// written nor changed. A defect is reported with its place and wraps
// [backup.ErrCorrupt]; when ctx ends the child is killed.
//
// Inspect does not look at the SHA-256 trailer; see [VerifyTrailer].
func Inspect(ctx context.Context, path string) (*Facts, error) {
	resp, err := examine(ctx, path, request{Op: opInspect})
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", path, err)
	}
	if resp.Facts == nil {
		return nil, fmt.Errorf("inspect %s: child process answered without facts", path)
	}
	return resp.Facts, nil
}

// Newest returns the revision of a server that boots the database at path, the
// one that [Facts] has too. It reads a few pages only, so it verifies next to
// nothing: it is for what can be begun while [Inspect] still runs.
func Newest(ctx context.Context, path string) (backup.Revision, error) {
	resp, err := examine(ctx, path, request{Op: opNewest})
	if err != nil {
		return 0, fmt.Errorf("newest revision of %s: %w", path, err)
	}
	return resp.Newest, nil
}

// HashAt returns the HashKV that a server holding the same history answers at
// revision after it was compacted at compact. A member compacts while its
// snapshot is being stored, so compact may be later than the file's own
// compact revision, but not earlier, and not later than revision. Defects of
// the file wrap [backup.ErrCorrupt].
func HashAt(ctx context.Context, path string, revision, compact backup.Revision) (backup.HashKV, error) {
	resp, err := examine(ctx, path, request{Op: opHash, Revision: revision, CompactRevision: compact})
	if err != nil {
		return backup.HashKV{}, fmt.Errorf("hash %s at revision %d: %w", path, revision, err)
	}
	if resp.HashKV == nil {
		return backup.HashKV{}, fmt.Errorf("hash %s: child process answered without a hash", path)
	}
	return *resp.HashKV, nil
}

// examine checks the framing of the file and hands it, open, to a child.
func examine(ctx context.Context, path string, req request) (*response, error) {
	file, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // only read from
	if err := lockShared(file); err != nil {
		return nil, err
	}
	if _, err := readFrame(file); err != nil {
		return nil, err
	}
	return runChild(ctx, req, file)
}
