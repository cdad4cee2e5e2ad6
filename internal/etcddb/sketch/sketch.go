// Package sketch selects the few live keys of a database that are remembered of it:
// those with the smallest hashes, and those that were written last. Memory does not
// depend on the number of keys.
package sketch

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"
)

const (
	// MaxEntries bounds the entries of each list.
	MaxEntries = 256
	// NoLimit is the limit of a sample that holds every live key.
	NoLimit = math.MaxUint64

	// maxPool is how many keys a [Sample] holds while the records come. More of
	// them than MaxEntries, because keys of the pool may be deleted later.
	maxPool = 16 * MaxEntries
)

// Record is one record of the key bucket.
type Record struct {
	Key []byte
	// ID tells keys apart. It must depend on a secret: anybody can make two keys of
	// one hash.
	ID        uint64
	Mod       int64 // revision at which it was written
	Create    int64 // revision at which its key came into being; of a tombstone 0
	Tombstone bool
	// Pair is the record's own key with its value after it, as stored. It must stay
	// as it is until the entries are made.
	Pair []byte
}

// Entry is one live key.
type Entry struct {
	Key    uint64 // hash of the key
	Mod    int64
	Create int64
	Digest uint64 // of the Pair
}

func entryOf(hash uint64, r *Record) Entry {
	sum := sha256.Sum256(r.Pair)
	return Entry{hash, r.Mod, r.Create, binary.BigEndian.Uint64(sum[:])}
}

// Sample selects the live keys with the smallest hashes. The zero value is ready.
type Sample struct {
	lowered bool
	limit   uint64 // if lowered, the pool holds the live keys with smaller hashes only
	pool    map[uint64]*candidate
}

type candidate struct {
	Record
	hash uint64
}

// Add takes one record. Records must come in the order in which they were written.
func (s *Sample) Add(r Record) {
	hash := xxhash.Sum64(r.Key)
	if s.lowered && hash >= s.limit {
		return
	}
	if r.Tombstone {
		delete(s.pool, r.ID)
		return
	}
	if c := s.pool[r.ID]; c != nil {
		c.Record = r
		return
	}
	if s.pool == nil {
		s.pool = map[uint64]*candidate{}
	}
	s.pool[r.ID] = &candidate{r, hash}
	if len(s.pool) > maxPool {
		s.lower()
	}
}

// lower halves the pool. The limit never rises again, because the keys that it has
// kept out are not known any more.
func (s *Sample) lower() {
	all := s.sorted()
	s.limit, s.lowered = all[len(all)/2].hash, true
	for id, c := range s.pool {
		if c.hash >= s.limit {
			delete(s.pool, id)
		}
	}
}

func (s *Sample) sorted() []*candidate {
	return slices.SortedFunc(maps.Values(s.pool), func(a, b *candidate) int { return cmp.Compare(a.hash, b.hash) })
}

// Entries returns the entries and the limit: every live key with a smaller hash is
// among them, and with [NoLimit] every live key.
func (s *Sample) Entries() (limit uint64, entries []Entry) {
	all := s.sorted()
	limit = NoLimit
	switch {
	case len(all) > MaxEntries:
		limit = min(all[MaxEntries].hash, NoLimit-1)
	case s.lowered:
		limit = min(s.limit, NoLimit-1)
	}
	for _, c := range all {
		if c.hash < limit || limit == NoLimit {
			entries = append(entries, entryOf(c.hash, &c.Record))
		}
	}
	return limit, entries
}

// All returns every live key, the one that was written last first. It reports false
// if only a part of them is known.
func (s *Sample) All() (all []Record, ok bool) {
	if s.lowered {
		return nil, false
	}
	for _, c := range s.pool {
		all = append(all, c.Record)
	}
	slices.SortFunc(all, func(a, b Record) int { return bytes.Compare(b.Pair, a.Pair) })
	return all, true
}

// Recent selects the live keys that were written last. The zero value is ready.
type Recent struct {
	from    int64
	entries []Entry
}

// Add takes a record that is the newest of its key. Records must come in the
// reverse of the order in which they were written. Add reports false when no more
// are needed.
func (r *Recent) Add(rec Record) (more bool) {
	switch {
	case rec.Tombstone:
		return true
	case len(r.entries) == MaxEntries:
		// This key is the first that is left out. Others of its transaction may be
		// among the entries; the transaction as a whole is not.
		r.from = rec.Mod + 1
		return false
	}
	r.entries = append(r.entries, entryOf(xxhash.Sum64(rec.Key), &rec))
	return true
}

// Entries returns the entries, and the revision since which every live key is among
// them, 0 if all are.
func (r *Recent) Entries() (from int64, entries []Entry) { return r.from, r.entries }
