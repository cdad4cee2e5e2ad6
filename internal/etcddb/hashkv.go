package etcddb

import (
	"fmt"
	"hash/crc32"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyset"
	"github.com/etcd-backupd/backupd/internal/etcddb/runs"
)

var castagnoli = runs.Castagnoli

// keyBucket is the name of the bucket with the records; HashKV begins with it.
const keyBucket = "key"

// HashKV at revision R of a database compacted at C is a CRC-32C over the records
// up to R, in order. A record up to C takes part only if a compaction at R would
// keep it: if it is the newest record of a key that exists at R. If no key exists
// at R, all records that the compaction at C kept take part. A tombstone at
// exactly C never takes part, because older servers delete it and newer ones do
// not (etcd server/storage/mvcc/hash.go).
//
// So newer records decide whether an old one takes part. They are read first, from the
// end backwards: see [keptAt].

// keepSet selects the records up to the compact revision that take part in a hash.
type keepSet struct {
	old     uint64        // number of records up to the compact revision
	kept    uint64        // number of them that take part
	dropped keyset.Bitmap // those of them that do not take part, newest first
}

// newKeepSet decides for every record up to compact as of revision rev.
func newKeepSet(im *image, b *bucket, rev, compact int64) (*keepSet, error) {
	k, alive, err := keptAt(im, b, rev, compact)
	if err == nil && !alive {
		// Then etcd leaves out no record of its file, which holds all that the
		// compaction has kept.
		k, _, err = keptAt(im, b, compact, compact)
	}
	return k, err
}

// keysAtOnce is how many keys are remembered while the records are read once. If there are
// more, records are read again for the rest: that takes time, and no more memory. So many fill
// a [keyset.Set] of 64 MiB; half of them fit in one of 32 MiB, and both are there for a moment.
const keysAtOnce = 3_000_000

// keptAt decides which records up to compact a compaction at rev would keep,
// and reports whether any key exists at rev.
func keptAt(im *image, b *bucket, rev, compact int64) (k *keepSet, alive bool, err error) {
	return keptOf(im, b, rev, compact, keysAtOnce)
}

func keptOf(im *image, b *bucket, rev, compact int64, atOnce int) (k *keepSet, alive bool, err error) {
	k = &keepSet{}
	for todo := []class{{0, 1}}; len(todo) > 0; {
		rest, some, err := k.read(im, b, rev, compact, todo[0], atOnce)
		if err != nil {
			return nil, false, err
		}
		todo, alive = append(rest, todo[1:]...), alive || some
	}
	k.kept = k.old - k.dropped.Count()
	return k, alive, nil
}

// class is the keys whose fingerprints leave a rest when divided by a power of two.
type class struct{ rest, of uint64 }

func (c class) has(f keyset.Fingerprint) bool { return f[0]>>1&(c.of-1) == c.rest }

// read decides for the records of one class of keys. If the class has more keys than are
// remembered at once, it leaves parts of it to others, which it returns.
func (k *keepSet) read(
	im *image, b *bucket, rev, compact int64, c class, atOnce int,
) (rest []class, alive bool, err error) {
	var newer keyset.Set[keyset.Fingerprint]
	k.old = 0
	err = newWalker(im, descending).bucket(b, func(e *element) error {
		rk, r, err := readRecord(e)
		if err != nil || rk.main > rev {
			return err
		}
		f, drop := keyset.FingerprintOf(r.Key), false
		for newer.Len() >= atOnce && c.has(f) && !newer.Has(f) {
			c.of *= 2
			rest = append(rest, class{c.rest + c.of/2, c.of})
			newer.Filter(c.has)
		}
		if c.has(f) {
			drop = newer.Add(f) || rk.tombstone
			alive = alive || !drop
		}
		if rk.main <= compact {
			k.dropped.Push(k.old, drop)
			k.old++
		}
		return nil
	})
	return rest, alive, err
}

// keeps reports whether the n-th record from the beginning takes part.
func (k *keepSet) keeps(n uint64) bool { return !k.dropped.Has(k.old - 1 - n) }

// keepsAll reports whether so many records from the n-th on take part.
func (k *keepSet) keepsAll(n, count uint64) bool { return !k.dropped.Any(k.old-n-count, k.old-n) }

// hashAt computes the HashKV for any compact revision, finished or not.
func hashAt(im *image, b *bucket, rev, compact int64) (backup.HashKV, error) {
	hash := backup.HashKV{Revision: backup.Revision(rev), CompactRevision: backup.Revision(compact)}
	keep, err := &keepSet{}, error(nil)
	if compact >= 0 {
		if keep, err = newKeepSet(im, b, rev, compact); err != nil {
			return hash, err
		}
	}
	sum, n := crc32.Checksum([]byte(keyBucket), castagnoli), uint64(0)
	err = newWalker(im, ascending).bucket(b, func(e *element) error {
		rk, err := parseRecordKey(e.key)
		switch {
		case err != nil:
			return err
		case rk.main > rev:
			return errStop
		case rk.main <= compact:
			n++
			if !keep.keeps(n - 1) {
				return nil
			}
		}
		sum = crc32.Update(sum, castagnoli, e.pair)
		return nil
	})
	hash.Hash = sum
	return hash, err
}

// BumpedHash returns the HashKV that a server answers at its revision after a database
// with this [Facts.LiveHash] was restored with a bump to that revision, until it is
// compacted later than that: see [PrepareOptions.BumpRevision]. The server compacts at
// this revision when it boots, so the record without content follows the live keys.
func BumpedHash(live uint32, revision backup.Revision) backup.HashKV {
	return backup.HashKV{
		Hash:     crc32.Update(live, castagnoli, appendRevision(nil, int64(revision))),
		Revision: revision, CompactRevision: revision,
	}
}

// hashAtCompaction answers [HashAt] in the child.
func hashAtCompaction(im *image, rev, compact backup.Revision) (*backup.HashKV, error) {
	all, err := newWalker(im, ascending).buckets()
	if err != nil {
		return nil, err
	}
	f := &Facts{}
	if err := f.readCompaction(im, all); err != nil {
		return nil, err
	}
	b, err := findBucket(all, keyBucket)
	if err != nil {
		return nil, err
	}
	last, err := lastRecord(im, b)
	if err != nil {
		return nil, err
	}
	f.settleRevisions(last)
	switch {
	case rev > f.Revision:
		return nil, fmt.Errorf("revision %d is later than the file's, %d", rev, f.Revision)
	case rev < 1 || rev < f.CompactRevision:
		return nil, fmt.Errorf("revision %d is compacted: the file begins at %d", rev, f.CompactRevision)
	case compact > rev || compact < f.CompactRevision:
		return nil, fmt.Errorf("compact revision %d: want one from %d, the file's own, to revision %d",
			compact, f.CompactRevision, rev)
	}
	hash, err := hashAt(im, b, int64(rev), int64(compact))
	return &hash, err
}

// lastRecord returns the revision of the newest record, 0 without records.
func lastRecord(im *image, b *bucket) (backup.Revision, error) {
	var last backup.Revision
	err := newWalker(im, descending).bucket(b, func(e *element) error {
		rk, err := parseRecordKey(e.key)
		if err != nil {
			return err
		}
		last = backup.Revision(rk.main)
		return errStop
	})
	return last, err
}
