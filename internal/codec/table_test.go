package codec_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	seekable "github.com/SaveTheRbtz/zstd-seekable-format-go/pkg"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
)

// frameBytes is as docs/format.md has it.
const frameBytes = 768 << 10

// TestFrames_OtherReader: another implementation of the seekable format finds every byte of ours
// by the table.
func TestFrames_OtherReader(t *testing.T) {
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for _, size := range []int{1, frameBytes - 1, frameBytes, frameBytes + 1, 3*frameBytes + 77} {
		plain := sample(size)
		stored, w := encode(t, plain, codec.Options{Compress: codec.Zstd})
		r, err := seekable.NewReader(bytes.NewReader(stored), dec)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.SeekTable()
		if err != nil {
			t.Fatal(err)
		}
		if want := (size + frameBytes - 1) / frameBytes; int(found.Size()) != size || int(found.NumFrames()) != want ||
			!found.HasChecksums() {
			t.Errorf("%d bytes: a table of %d bytes in %d frames", size, found.Size(), found.NumFrames())
		}
		got := make([]byte, size/2+1)
		if _, err := r.ReadAt(got, int64(size-len(got))); err != nil || !bytes.Equal(got, plain[size-len(got):]) {
			t.Errorf("%d bytes: read the second half: %v", size, err)
		}
		if tail := stored[len(stored)-int(w.Table.Bytes):]; sha256.Sum256(tail) != w.Table.SHA256 {
			t.Errorf("%d bytes: the stored bytes do not end in the table that the encoder tells of", size)
		}
	}
}

// TestFrames_Large: plain bytes that shrink to less than a sixth are cut into frames of 2 MiB after
// the first four, and the same bytes always alike.
func TestFrames_Large(t *testing.T) {
	text := sample(16)
	for _, c := range []struct {
		plain []byte
		want  []int
	}{
		{
			bytes.Repeat(text, (4*frameBytes+(4<<20))/len(text)),
			[]int{frameBytes, frameBytes, frameBytes, frameBytes, 2 << 20, 2 << 20},
		},
		{bytes.Repeat(text, 4*frameBytes/len(text)), []int{frameBytes, frameBytes, frameBytes, frameBytes}},
		{sample(6*frameBytes + 1), []int{frameBytes, frameBytes, frameBytes, frameBytes, frameBytes, frameBytes, 1}},
	} {
		stored, _ := encode(t, c.plain, codec.Options{Compress: codec.Zstd})
		if _, got := cutFrames(t, stored); !slices.Equal(got, c.want) {
			t.Errorf("frames of %v plain bytes, want %v", got, c.want)
		}
		if again, _ := encode(t, c.plain, codec.Options{Compress: codec.Zstd}); !bytes.Equal(again, stored) {
			t.Error("the same bytes were stored in another way")
		}
	}
}

// cutFrames cuts stored bytes as the table at their end says.
func cutFrames(t *testing.T, stored []byte) (frames [][]byte, plain []int) {
	t.Helper()
	order := binary.LittleEndian
	n := int(order.Uint32(stored[len(stored)-9:]))
	entries := stored[len(stored)-9-12*n:]
	for range n {
		size := order.Uint32(entries)
		frames, plain = append(frames, stored[:size]), append(plain, int(order.Uint32(entries[4:])))
		stored, entries = stored[size:], entries[12:]
	}
	return frames, plain
}

// join makes stored bytes of frames, with a table that tells of them.
func join(frames [][]byte, plain []int) []byte {
	order := binary.LittleEndian
	out := slices.Concat(frames...)
	out = order.AppendUint32(out, 0x184D2A5E)
	out = order.AppendUint32(out, uint32(12*len(frames)+9))
	for i, f := range frames {
		out = order.AppendUint32(order.AppendUint32(out, uint32(len(f))), uint32(plain[i]))
		out = append(out, f[len(f)-4:]...)
	}
	out = append(order.AppendUint32(out, uint32(len(frames))), 0x80)
	return order.AppendUint32(out, 0x8F92EAB1)
}

// zstdFrame compresses p as somebody else would.
func zstdFrame(t *testing.T, p []byte, o ...zstd.EOption) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(p, nil)
}

