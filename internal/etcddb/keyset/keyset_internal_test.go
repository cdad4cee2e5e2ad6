package keyset

import (
	"math/rand/v2"
	"testing"
)

// TestSet does random things to a set and to a map. The small range makes
// keys meet in the same cells.
func TestSet(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	var set Set[Short]
	want := make(map[Short]bool)
	for i := range 200_000 {
		f := Short(rng.Uint64N(3000)<<rng.UintN(2)<<1 | 1)
		if i%50_000 > 40_000 { // shrink now and then
			f = Short(rng.Uint64N(6000)<<1 | 1)
		}
		switch op := rng.UintN(10); {
		case op < 5 && i%50_000 <= 40_000:
			if set.Add(f) != want[f] {
				t.Fatalf("step %d: add: was there: %v", i, !want[f])
			}
			want[f] = true
		case op < 8 && i%16 == 0: // each makes the table anew
			set.Filter(func(kept Short) bool { return kept != f })
			delete(want, f)
		default:
			if set.Has(f) != want[f] {
				t.Fatalf("step %d: has: %v", i, !want[f])
			}
		}
		if set.Len() != len(want) {
			t.Fatalf("step %d: %d keys, want %d", i, set.Len(), len(want))
		}
	}
	for f := range want {
		if !set.Has(f) {
			t.Fatalf("%d is missing", f)
		}
	}
}
