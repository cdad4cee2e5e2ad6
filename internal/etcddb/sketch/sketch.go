// Package sketch selects the few live keys of a database that are remembered of it:
// those with the smallest hashes, and those that were written last. Memory does not
// depend on the number of keys.
package sketch

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
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
	Key       []byte
	Mod       int64 // revision at which it was written
	Tombstone bool
	// Pair is the record's own key with its value after it, as stored. It must stay
	// as it is until the entries are made.
	Pair []byte
}

// Entry is one live key.
type Entry struct {
	Key    uint64 // hash of the key
	Mod    int64
	Digest uint64 // of the Pair
}

func entryOf(hash uint64, r *Record) Entry {
	sum := sha256.Sum256(r.Pair)
	return Entry{hash, r.Mod, binary.BigEndian.Uint64(sum[:])}
}

// Sample selects the live keys with the smallest hashes. The zero value is ready.
type Sample struct {
	lowered bool
	limit   uint64 // if lowered, the pool holds the live keys with smaller hashes only
	pool    map[identity]Record
}

// identity tells keys apart. Anybody can make two keys of one hash, but not two of
// one fingerprint, whose seed differs in every process.
type identity struct{ hash, fingerprint uint64 }

var seed = maphash.MakeSeed()

// Add takes one record. Records must come in the order in which they were written.
func (s *Sample) Add(r Record) {
	hash := xxhash.Sum64(r.Key)
	if s.lowered && hash >= s.limit {
		return
	}
	id := identity{hash, maphash.Bytes(seed, r.Key)}
	if r.Tombstone {
		delete(s.pool, id)
		return
	}
	if s.pool == nil {
		s.pool = map[identity]Record{}
	}
	s.pool[id] = r
	if len(s.pool) > maxPool {
		s.lower()
	}
}

// lower halves the pool. The limit never rises again, because the keys that it has
// kept out are not known any more.
func (s *Sample) lower() {
	hashes := make([]uint64, 0, len(s.pool))
	for id := range s.pool {
		hashes = append(hashes, id.hash)
	}
	slices.Sort(hashes)
	s.limit, s.lowered = hashes[len(hashes)/2], true
	for id := range s.pool {
		if id.hash >= s.limit {
			delete(s.pool, id)
		}
	}
}

// Entries returns the entries and the limit: every live key with a smaller hash is
// among them, and with [NoLimit] every live key.
func (s *Sample) Entries() (limit uint64, entries []Entry) {
	ids := make([]identity, 0, len(s.pool))
	for id := range s.pool {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b identity) int { return cmp.Compare(a.hash, b.hash) })
	limit = NoLimit
	if s.lowered {
		limit = s.limit
	}
	if len(ids) > MaxEntries {
		limit = ids[MaxEntries].hash
	}
	if s.lowered || len(ids) > MaxEntries {
		limit = min(limit, NoLimit-1)
	}
	for _, id := range ids {
		if id.hash >= limit && limit != NoLimit {
			break
		}
		r := s.pool[id]
		entries = append(entries, entryOf(id.hash, &r))
	}
	return limit, entries
}

// All returns every live key, the one that was written last first. It reports false
// if only a part of them is known.
func (s *Sample) All() ([]Record, bool) {
	if s.lowered {
		return nil, false
	}
	all := make([]Record, 0, len(s.pool))
	for _, r := range s.pool {
		all = append(all, r)
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
