package etcddb

import (
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyset"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyvalue"
	"github.com/etcd-backupd/backupd/internal/etcddb/sketch"
)

func sketched(key keyset.Short, k recordKey, r *keyvalue.KeyValue, e *element) sketch.Record {
	return sketch.Record{Key: r.Key, ID: uint64(key), Mod: k.main, Create: r.Create, Tombstone: k.tombstone, Pair: e.pair}
}

// finishSketch makes the sketch of the database after its records were sampled.
func (s *scan) finishSketch(records *bucket) error {
	recent, err := s.recent(records)
	if err != nil {
		return err
	}
	out := &s.facts.Sketch
	limit, entries := s.sample.Entries()
	out.Limit, out.Sample = limit, sketchEntries(entries, backup.ByHash)
	from, entries := recent.Entries()
	out.From, out.Recent = backup.Revision(from), sketchEntries(entries, backup.ByRevision)
	return nil
}

// recent reads from the end backwards, unless the sample knows every key.
func (s *scan) recent(records *bucket) (*sketch.Recent, error) {
	recent, n := &sketch.Recent{}, uint64(0) // records that were read
	if all, ok := s.sample.All(); ok {
		for i := 0; i < len(all) && recent.Add(all[i]); i++ {
		}
		return recent, nil
	}
	return recent, newWalker(s.im, descending).bucket(records, func(e *element) error {
		if n++; s.keep.dropped.Has(n - 1) {
			return nil
		}
		if rk, r, err := readRecord(e); err != nil || recent.Add(sketched(0, rk, &r, e)) {
			return err
		}
		return errStop
	})
}

// sketchEntries sorts the entries. Keys that only look alike, made on purpose, are one.
func sketchEntries(in []sketch.Entry, order func(a, b backup.SketchEntry) int) []backup.SketchEntry {
	out := make([]backup.SketchEntry, 0, len(in))
	for _, e := range in {
		mod, create := backup.Revision(e.Mod), backup.Revision(e.Create)
		out = append(out, backup.SketchEntry{Key: e.Key, Mod: mod, Create: create, Digest: e.Digest})
	}
	slices.SortFunc(out, order)
	return slices.Compact(out)
}
