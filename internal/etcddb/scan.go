package etcddb

import (
	"fmt"
	"hash/crc32"
	"math/bits"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyset"
	"github.com/etcd-backupd/backupd/internal/etcddb/sketch"
)

// scan reads a database in one pass and collects its facts.
type scan struct {
	im    *image
	facts *Facts
	sum   uint32 // of all buckets, the status hash

	// alive holds every key whose newest record so far is a put.
	alive  keyset.Set[keyset.Short]
	hash   quickHash
	sample sketch.Sample
}

// quickHash computes the HashKV at the newest revision during the pass. The result
// is right if a finished compaction has left at most one record per key; the pass
// checks that.
type quickHash struct {
	compact int64
	newer   keyset.Set[keyset.Fingerprint]
	sum     uint32
	wrong   bool // the condition does not hold: [hashAt] must compute the hash
}

// inspect verifies the whole database and returns its facts.
func inspect(im *image) (*Facts, error) {
	s := &scan{im: im, facts: &Facts{
		DatabaseBytes: int64(im.pages) * int64(im.pageBytes),
		PageBytes:     int(im.pageBytes),
	}}
	if err := im.checkMetaHeaders(); err != nil {
		return nil, err
	}
	w := newWalker(im, ascending)
	w.seen.set(0)
	w.seen.set(1)
	all, err := w.buckets()
	if err != nil {
		return nil, err
	}
	if err := s.facts.readCompaction(im, all); err != nil {
		return nil, err
	}
	records, err := findBucket(all, keyBucket)
	if err != nil {
		return nil, err
	}
	if err := s.prepareHash(records); err != nil {
		return nil, err
	}
	for i := range all {
		if err := s.bucket(w, &all[i]); err != nil {
			return nil, err
		}
	}
	used := 0
	for _, word := range w.seen {
		used += bits.OnesCount64(word)
	}
	s.facts.BytesInUse = int64(used) * int64(im.pageBytes)
	if err := w.checkFreelist(); err != nil {
		return nil, err
	}
	return s.facts, s.finish(records)
}

// newest returns the newest revision and reads no more pages than that needs.
func newest(im *image) (backup.Revision, error) {
	all, err := newWalker(im, ascending).buckets()
	if err != nil {
		return 0, err
	}
	f := &Facts{}
	if err := f.readCompaction(im, all); err != nil {
		return 0, err
	}
	records, err := findBucket(all, keyBucket)
	if err != nil {
		return 0, err
	}
	last, err := lastRecord(im, records)
	f.settleRevisions(last)
	return f.Revision, err
}

// prepareHash decides how to compute the HashKV: in the same pass if possible.
func (s *scan) prepareHash(records *bucket) (err error) {
	s.facts.settleRevisions(0)
	s.hash.compact = int64(s.facts.CompactRevision)
	s.hash.sum = crc32.Checksum([]byte(keyBucket), castagnoli)
	switch {
	case s.facts.ScheduledCompactRevision > s.facts.FinishedCompactRevision:
		s.hash.wrong = true
	case s.facts.CompactRevision >= 0:
		s.hash.newer, err = newerKeys(s.im, records, s.hash.compact)
	}
	return err
}

// finish sets the facts that are known only at the end of the pass.
func (s *scan) finish(records *bucket) error {
	f := s.facts
	f.StatusHash = s.sum
	f.TotalKeys = int64(s.alive.Len())
	s.alive = keyset.Set[keyset.Short]{} // the memory may be needed again
	f.settleRevisions(f.LastRecordRevision)
	f.HashKV = backup.HashKV{Hash: s.hash.sum, Revision: f.Revision, CompactRevision: f.CompactRevision}
	if f.CompactRevision >= 0 && f.TotalKeys == 0 {
		s.hash.wrong = true // without any key etcd leaves out no record
	}
	s.hash.newer = keyset.Set[keyset.Fingerprint]{}
	if err := s.finishSketch(records); err != nil || !s.hash.wrong {
		return err
	}
	var err error
	f.HashKV, err = hashAt(s.im, records, int64(f.Revision), int64(f.CompactRevision))
	return err
}

// bucket hashes one bucket and collects its facts.
func (s *scan) bucket(w *walker, b *bucket) error {
	read := s.facts.reader(string(b.name))
	if string(b.name) == keyBucket {
		read = s.record
	}
	s.sum = crc32.Update(s.sum, castagnoli, b.name)
	return w.bucket(b, func(e *element) error {
		if e.flags != 0 {
			return backup.Corruptf("key %q has flags %#x: etcd has no nested buckets", clip(e.key), e.flags)
		}
		s.sum = crc32.Update(s.sum, castagnoli, e.pair)
		return read(e)
	})
}

// record reads one entry of the key bucket. Entries come in order of revisions.
func (s *scan) record(e *element) error {
	rk, r, err := readRecord(e)
	if err != nil {
		return err
	}
	s.facts.Records++
	s.facts.LastRecordRevision = backup.Revision(rk.main)
	s.facts.Bumped = s.facts.Bumped || r.Empty()

	key, twice := keyset.ShortOf(r.Key), false
	s.sample.Add(sketched(key, rk, &r, e))
	if rk.tombstone {
		twice = s.alive.Remove(key)
	} else {
		twice = s.alive.Add(key)
	}
	if twice && rk.main <= s.hash.compact {
		s.hash.wrong = true
	}
	if !s.hash.wrong {
		s.hash.add(rk, r.Key, e.pair)
	}
	return nil
}

func (h *quickHash) add(rk recordKey, key, pair []byte) {
	if rk.main <= h.compact {
		if rk.tombstone {
			return
		}
		if h.newer.Has(keyset.FingerprintOf(key)) {
			return
		}
	}
	h.sum = crc32.Update(h.sum, castagnoli, pair)
}

// findBucket returns the bucket with the given name.
func findBucket(all []bucket, name string) (*bucket, error) {
	for i := range all {
		if string(all[i].name) == name {
			return &all[i], nil
		}
	}
	return nil, backup.Corruptf("bucket %q is missing: not an etcd database", name)
}

// settleRevisions derives the revisions that a server reports after booting this
// file (etcd server/storage/mvcc/kvstore.go, restore).
func (f *Facts) settleRevisions(last backup.Revision) {
	// An etcd without any record is at revision 1.
	f.Revision = max(1, last, f.FinishedCompactRevision, f.ScheduledCompactRevision)
	f.CompactRevision = max(f.FinishedCompactRevision, f.ScheduledCompactRevision)
	if f.CompactRevision == 0 {
		f.CompactRevision = NeverCompacted
	}
}

// readCompaction reads the two compact revisions. It comes first, because they
// decide how records are counted.
func (f *Facts) readCompaction(im *image, all []bucket) error {
	b, err := findBucket(all, metaBucket)
	if err != nil {
		return err
	}
	return newWalker(im, ascending).bucket(b, func(e *element) error {
		switch string(e.key) {
		case scheduledCompactKey:
			return readRevision(e, &f.ScheduledCompactRevision)
		case finishedCompactKey:
			return readRevision(e, &f.FinishedCompactRevision)
		}
		return nil
	})
}

func readRevision(e *element, to *backup.Revision) error {
	rk, err := parseRecordKey(e.value)
	if err != nil {
		return fmt.Errorf("%s: %w", e.key, err)
	}
	*to = backup.Revision(rk.main)
	return nil
}
