package etcddb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
	"github.com/etcd-backupd/backupd/internal/etcddb/metapage"
)

// lockTimeout bounds the wait for another process that has the database open.
const lockTimeout = 2 * time.Second

// PrepareOptions says what [Prepare] changes.
type PrepareOptions struct {
	// From is a small database with the planned members. etcdutl's own restore
	// code wrote them into one from [NewSkeleton]. Required.
	From string `json:"from"`
	// BumpRevision, when not 0, is added to the newest revision, and the result
	// is marked as compacted, as etcdutl requires.
	BumpRevision uint64 `json:"bumpRevision,omitempty"`
	// ClearAlarms removes all alarms. They name members of the old cluster
	// and would be in force in the new one.
	ClearAlarms bool `json:"clearAlarms,omitempty"`
	// ClearNoSpace removes the alarms NOSPACE alone.
	ClearNoSpace bool `json:"clearNoSpace,omitempty"`
	// InitialMmapBytes is how much address space is reserved at first; 0
	// reserves as much as the file needs.
	InitialMmapBytes uint64 `json:"initialMmapBytes,omitempty"`
}

// validate checks the options without opening a file.
func (o *PrepareOptions) validate() error {
	switch {
	case o.From == "":
		return errors.New("no database to take the membership from")
	case o.BumpRevision > math.MaxInt64:
		return fmt.Errorf("revision bump %d is too large", o.BumpRevision)
	case o.InitialMmapBytes > math.MaxInt64:
		return fmt.Errorf("initial memory map of %d bytes is too large", o.InitialMmapBytes)
	}
	return nil
}

// Prepare turns a verified copy of a database into the member/snap/db of a member of a
// new cluster. The result is the same as that of etcdutl snapshot restore. A SHA-256
// trailer is cut off. A child process does the work in one transaction, and the result
// is on disk when Prepare returns. It visits few pages, so it does not find damage
// elsewhere. After an error the file must be deleted. Defects wrap [backup.ErrCorrupt].
func Prepare(ctx context.Context, path string, o PrepareOptions) error {
	if err := o.validate(); err != nil {
		return fmt.Errorf("prepare %s: %w", path, err)
	}
	if _, err := runChild(ctx, request{Op: opPrepare, Path: path, Prepare: &o}, nil); err != nil {
		return fmt.Errorf("prepare %s: %w", path, err)
	}
	return nil
}

// NewSkeleton makes an etcd database without content at path. etcdutl's restore
// code then writes the membership of a new cluster into it. No file may exist at
// path.
func NewSkeleton(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create skeleton: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("create skeleton: %w", err)
	}
	err = update(path, 0, func(tx *bolt.Tx) error {
		for _, name := range allBuckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("create skeleton: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// prepare does the work of [Prepare] in the child.
func prepare(path string, o PrepareOptions) error {
	frame, err := ReadFrame(path)
	if err != nil {
		return err
	}
	if frame.meta.Freelist == metapage.NoFreelist {
		if err := metapage.AppendFreelist(path, frame.meta); err != nil {
			return fmt.Errorf("add a list of free pages: %w", err)
		}
	}
	from, err := bolt.Open(o.From, 0o400, &bolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return fmt.Errorf("open %s: %w", o.From, err)
	}
	defer from.Close() // only read from
	return from.View(func(source *bolt.Tx) error {
		return update(path, int(o.InitialMmapBytes), func(tx *bolt.Tx) error {
			if err := transplant(tx, source); err != nil {
				return err
			}
			if o.BumpRevision > 0 {
				if err := bump(tx, o.BumpRevision); err != nil {
					return err
				}
			}
			switch {
			case o.ClearAlarms:
				return clearBucket(tx, buckets.Alarm, nil)
			case o.ClearNoSpace:
				return clearBucket(tx, buckets.Alarm, isNoSpace)
			}
			return nil
		})
	})
}

// update runs change in one transaction on an existing database, opened as
// etcd opens its own, and leaves the file on disk.
func update(path string, mmapBytes int, change func(*bolt.Tx) error) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: mmapBytes,
		Timeout:         lockTimeout,
	})
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err := db.Update(change); err != nil {
		return errors.Join(err, db.Close())
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("close database: %w", err)
	}
	// The commit has synced the data. This cuts off a trailer, and what bbolt has added to grow
	// into, 16 MiB of hole that a copy would fill, and syncs the length.
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	frame, err := readFrame(file)
	if err == nil {
		err = file.Truncate(frame.DatabaseBytes)
	}
	return errors.Join(err, file.Sync(), file.Close())
}

