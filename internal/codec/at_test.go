package codec_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
)

// counting counts what is read of an object, and fails if it is told to.
type counting struct {
	r     io.ReaderAt
	calls int
	bytes int64
	err   error
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.ReadAt(p, off)
	c.calls++
	c.bytes += int64(n)
	return n, err
}

// TestReaderAt reads any part of all kinds of objects, and no more of them than is needed.
func TestReaderAt(t *testing.T) {
	plain := sample(18*frameBytes + 4711) // more than are remembered
	for name, c := range options(t) {
		stored, w := encode(t, plain, c.o)
		src := &counting{r: bytes.NewReader(stored)}
		a, err := codec.NewReaderAt(src, c.o.Encoding(), w, c.ids)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if a.Size() != int64(len(plain)) || src.bytes > 80<<10 {
			t.Errorf("%s: size %d; %d bytes read to open it", name, a.Size(), src.bytes)
		}
		const at = 3*frameBytes - 100
		if err := iotest.TestReader(io.NewSectionReader(a, at, 300), plain[at:at+300]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		rng := rand.New(rand.NewPCG(3, 4))
		for range 40 {
			off := rng.IntN(len(plain))
			p := make([]byte, 1+rng.IntN(2*frameBytes))
			n, err := a.ReadAt(p, int64(off))
			want := plain[off:min(off+len(p), len(plain))]
			if !bytes.Equal(p[:n], want) || (err == nil) != (n == len(p)) || err != nil && err != io.EOF {
				t.Fatalf("%s: read %d of %d bytes at %d: %v", name, n, len(p), off, err)
			}
		}
		for i := range int64(16) { // forget the tenth
			if _, err := a.ReadAt(make([]byte, 1), (i+i/10)*frameBytes); err != nil {
				t.Fatal(err)
			}
		}
		before, calls := src.bytes, src.calls
		for range 2 { // the second time it is remembered
			if _, err := a.ReadAt(make([]byte, 4096), 10*frameBytes+1000); err != nil {
				t.Fatal(err)
			}
		}
		if read := src.bytes - before; c.o.Compress == codec.Zstd && (read > frameBytes || src.calls > calls+1) {
			t.Errorf("%s: %d bytes in %d requests for a page", name, read, src.calls-calls)
		}
		if n, err := a.ReadAt(make([]byte, 1), int64(len(plain))); n != 0 || err != io.EOF {
			t.Errorf("%s: at the end: %d, %v", name, n, err)
		}
		if n, err := a.ReadAt(nil, 5); n != 0 || err != nil {
			t.Errorf("%s: nothing: %d, %v", name, n, err)
		}
		if _, err := a.ReadAt(make([]byte, 1), -1); err == nil {
			t.Errorf("%s: read before the beginning", name)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReaderAt_Large reads across the seams of frames of both sizes.
func TestReaderAt_Large(t *testing.T) {
	const small, large = 4 * frameBytes, 2 << 20
	plain := sample(small + 2*large + 11)
	clear(plain[:small]) // the first frames shrink, and the rest does not
	kinds := options(t)
	for _, name := range []string{"zstd", "zstd+age"} {
		c := kinds[name]
		stored, w := encode(t, plain, c.o)
		a, err := codec.NewReaderAt(bytes.NewReader(stored), c.o.Encoding(), w, c.ids)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, seam := range []int{frameBytes, small - frameBytes, small, small + large, small + 2*large} {
			p := make([]byte, 9)
			if _, err := a.ReadAt(p, int64(seam)-4); err != nil || !bytes.Equal(p, plain[seam-4:seam+5]) {
				t.Errorf("%s: at byte %d: %v", name, seam, err)
			}
		}
		all := make([]byte, len(plain))
		if n, err := a.ReadAt(all, 0); n != len(all) || err != nil || !bytes.Equal(all, plain) {
			t.Errorf("%s: all: %d bytes, %v", name, n, err)
		}
		if got, err := decode(stored, c.o, w, c.ids); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: decode: %v, equal %v", name, err, bytes.Equal(got, plain))
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReaderAt_Damage flips a bit in each place of the object in turn: what is read then is right
// or refused as damage.
func TestReaderAt_Damage(t *testing.T) {
	plain := sample(2*frameBytes + 999)
	for name, c := range options(t) {
		if c.o.Compress == codec.None && c.o.Recipients.Len() == 0 {
			continue // nothing proves a part
		}
		stored, w := encode(t, plain, c.o)
		rng := rand.New(rand.NewPCG(5, 6))
		refused := 0
		for range 40 {
			damaged := bytes.Clone(stored)
			damaged[rng.IntN(len(stored))] ^= 1 << rng.IntN(8)
			got, err := readAllAt(damaged, c.o, w, c.ids)
			if err == nil && !bytes.Equal(got, plain) {
				t.Fatalf("%s: read other bytes", name)
			}
			if err != nil {
				refused++
			}
			if err != nil && !errors.Is(err, backup.ErrCorrupt) && !errors.Is(err, codec.ErrNoIdentity) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if refused < 39 {
			t.Errorf("%s: only %d of 40 were refused", name, refused)
		}
		for _, cut := range []int{0, 10, len(stored) / 2, len(stored) - 1} {
			if _, err := readAllAt(stored[:cut], c.o, w, c.ids); !errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("%s: cut to %d bytes: %v", name, cut, err)
			}
		}
	}
}

func readAllAt(stored []byte, o codec.Options, w codec.Want, ids codec.Identities) ([]byte, error) {
	a, err := codec.NewReaderAt(bytes.NewReader(stored), o.Encoding(), w, ids)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return io.ReadAll(io.NewSectionReader(a, 0, a.Size()))
}

// TestReaderAt_Resealed: the table is another one than was promised, or does not tell of the frames
// although it is the promised one.
func TestReaderAt_Resealed(t *testing.T) {
	o := codec.Options{Compress: codec.Zstd}
	plain := sample(3*frameBytes + 5)
	stored, w := encode(t, plain, o)
	frames, sizes := cutFrames(t, stored)
	at := len(stored) - int(w.Table.Bytes)
	table := func(frames [][]byte, sizes []int) []byte { return join(frames, sizes)[len(slices.Concat(frames...)):] }
	swapped := [][]byte{frames[1], frames[0], frames[2], frames[3]}
	larger := slices.Clone(sizes)
	larger[0], larger[1] = larger[0]+1, larger[1]-1
	for name, object := range map[string][]byte{
		"order":            append(slices.Concat(swapped...), stored[at:]...),
		"order of entries": append(slices.Clone(stored[:at]), table(swapped, sizes)...),
		"plain sizes":      append(slices.Clone(stored[:at]), table(frames, larger)...),
		"fewer":            append(slices.Clone(stored[:at]), table(frames[:3], sizes[:3])...),
		"too large":        append(slices.Clone(stored[:at]), table(frames, []int{5 << 20, 1, 1, 1})...),
		"no table":         slices.Clone(stored[:at]),
		"not of that form": append(slices.Clone(stored[:at]), make([]byte, len(stored)-at)...),
		"no whole entry":   append(slices.Clone(stored), 0),
		"a frame's own sum": append(slices.Concat(frames[0], zstdFrame(t, plain[:frameBytes]), frames[2], frames[3]),
			stored[at:]...),
	} {
		// Who opens it has compared the size.
		if _, err := readAllAt(object, o, w, nil); !errors.Is(err, backup.ErrCorrupt) && len(object) <= len(stored) {
			t.Errorf("%s: got %v", name, err)
		}
		sealed, size := w, max(len(object)-at, 17)
		sealed.Stored.Bytes = int64(len(object))
		sealed.Table = &backup.Blob{Bytes: int64(size), SHA256: sha256.Sum256(object[len(object)-size:])}
		if _, err := readAllAt(object, o, sealed, nil); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s, with the sum of the table: got %v", name, err)
		}
	}
	w.Table = nil
	if _, err := readAllAt(stored, o, w, nil); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("without a promised table: got %v", err)
	}
}

// TestReaderAt_SourceError: an error of the store is no damage, and may pass.
func TestReaderAt_SourceError(t *testing.T) {
	boom := errors.New("connection reset")
	plain := sample(3 * frameBytes)
	for name, c := range options(t) {
		stored, w := encode(t, plain, c.o)
		src := &counting{r: bytes.NewReader(stored)}
		a, err := codec.NewReaderAt(src, c.o.Encoding(), w, c.ids)
		if err != nil {
			t.Fatal(err)
		}
		src.err = boom
		p := make([]byte, 100)
		if _, err := a.ReadAt(p, 7); !errors.Is(err, boom) || errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v, want the error of the source", name, err)
		}
		src.err = nil
		if _, err := a.ReadAt(p, 7); err != nil || !bytes.Equal(p, plain[7:107]) {
			t.Errorf("%s: after the error: %v", name, err)
		}
		a.Close()
		src.err = boom
		if _, err := codec.NewReaderAt(src, c.o.Encoding(), w, c.ids); name != "none" && !errors.Is(err, boom) {
			t.Errorf("%s: open: %v", name, err)
		}
		src.err = nil
		_, err = codec.NewReaderAt(src, c.o.Encoding(), w, nil)
		if len(c.ids) > 0 && !errors.Is(err, codec.ErrNoIdentity) {
			t.Errorf("%s: without identity: %v", name, err)
		}
	}
}
