// Package keyset has sets of keys that take little memory: a database may have many
// millions of them.
package keyset

import (
	"hash/maphash"
	"runtime/debug"
)

// Keys are remembered by fingerprints, so that memory does not depend on their
// lengths. The seeds differ in every process, so nobody can prepare keys that
// clash.
var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// Fingerprint replaces a key where a clash would make a false HashKV. With 128
// bits a clash will not be seen.
type Fingerprint [2]uint64

// FingerprintOf returns the fingerprint of a key.
func FingerprintOf(key []byte) Fingerprint {
	// A fingerprint of zeros marks a free cell of a Set.
	return Fingerprint{maphash.Bytes(seeds[0], key) | 1, maphash.Bytes(seeds[1], key)}
}

func (f Fingerprint) cell() uint64 { return f[1] }

// Short replaces a key where only a count depends on it. Among ten
// million keys, the probability of a clash is one in two hundred thousand.
type Short uint64

// ShortOf returns the short fingerprint of a key.
func ShortOf(key []byte) Short {
	return Short(maphash.Bytes(seeds[0], key) | 1)
}

func (f Short) cell() uint64 { return uint64(f >> 1) }

// minCells is the least number of cells of a Set that is not empty.
const minCells = 1024

// Set is a set of fingerprints: open addressing, linear probing. It takes a
// third of the memory of a map, which decides how large a database can be
// inspected in how small a container.
type Set[F interface {
	comparable
	cell() uint64
}] struct {
	cells []F // a power of two of them; the zero value is free
	count int
}

// Add adds f and reports whether it was there before.
func (s *Set[F]) Add(f F) bool {
	if s.cells == nil {
		s.grow()
	}
	i, found := s.find(f)
	if found {
		return true
	}
	// Only a new one needs room: a full set may be asked for what it has, and stays as it is.
	if s.count >= len(s.cells)/4*3 {
		s.grow()
		i, _ = s.find(f)
	}
	s.cells[i] = f
	s.count++
	return false
}

// Has reports whether f is in the set.
func (s *Set[F]) Has(f F) bool {
	if s.count == 0 {
		return false
	}
	_, found := s.find(f)
	return found
}

// Filter removes those that keep does not want, and takes no more memory than for the rest.
func (s *Set[F]) Filter(keep func(F) bool) {
	var free F
	left := 0
	for _, f := range s.cells {
		if f != free && keep(f) {
			left++
		}
	}
	size := minCells
	for left >= size/4*3 {
		size *= 2
	}
	s.rebuild(size, keep)
}

// Len returns how many fingerprints are in the set.
func (s *Set[F]) Len() int { return s.count }

// find returns the cell that holds f, or the free cell where it belongs.
func (s *Set[F]) find(f F) (i uint64, found bool) {
	var free F
	mask := uint64(len(s.cells) - 1)
	for i = f.cell() & mask; s.cells[i] != free; i = (i + 1) & mask {
		if s.cells[i] == f {
			return i, true
		}
	}
	return i, false
}

func (s *Set[F]) grow() {
	s.rebuild(max(minCells, 2*len(s.cells)), func(F) bool { return true })
}

// rebuild makes a table of so many cells, with those that keep wants.
func (s *Set[F]) rebuild(size int, keep func(F) bool) {
	var free F
	old := s.cells
	s.cells, s.count = make([]F, size), 0
	for _, f := range old {
		if f != free && keep(f) {
			i, _ := s.find(f)
			s.cells[i] = f
			s.count++
		}
	}
	collect(len(old))
}

// collect gives the memory of a table back to the system. Old ones of many megabytes must not
// pile up until the next collection, and none of them is large enough for the next table. A
// collection is quick, because tables hold no pointers.
func collect(cells int) {
	if cells >= 1<<18 {
		debug.FreeOSMemory()
	}
}