// transplant replaces the membership and the raft position of the old cluster by
// those of the new one. Everything else stays, including the cluster version and
// the stored ConfState: etcdutl does the same, and servers expect it.
func transplant(tx, source *bolt.Tx) error {
	for _, name := range []string{buckets.Members, buckets.RemovedMembers} {
		if err := clearBucket(tx, name, nil); err != nil {
			return err
		}
		if err := copyBucket(tx, source, name); err != nil {
			return err
		}
	}
	if _, err := tx.CreateBucketIfNotExists([]byte(buckets.Cluster)); err != nil {
		return fmt.Errorf("create bucket %q: %w", buckets.Cluster, err)
	}
	to, from := tx.Bucket([]byte(buckets.Meta)), source.Bucket([]byte(buckets.Meta))
	if to == nil || from == nil {
		return backup.Corruptf("bucket %q is missing: not an etcd database", buckets.Meta)
	}
	for _, key := range []string{buckets.ConsistentIndex, buckets.Term} {
		value := from.Get([]byte(key))
		if value == nil {
			return fmt.Errorf("database with the membership has no %s", key)
		}
		if err := to.Put([]byte(key), value); err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
	}
	return nil
}

// isNoSpace reports whether the key of an alarm is of an alarm NOSPACE.
func isNoSpace(key []byte) bool {
	c := &buckets.Contents{}
	return c.Read(buckets.Alarm, key, nil) == nil && alarmType(c.Alarms[0].Kind) == "NOSPACE"
}

// clearBucket removes the keys of the named bucket that goes names, or all if it is nil. It
// creates the bucket if it is missing.
func clearBucket(tx *bolt.Tx, name string, goes func(key []byte) bool) error {
	b, err := tx.CreateBucketIfNotExists([]byte(name))
	if err != nil {
		return fmt.Errorf("create bucket %q: %w", name, err)
	}
	var keys [][]byte
	err = b.ForEach(func(k, _ []byte) error {
		if goes == nil || goes(k) {
			keys = append(keys, k)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read bucket %q: %w", name, err)
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return fmt.Errorf("clear bucket %q: %w", name, err)
		}
	}
	return nil
}

func copyBucket(tx, source *bolt.Tx, name string) error {
	to, from := tx.Bucket([]byte(name)), source.Bucket([]byte(name))
	if from == nil {
		return fmt.Errorf("database with the membership has no bucket %q", name)
	}
	err := from.ForEach(func(k, v []byte) error { return to.Put(k, v) })
	if err != nil {
		return fmt.Errorf("copy bucket %q: %w", name, err)
	}
	return nil
}

// bump writes a record without content, amount revisions after the one that a server
// would start with, and schedules a compaction there, which the server does when it boots. Clients of
// the old cluster then learn that their revisions are compacted, instead of
// waiting for revisions that now mean something else.
func bump(tx *bolt.Tx, amount uint64) error {
	records, metas := tx.Bucket([]byte(keyBucket)), tx.Bucket([]byte(buckets.Meta))
	if records == nil {
		return backup.Corruptf("bucket %q is missing: not an etcd database", keyBucket)
	}
	newest, err := startRevision(records, metas)
	if err != nil {
		return err
	}
	// The server adds 1 to the revision, so it must be below the largest number.
	if int64(amount) >= math.MaxInt64-newest {
		return fmt.Errorf("bump revision %d by %d: more than a revision can hold", newest, amount)
	}
	key := appendRevision(nil, newest+int64(amount))
	if err := records.Put(key, []byte{}); err != nil {
		return fmt.Errorf("write bumped revision: %w", err)
	}
	if err := metas.Put([]byte(buckets.ScheduledCompact), key); err != nil {
		return fmt.Errorf("write %s: %w", buckets.ScheduledCompact, err)
	}
	return nil
}

// startRevision returns the revision of a server that starts with these buckets. It is
// not that of the newest record where a compaction has removed the newest ones.
func startRevision(records, metas *bolt.Bucket) (int64, error) {
	c := &buckets.Contents{}
	for _, key := range []string{buckets.ScheduledCompact, buckets.FinishedCompact} {
		value := metas.Get([]byte(key))
		if value == nil {
			continue
		}
		if err := c.Read(buckets.Meta, []byte(key), value); err != nil {
			return 0, backup.Corruptf("%w", err)
		}
	}
	f := &Facts{
		ScheduledCompactRevision: backup.Revision(c.ScheduledCompact),
		FinishedCompactRevision:  backup.Revision(c.FinishedCompact),
	}
	var last backup.Revision
	if k, _ := records.Cursor().Last(); k != nil {
		rk, err := parseRecordKey(k)
		if err != nil {
			return 0, err
		}
		last = backup.Revision(rk.main)
	}
	f.settleRevisions(last)
	return int64(f.Revision), nil
}
