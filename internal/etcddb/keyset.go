package etcddb

import (
	"hash/maphash"
	"runtime"
)

// Keys are remembered by fingerprints, so that memory does not depend on their
// lengths. The seeds differ in every process, so nobody can prepare keys that
// clash.
var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// fingerprint replaces a key where a clash would make a false HashKV. With 128
// bits a clash will not be seen.
type fingerprint [2]uint64

func fingerprintOf(key []byte) fingerprint {
	// All zero marks a free slot of a keySet.
	return fingerprint{maphash.Bytes(seeds[0], key) | 1, maphash.Bytes(seeds[1], key)}
}

func (f fingerprint) slot() uint64 { return f[1] }

// shortFingerprint replaces a key where only a count depends on it. Among ten
// million keys, the probability of a clash is one in two hundred thousand.
type shortFingerprint uint64

func shortFingerprintOf(key []byte) shortFingerprint {
	return shortFingerprint(maphash.Bytes(seeds[0], key) | 1)
}

func (f shortFingerprint) slot() uint64 { return uint64(f >> 1) }

// keySet is a set of fingerprints: open addressing, linear probing. It takes a
// third of the memory of a map, which decides how large a database can be
// inspected in how small a container.
type keySet[F interface {
	comparable
	slot() uint64
}] struct {
	slots []F // a power of two of them; the zero value is free
	count int
}

// add puts f into the set and reports whether it was there before.
func (s *keySet[F]) add(f F) bool {
	if s.count >= len(s.slots)/4*3 {
		s.grow()
	}
	i, found := s.find(f)
	if !found {
		s.slots[i] = f
		s.count++
	}
	return found
}

// has reports whether f is in the set.
func (s *keySet[F]) has(f F) bool {
	if s.count == 0 {
		return false
	}
	_, found := s.find(f)
	return found
}

// remove takes f out of the set and reports whether it was there.
func (s *keySet[F]) remove(f F) bool {
	if s.count == 0 {
		return false
	}
	hole, found := s.find(f)
	if !found {
		return false
	}
	// Every element that did not get its own slot because this one was taken
	// moves up, so that searches do not meet holes.
	var free F
	mask := uint64(len(s.slots) - 1)
	for i := (hole + 1) & mask; s.slots[i] != free; i = (i + 1) & mask {
		if home := s.slots[i].slot() & mask; (i-home)&mask >= (i-hole)&mask {
			s.slots[hole], hole = s.slots[i], i
		}
	}
	s.slots[hole] = free
	s.count--
	return true
}

// find returns the slot that holds f, or the free one where it belongs.
func (s *keySet[F]) find(f F) (i uint64, found bool) {
	var free F
	mask := uint64(len(s.slots) - 1)
	for i = f.slot() & mask; s.slots[i] != free; i = (i + 1) & mask {
		if s.slots[i] == f {
			return i, true
		}
	}
	return i, false
}

func (s *keySet[F]) grow() {
	var free F
	old := s.slots
	s.slots = make([]F, max(1024, 2*len(old)))
	for _, f := range old {
		if f != free {
			i, _ := s.find(f)
			s.slots[i] = f
		}
	}
	// Old tables of many megabytes must not pile up until the next collection.
	// A collection is quick, because tables hold no pointers.
	if len(old) >= 1<<18 {
		runtime.GC()
	}
}
