package etcddb

import (
	"bytes"
	"hash/crc32"
	"math"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyset"
	"github.com/etcd-backupd/backupd/internal/etcddb/registry"
	"github.com/etcd-backupd/backupd/internal/etcddb/runs"
	"github.com/etcd-backupd/backupd/internal/etcddb/sketch"
)

// scan reads a database and collects its facts. Two passes run side by side: one backwards,
// which finds the records that are the newest of a key that exists, and one forwards, which
// does all the rest as if every record were such a one. Runs of records that have others
// among them are read once more.
type scan struct {
	im    *image
	facts *Facts
	small buckets.Contents
	sum   uint32    // of all buckets, the status hash
	last  recordKey // the record before

	// keep selects, of all records, those that are the newest of a key that exists. Only the
	// pass backwards uses it, until both have ended.
	keep   *keepSet
	runs   *runs.List
	hash   quickHash
	sample sketch.Sample
	kube   registry.Counter
}

// quickHash computes two hashes at the newest revision.
type quickHash struct {
	compact int64
	kv      uint32 // HashKV, if any key exists
	live    uint32 // see [Facts.LiveHash]
}

// inspect verifies the whole database and returns its facts.
func inspect(im *image) (*Facts, error) {
	f := &Facts{DatabaseBytes: int64(im.Pages) * int64(im.PageBytes), PageBytes: int(im.PageBytes)}
	s := &scan{im: im, facts: f, runs: runs.NewList(f.DatabaseBytes)}
	if err := im.checkMetaHeaders(); err != nil {
		return nil, err
	}
	w := newWalker(im, ascending)
	w.seen.Set(0)
	w.seen.Set(1)
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
	s.prepareHash()
	err = im.both(func() (err error) {
		s.keep, _, err = keptAt(im, records, math.MaxInt64, math.MaxInt64)
		return err
	}, func() error { return s.forwards(w, all) })
	if err != nil {
		return nil, err
	}
	return s.facts, s.finish(records)
}

// forwards reads all buckets, checks what they hold and sums it up.
func (s *scan) forwards(w *walker, all []bucket) error {
	for i := range all {
		if err := s.bucket(w, &all[i]); err != nil {
			return err
		}
	}
	if err := s.small.Finish(); err != nil {
		return backup.Corruptf("%w", err)
	}
	s.facts.setContents(&s.small)
	s.facts.BytesInUse = int64(w.seen.Count()) * int64(s.im.PageBytes)
	return w.checkFreelist()
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

// prepareHash begins the hashes of the records.
func (s *scan) prepareHash() {
	s.facts.settleRevisions(0)
	s.hash.compact = int64(s.facts.CompactRevision)
	s.hash.kv = crc32.Checksum([]byte(keyBucket), castagnoli)
	s.hash.live = s.hash.kv
}

// finish sets the facts that are known only at the end of both passes.
func (s *scan) finish(records *bucket) error {
	f := s.facts
	if err := s.hashRuns(records); err != nil {
		return err
	}
	f.StatusHash = s.sum
	f.TotalKeys = int64(s.keep.kept)
	f.settleRevisions(f.LastRecordRevision)
	f.HashKV = backup.HashKV{Hash: s.hash.kv, Revision: f.Revision, CompactRevision: f.CompactRevision}
	f.LiveHash = s.hash.live
	f.Kubernetes = kubernetes(&s.kube)
	err := s.finishSketch(records)
	if err != nil || f.TotalKeys > 0 || f.CompactRevision < 0 {
		return err
	}
	// Without any key etcd leaves out no record.
	f.HashKV, err = hashAt(s.im, records, int64(f.Revision), int64(f.CompactRevision))
	return err
}

// bucket hashes one bucket and collects its facts.
func (s *scan) bucket(w *walker, b *bucket) error {
	visit, name := s.record, string(b.name)
	if name != keyBucket {
		visit = func(e *element) error { return read(&s.small, name, e) }
	}
	s.small.Bucket(name)
	s.sum = crc32.Update(s.sum, castagnoli, b.name)
	err := w.bucket(b, func(e *element) error {
		if e.flags != 0 {
			return backup.Corruptf("key %q has flags %#x: etcd has no nested buckets", clip(e.key), e.flags)
		}
		if name != keyBucket {
			s.sum = crc32.Update(s.sum, castagnoli, e.pair)
		}
		return visit(e)
	})
	if name == keyBucket {
		for _, r := range s.runs.Runs() {
			s.sum = r.Join(s.sum)
		}
	}
	return err
}

// record reads one entry of the key bucket. Entries come in order of revisions.
func (s *scan) record(e *element) error {
	rk, r, err := readRecord(e)
	if err != nil {
		return err
	}
	// A server panics over a put and a tombstone of one key at one revision.
	if s.facts.Records > 0 && rk.main == s.last.main && rk.sub == s.last.sub {
		return backup.Corruptf("%s: there is also %s", rk, s.last)
	}
	s.last = rk
	s.facts.Records++
	s.facts.LastRecordRevision = backup.Revision(rk.main)
	s.facts.Bumped = s.facts.Bumped || r.Empty()

	s.sample.Add(sketched(keyset.ShortOf(r.Key), rk, &r, e))
	s.runs.Add(e.key, e.pair, r.Empty())
	s.kube.Add(r.Key, e.pair, 1)
	return nil
}

// hashRuns joins the sums of the runs whose records are all live, and reads the others again.
func (s *scan) hashRuns(records *bucket) error {
	w, all := newWalker(s.im, ascending), s.runs.Runs()
	var n, end uint64 // the record, and the end of the run that is read
	// next goes to the run that must be read, and reports false if there is none.
	next := func() bool {
		for ; len(all) > 0; all = all[1:] {
			r := &all[0]
			if r.Special || !s.keep.keepsAll(n, r.Records) {
				w.from, end, all = r.First, n+r.Records, all[1:]
				return true
			}
			s.hash.kv, s.hash.live, n = r.Join(s.hash.kv), r.Join(s.hash.live), n+r.Records
		}
		return false
	}
	if !next() {
		return nil
	}
	return w.bucket(records, func(e *element) error {
		if bytes.Compare(e.key, w.from) < 0 {
			return nil
		}
		rk, r, err := readRecord(e)
		if err != nil {
			return err
		}
		live := s.keep.keeps(n)
		s.hash.add(rk, live, r.Empty(), e.pair)
		if !live {
			s.kube.Add(r.Key, e.pair, -1)
		}
		if n++; n == end && !next() {
			return errStop
		}
		return nil
	})
}

// add adds a record. A compaction keeps it if it is the newest of a key that exists.
func (h *quickHash) add(rk recordKey, kept, empty bool, pair []byte) {
	if kept || rk.main > h.compact {
		h.kv = crc32.Update(h.kv, castagnoli, pair)
	}
	if kept && !empty {
		h.live = crc32.Update(h.live, castagnoli, pair)
	}
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
	b, err := findBucket(all, buckets.Meta)
	if err != nil {
		return err
	}
	c := &buckets.Contents{}
	err = newWalker(im, ascending).bucket(b, func(e *element) error { return read(c, buckets.Meta, e) })
	f.ScheduledCompactRevision = backup.Revision(c.ScheduledCompact)
	f.FinishedCompactRevision = backup.Revision(c.FinishedCompact)
	return err
}

// read reads one entry of a small bucket.
func read(c *buckets.Contents, bucket string, e *element) error {
	if err := c.Read(bucket, e.key, e.value); err != nil {
		return backup.Corruptf("%w", err)
	}
	return nil
}
