package runs

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"testing"

	"pgregory.net/rapid"
)

// TestJoin: the sum of runs is that of their bytes in one piece, behind others or alone.
func TestJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
		records := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 3000), 0, 60).Draw(t, "records")
		l := &List{least: rapid.Uint64Range(1, 5000).Draw(t, "least")}
		all, count := bytes.Clone(before), uint64(0)
		for _, r := range records {
			l.Add(r, r, false)
			all = append(all, r...)
		}
		sum := crc32.Checksum(before, Castagnoli)
		for i, r := range l.Runs() {
			if !bytes.Equal(r.First, records[count]) || i+1 < len(l.Runs()) && r.Bytes < l.least {
				t.Fatalf("run %d: %+v", i, r)
			}
			sum, count = r.Join(sum), count+r.Records
		}
		if want := crc32.Checksum(all, Castagnoli); sum != want || count != uint64(len(records)) {
			t.Fatalf("got %08x of %d records, want %08x of %d", sum, count, want, len(records))
		}
	})
}

// TestJoin_Long: a length that has high bits, with zeros, whose sums are known in few steps.
func TestJoin_Long(t *testing.T) {
	for _, shift := range []uint{20, 27} {
		zeros := make([]byte, 1<<shift)
		r := Run{Bytes: 1 << shift, Sum: crc32.Checksum(zeros, Castagnoli)}
		begin := crc32.Checksum([]byte("key"), Castagnoli)
		if got, want := r.Join(begin), crc32.Update(begin, Castagnoli, zeros); got != want {
			t.Errorf("2^%d: got %08x, want %08x", shift, got, want)
		}
	}
}

func TestAdd(t *testing.T) {
	l := NewList(1 << 40)
	if l.least != 1<<40/maxRuns || NewList(5).least != minBytes {
		t.Errorf("got %d", l.least)
	}
	l.least = 10
	for i := range 5 {
		l.Add(fmt.Append(nil, i), make([]byte, 6), i == 3)
	}
	if r := l.Runs(); len(r) != 3 || r[0].Special || !r[1].Special || r[2].Special || string(r[1].First) != "2" {
		t.Errorf("got %+v", r)
	}
}
