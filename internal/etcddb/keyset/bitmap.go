package keyset

import "math/bits"

// Bitmap is a set of small numbers.
type Bitmap []uint64

// NewBitmap returns a set of numbers below n.
func NewBitmap(n uint64) Bitmap { return make(Bitmap, (n+63)/64) }

// Has reports whether i is in the set.
func (b Bitmap) Has(i uint64) bool { return b[i/64]&(1<<(i%64)) != 0 }

// Set adds i.
func (b Bitmap) Set(i uint64) { b[i/64] |= 1 << (i % 64) }

// Any reports whether a number from from on and below to is in the set.
func (b Bitmap) Any(from, to uint64) bool {
	for i := from; i < to; {
		if word := b[i/64] >> (i % 64); word == 0 {
			i += 64 - i%64
		} else if i += uint64(bits.TrailingZeros64(word)); i < to {
			return true
		}
	}
	return false
}

// Count returns how many numbers are in the set.
func (b Bitmap) Count() (n uint64) {
	for _, word := range b {
		n += uint64(bits.OnesCount64(word))
	}
	return n
}

// Push adds i if v says so. It may be one more than there are.
func (b *Bitmap) Push(i uint64, v bool) {
	if i/64 == uint64(len(*b)) {
		*b = append(*b, 0)
	}
	if v {
		b.Set(i)
	}
}
