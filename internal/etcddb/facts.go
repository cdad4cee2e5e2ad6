// Package etcddb reads etcd's database files without etcd: the content of a
// snapshot or a member/snap/db, whether it is whole, and the HashKV that a server
// would answer for it. It also turns a copied database into one that a member of
// a new cluster can boot.
//
// A database file is a B+tree that bbolt maps into memory without page checksums,
// so a damaged file can kill the process that reads it. This package therefore
// works in a child process: the program's main function must call [ChildMain]
// first. To read, it does not use bbolt. It walks the pages itself, in two
// passes side by side, and checks every offset. That is stricter than bbolt's own check, several times
// faster, and takes two bits of memory per page where bbolt takes map entries.
package etcddb

import (
	"context"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
)

// NeverCompacted is the compact revision etcd reports for a database that was
// never compacted.
const NeverCompacted backup.Revision = -1

// Facts describes the content of a database file.
type Facts struct {
	// The first fields are those that etcdutl snapshot status prints for the same
	// file, since 3.6: older versions count the entries of all buckets as keys.

	// StatusHash is a CRC-32C over the names and contents of all buckets. It
	// has nothing to do with HashKV.
	StatusHash uint32 `json:"statusHash"`
	// LastRecordRevision is the revision of the newest record. It is less than
	// Revision after a compaction that removed the newest records.
	LastRecordRevision backup.Revision `json:"lastRecordRevision"`
	// TotalKeys is what etcdutl counts: see [Facts.Keys].
	TotalKeys int64 `json:"totalKeys"`
	// DatabaseBytes is the length up to the last page in use, without trailer.
	DatabaseBytes int64 `json:"databaseBytes"`
	// StorageVersion is empty before etcd 3.6.
	StorageVersion string `json:"storageVersion"`

	// Revision is the revision of a server that boots this file.
	Revision backup.Revision `json:"revision"`
	// CompactRevision is the compact revision of a server that boots this
	// file, or [NeverCompacted]. It differs from FinishedCompactRevision if the
	// file was taken during a compaction: the server resumes the compaction.
	CompactRevision backup.Revision `json:"compactRevision"`
	// ScheduledCompactRevision and FinishedCompactRevision are the stored values,
	// or 0.
	ScheduledCompactRevision backup.Revision `json:"scheduledCompactRevision"`
	FinishedCompactRevision  backup.Revision `json:"finishedCompactRevision"`
	// HashKV is the hash at Revision and CompactRevision.
	HashKV backup.HashKV `json:"hashKV"`
	// LiveHash is like HashKV, but only over the newest record of each key that exists
	// at Revision. A record without content does not take part. It does not depend on
	// any compaction up to Revision: see [BumpedHash].
	LiveHash uint32 `json:"liveHash"`
	// Records counts all records of the key bucket, including old versions and
	// tombstones.
	Records int64 `json:"records"`
	// Bumped reports that the file holds a record without content. Only
	// etcdutl's --bump-revision writes such a record.
	Bumped bool `json:"bumped,omitempty"`
	// Sketch is of the live keys at Revision. A record without content counts as a
	// put of the empty key.
	Sketch backup.Sketch `json:"sketch"`

	Kubernetes  *backup.Kubernetes `json:"kubernetes,omitempty"`
	Leases      int64              `json:"leases"`
	Alarms      []backup.Alarm     `json:"alarms,omitempty"`
	AuthEnabled bool               `json:"authEnabled"`
	// AuthRevision counts the changes of users, roles and their rights. 0: none is stored.
	AuthRevision   uint64            `json:"authRevision"`
	Users          int64             `json:"users"`
	Roles          int64             `json:"roles"`
	Members        []backup.Member   `json:"members,omitempty"`
	RemovedMembers []backup.MemberID `json:"removedMembers,omitempty"`
	// ClusterVersion is the version all members agreed on, like "3.6.0".
	ClusterVersion string `json:"clusterVersion,omitempty"`
	// ConsistentIndex and RaftTerm name the last raft entry applied.
	ConsistentIndex uint64 `json:"consistentIndex"`
	RaftTerm        uint64 `json:"raftTerm"`
	// Cautions say what is no damage, and what people should know before a restore.
	Cautions []string `json:"cautions,omitempty"`
	// Doubts say what no etcd of today stores, and what it starts with all the same.
	Doubts []string `json:"doubts,omitempty"`

	PageBytes int `json:"pageBytes"`
	// BytesInUse leaves out free pages.
	BytesInUse int64 `json:"bytesInUse"`
}

// Inspect reads the whole database at path in a child process, verifies its
// structure and every record, and returns its facts. It does not change the file.
// An error about a defect names its place and wraps [backup.ErrCorrupt]. When ctx
// ends the child is killed.
//
// Inspect does not look at the SHA-256 trailer; see the package trailer.
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

// EtcdVersion is the oldest etcd that starts on the database, as 3.6: none does that is older
// than the version of the cluster or of the storage. They differ during an upgrade, and
// after "etcdutl migrate".
func (f *Facts) EtcdVersion() string { return buckets.Newest(f.ClusterVersion, f.StorageVersion) }

// NewerWarning says what the inspection of a database with these versions cannot know,
// because an etcd wrote it that is newer than this package knows. Else it is empty.
func NewerWarning(versions ...string) string {
	newer := buckets.Newer(versions...)
	if newer == "" {
		return ""
	}
	return fmt.Sprintf("it is of etcd %s; etcd %s is the newest that this backupd knows: it finds no damage in what "+
		"later versions have added", newer, buckets.NewestKnown())
}

// Newest returns the revision of a server that boots the database at path: the
// same as in [Facts]. It reads a few pages only and verifies almost nothing. It is
// for work that can begin while [Inspect] still runs.
func Newest(ctx context.Context, path string) (backup.Revision, error) {
	resp, err := examine(ctx, path, request{Op: opNewest})
	if err != nil {
		return 0, fmt.Errorf("newest revision of %s: %w", path, err)
	}
	return resp.Newest, nil
}

// HashAt returns the HashKV that a server with the same history answers for
// revision after a compaction at compact. A member may compact while its snapshot
// is stored, so compact may be later than the file's own compact revision, but not
// earlier, and not later than revision. Defects of the file wrap
// [backup.ErrCorrupt].
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

// examine checks the frame of the file and passes the open file to a child.
func examine(ctx context.Context, path string, req request) (*response, error) {
	file, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read from
	if err := lockShared(file); err != nil {
		return nil, err
	}
	if _, err := readFrame(file); err != nil {
		return nil, err
	}
	return runChild(ctx, req, file)
}

// Keys is the number of live keys as etcd counts them, which has no range for the empty key
// of a bumped revision. Nobody can delete that key, and no compaction removes it.
func (f *Facts) Keys() int64 {
	if f.Bumped {
		return f.TotalKeys - 1
	}
	return f.TotalKeys
}
