// Package runs sums records up before it is known which of them count. Records that follow each
// other make a run with one CRC-32C. Where all of a run count, its sum is joined to that of the
// runs before it; only where some do not, records must be read again.
package runs

import "hash/crc32"

// Castagnoli is the table of all sums here.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	// minBytes is the least length of a run that another follows. A shorter one would take more
	// memory, a longer one holds a record that does not count more often.
	minBytes = 32 << 10
	// maxRuns bounds the memory of a [List], about 40 bytes for each.
	maxRuns = 64 << 10
)

// Run is the sum of records that follow each other.
type Run struct {
	First   []byte // key of the first record: as it was passed, not a copy
	Records uint64
	Bytes   uint64
	Sum     uint32
	// Special reports that a record was marked when it was added.
	Special bool
}

// List holds the runs of a bucket, in the order of its records.
type List struct {
	runs  []Run
	least uint64 // bytes of each run but the last
}

// NewList returns an empty list for records of up to so many bytes.
func NewList(bytes int64) *List {
	l := &List{least: max(minBytes, uint64(bytes)/maxRuns)}
	l.runs = make([]Run, 0, uint64(bytes)/l.least+1) // all at once: to grow would take twice as much
	return l
}

// Add adds a record. pair is its key and value, as they are summed up. special marks its run.
func (l *List) Add(key, pair []byte, special bool) {
	if n := len(l.runs); n == 0 || l.runs[n-1].Bytes >= l.least {
		l.runs = append(l.runs, Run{First: key})
	}
	r := &l.runs[len(l.runs)-1]
	r.Sum = crc32.Update(r.Sum, Castagnoli, pair)
	r.Bytes += uint64(len(pair))
	r.Records++
	r.Special = r.Special || special
}

// Runs returns all runs.
func (l *List) Runs() []Run { return l.runs }

// Join returns the sum of the bytes of before, followed by those of the run.
func (r *Run) Join(before uint32) uint32 { return multiply(before, power(r.Bytes)) ^ r.Sum }

// A sum is a polynomial over GF(2), and its highest bit is the coefficient of x^0. To append n
// bytes multiplies the sum of those before by x^8n (M. Adler, "crc32_combine" of zlib).

const polynomial = crc32.Castagnoli

// squares has x^8, and after it of each its square.
var squares = func() (s [64]uint32) {
	s[0] = 1 << (31 - 8)
	for i := 1; i < len(s); i++ {
		s[i] = multiply(s[i-1], s[i-1])
	}
	return s
}()

// power returns x^8n.
func power(n uint64) uint32 {
	p := uint32(1 << 31)
	for i := 0; n > 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			p = multiply(p, squares[i])
		}
	}
	return p
}

// multiply returns a product modulo the polynomial.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a>>31 != 0 {
			product ^= b
		}
		b = b>>1 ^ polynomial&-(b&1)
	}
	return product
}