// TestDecode_Resealed: somebody has changed stored bytes and made the sums of the manifest fit:
// that of the stored bytes, and that of the table.
func TestDecode_Resealed(t *testing.T) {
	plain := sample(3*frameBytes + 5)
	o := codec.Options{Compress: codec.Zstd}
	stored, w := encode(t, plain, o)
	frames, sizes := cutFrames(t, stored)
	if again := join(frames, sizes); !bytes.Equal(again, stored) {
		t.Fatal("what was cut cannot be joined")
	}
	tableAt := len(stored) - int(w.Table.Bytes)
	changed := bytes.Clone(plain[frameBytes : 2*frameBytes])
	changed[7] ^= 1
	inTable := func(at int) []byte {
		out := bytes.Clone(stored)
		out[len(out)-9-12*len(frames)+at] ^= 1
		return out
	}
	for name, c := range map[string]struct {
		stored []byte
		err    string
	}{
		"order":               {join([][]byte{frames[1], frames[0], frames[2], frames[3]}, sizes), "sha256"},
		"a frame of its size": {join([][]byte{frames[0], zstdFrame(t, changed), frames[2], frames[3]}, sizes), "sha256"},
		"a frame twice":       {join([][]byte{frames[0], frames[0], frames[2], frames[3]}, sizes), "sha256"},
		"a frame less":        {join(frames[1:], sizes[1:]), "truncated"},
		"a frame more":        {join(append(frames[:4:4], frames[3]), append(sizes[:4:4], 5)), "more than the"},
		"stored size":         {inTable(0), "the seek table does not tell of the frames before it"},
		"plain size":          {inTable(12 + 4), "the seek table does not tell of the frames before it"},
		"checksum":            {inTable(2*12 + 8), "the seek table does not tell of the frames before it"},
		"entries swapped": {func() []byte {
			own := join([][]byte{frames[0], frames[2], frames[1], frames[3]}, sizes)
			return append(slices.Concat(frames...), own[len(slices.Concat(frames...)):]...)
		}(), "the seek table does not tell of the frames before it"},
		"other table":       {append(slices.Concat(frames...), join(nil, nil)...), "the seek table has 17 bytes"},
		"number of entries": {inTable(4*12 + 0), "the seek table does not tell of the frames before it"},
		"no table":          {slices.Concat(frames...), "the seek table is missing"},
		"two tables":        {append(bytes.Clone(stored), join(frames, sizes)[tableAt:]...), "follow the seek table"},
		"a frame behind":    {append(bytes.Clone(stored), frames[3]...), "follow the seek table"},
		"no checksum": {join([][]byte{zstdFrame(t, plain[:frameBytes], zstd.WithEncoderCRC(false))},
			[]int{frameBytes}), "it has no checksum"},
		"no size": {join([][]byte{streamed(t, plain)}, []int{len(plain)}), "0 plain bytes, want 1 to"},
		"too large": {join([][]byte{zstdFrame(t, make([]byte, 5<<20))}, []int{5 << 20}),
			"5242880 plain bytes, want 1 to"},
		"no frame":           {[]byte("what is this, which is stored here?"), "frame 0"},
		"cut in a frame":     {stored[:len(frames[0])/2], "frame 0: unexpected EOF"},
		"empty":              {nil, "the seek table is missing"},
		"reserved block":     {reserved(frames, sizes), "a block is of no kind that there is"},
		"block without end":  {endless(frames[0]), "stored bytes"},
		"wrong frame digest": {wrongSum(frames, sizes), "frame 1: "},
	} {
		t.Run(name, func(t *testing.T) {
			w := w
			w.Stored = backup.Blob{Bytes: int64(len(c.stored)), SHA256: sha256.Sum256(c.stored)}
			w.Table = nil // the companion files have none; what their table tells must be true all the same
			got, err := decode(c.stored, o, w, nil)
			if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %d bytes and %v, want %q", len(got), err, c.err)
			}
		})
	}
}

// streamed is one frame that does not tell its size.
func streamed(t *testing.T, p []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// headerBytes is the header of a frame of 768 KiB: the magic, a descriptor, four bytes of size.
const headerBytes = 9

func reserved(frames [][]byte, sizes []int) []byte {
	f := bytes.Clone(frames[0])
	f[headerBytes] |= 3 << 1
	return join([][]byte{f}, sizes[:1])
}

// endless is a frame whose blocks are empty and none of which is the last.
func endless(frame []byte) []byte {
	return append(bytes.Clone(frame[:headerBytes]), make([]byte, 3<<20)...)
}

// wrongSum is a frame whose own checksum is wrong, and a table that has the same.
func wrongSum(frames [][]byte, sizes []int) []byte {
	f := bytes.Clone(frames[1])
	f[len(f)-1] ^= 1
	return join([][]byte{frames[0], f, frames[2], frames[3]}, sizes)
}

// TestDecode_OtherTable: the table is not the one that the manifest promises, though it tells of
// the frames.
func TestDecode_OtherTable(t *testing.T) {
	o := codec.Options{Compress: codec.Zstd}
	plain := sample(frameBytes + 3)
	stored, w := encode(t, plain, o)
	w.Table = &backup.Blob{Bytes: w.Table.Bytes, SHA256: backup.Digest{1}}
	if _, err := decode(stored, o, w, nil); !errors.Is(err, backup.ErrCorrupt) ||
		!strings.Contains(err.Error(), "seek table is damaged: expected sha256 01") {
		t.Errorf("got %v", err)
	}
}

// TestDecoder_WriteTo writes the same as Read yields, and ends with the error of the writer.
func TestDecoder_WriteTo(t *testing.T) {
	for name, c := range options(t) {
		plain := sample(2*frameBytes + 9)
		stored, w := encode(t, plain, c.o)
		d, err := codec.NewDecoder(bytes.NewReader(stored), c.o.Encoding(), w, c.ids)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		first, err := io.ReadFull(d, make([]byte, 10))
		if err != nil {
			t.Fatal(err)
		}
		n, err := d.WriteTo(&out)
		if err != nil || int(n) != len(plain)-first || !bytes.Equal(out.Bytes(), plain[first:]) {
			t.Errorf("%s: wrote %d bytes, %v", name, n, err)
		}
		if n, err := d.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("%s: read %d bytes more, %v", name, n, err)
		}
		d.Close()

		full := errors.New("disk full")
		if d, err = codec.NewDecoder(bytes.NewReader(stored), c.o.Encoding(), w, c.ids); err != nil {
			t.Fatal(err)
		}
		if n, err := d.WriteTo(failing{full}); n != 0 || !errors.Is(err, full) {
			t.Errorf("%s: wrote %d bytes to a full disk, %v", name, n, err)
		}
		d.Close()
		if _, err := d.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("%s: a closed decoder reads: %v", name, err)
		}
		stored[len(stored)/2] ^= 1
		if d, err = codec.NewDecoder(bytes.NewReader(stored), c.o.Encoding(), w, c.ids); err != nil {
			t.Fatal(err)
		}
		if _, err := d.WriteTo(io.Discard); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: wrote damaged bytes: %v", name, err)
		}
		d.Close()
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
