package codec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// keptFrames is how many decoded frames a [ReaderAt] remembers: those of the pages with pointers,
// to which a reader of a database comes back.
const keptFrames = 16

// ReaderAt reads plain bytes of a stored object at random places, and no more of the object than
// the frames that hold them. Nobody compares the sums of the whole object: the seek table is the
// promised one, each frame has the checksum in the table, and encrypted bytes are authenticated.
// docs/format.md says what that proves. An error about damage wraps [backup.ErrCorrupt].
type ReaderAt struct {
	size   int64
	src    *decrypted
	zr     *zstd.Decoder // nil if the bytes are not compressed
	table  table
	stored []int64 // where each frame begins, and where the last ends
	begin  []int64 // at which plain byte

	mu   sync.Mutex // guards what follows, and the reading: frames come one at a time
	kept []keptFrame
	buf  []byte
}

// keptFrame is a decoded frame; the last used one is the last in the list.
type keptFrame struct {
	number int
	plain  []byte
}

// NewReaderAt returns a reader of the plain form of src, whose size is that in want. The error
// wraps [ErrNoIdentity] if ids cannot decrypt src. Close must be called.
func NewReaderAt(src io.ReaderAt, enc backup.Encoding, want Want, ids Identities) (*ReaderAt, error) {
	stored, err := decryptAt(src, enc, want, ids)
	if err != nil {
		return nil, err
	}
	a := &ReaderAt{size: want.Plain.Bytes, src: stored}
	if enc.Compression != string(Zstd) {
		if stored.size != a.size {
			return nil, backup.Corruptf("%d plain bytes, want %d", stored.size, a.size)
		}
		return a, nil
	}
	if err := a.readTable(stored, want); err != nil {
		return nil, err
	}
	if a.zr, err = newFrameDecoder(1); err != nil {
		return nil, fmt.Errorf("begin decompression: %w", err)
	}
	return a, nil
}

// readTable reads the promised table and compares it with the promised sizes.
func (a *ReaderAt) readTable(src *decrypted, want Want) error {
	if want.Table == nil || want.Table.Bytes < tableHeaderBytes+tableFooterBytes || want.Table.Bytes > src.size {
		return backup.Corruptf("no seek table is promised")
	}
	at := src.size - want.Table.Bytes
	if want.Table.Bytes > maxTable(want.Plain.Bytes) {
		return backup.Corruptf("a seek table of %d bytes for %d plain bytes", want.Table.Bytes, want.Plain.Bytes)
	}
	raw := make([]byte, want.Table.Bytes)
	if err := src.read(raw, at); err != nil {
		return fmt.Errorf("read the seek table: %w", err)
	}
	if err := Compare("seek table", backup.BlobOf(raw), *want.Table); err != nil {
		return err
	}
	t, err := parseTable(raw)
	if err != nil {
		return backup.Corruptf("seek table: %w", err)
	}
	a.table, a.stored, a.begin = t, make([]int64, 1, len(t)+1), make([]int64, 1, len(t)+1)
	for i, e := range t {
		a.stored = append(a.stored, a.stored[i]+int64(e.stored))
		a.begin = append(a.begin, a.begin[i]+int64(e.plain))
	}
	if got := a.stored[len(t)]; got != at {
		return backup.Corruptf("seek table: the frames have %d bytes, before the table are %d", got, at)
	}
	if got := a.begin[len(t)]; got != a.size {
		return backup.Corruptf("seek table: the frames have %d plain bytes, want %d", got, a.size)
	}
	return nil
}

// maxTable bounds the size of a table: that of frames of 4 KiB.
func maxTable(plain int64) int64 {
	return tableHeaderBytes + tableFooterBytes + tableEntryBytes*(plain/(4<<10)+1)
}

// parseTable reads a table that was stored.
func parseTable(raw []byte) (table, error) {
	order := binary.LittleEndian
	entries := raw[tableHeaderBytes : len(raw)-tableFooterBytes]
	t := make(table, len(entries)/tableEntryBytes)
	for i := range t {
		e := entries[i*tableEntryBytes:]
		t[i] = entry{order.Uint32(e), order.Uint32(e[4:]), order.Uint32(e[8:])}
		if p := t[i].plain; p == 0 || p > maxFrame || int(t[i].stored) > maxStored(uint64(p)) ||
			t[i].stored <= checksumBytes {
			return nil, fmt.Errorf("frame %d has %d stored and %d plain bytes", i, t[i].stored, p)
		}
	}
	if !slices.Equal(t.marshal(), raw) {
		return nil, errors.New("it is not of the form of one")
	}
	return t, nil
}

// Size is how many plain bytes there are.
func (a *ReaderAt) Size() int64 { return a.size }

// ReadAt implements [io.ReaderAt].
func (a *ReaderAt) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("read at byte %d", off)
	}
	if off >= a.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if rest := a.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.zr == nil {
		if err := a.src.read(p, off); err != nil {
			return 0, err
		}
		return len(p), err
	}
	for n < len(p) {
		i := sort.Search(len(a.table), func(i int) bool { return a.begin[i+1] > off })
		plain, err := a.frame(i)
		if err != nil {
			return n, fmt.Errorf("frame %d: %w", i, err)
		}
		k := copy(p[n:], plain[off-a.begin[i]:])
		n, off = n+k, off+int64(k)
	}
	return n, err
}

// frame returns the plain bytes of one frame.
func (a *ReaderAt) frame(i int) ([]byte, error) {
	if at := slices.IndexFunc(a.kept, func(k keptFrame) bool { return k.number == i }); at >= 0 {
		f := a.kept[at]
		a.kept = append(slices.Delete(a.kept, at, at+1), f)
		return f.plain, nil
	}
	e := a.table[i]
	a.buf = slices.Grow(a.buf[:0], int(e.stored))[:e.stored]
	if err := a.src.read(a.buf, a.stored[i]); err != nil {
		return nil, err
	}
	var h zstd.Header
	if err := h.Decode(a.buf); err != nil {
		return nil, backup.Corruptf("%w", err)
	}
	if err := checkHeader(&h); err != nil {
		return nil, backup.Corruptf("%w", err)
	}
	if got := entryOf(a.buf, int(h.FrameContentSize)); got != e {
		return nil, backup.Corruptf("it is not the one in the seek table")
	}
	var old []byte
	if len(a.kept) == keptFrames {
		old = a.kept[0].plain
		a.kept = slices.Delete(a.kept, 0, 1)
	}
	plain, err := decodeFrame(a.zr, a.buf, old, int(e.plain))
	if err != nil {
		return nil, backup.Corruptf("%w", err)
	}
	a.kept = append(a.kept, keptFrame{i, plain})
	return plain, nil
}

// Close releases the reader; it does not close the source.
func (a *ReaderAt) Close() error {
	if a.zr != nil {
		a.zr.Close()
	}
	return nil
}

// readAll reads exactly len(p) bytes.
func readAll(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return backup.Corruptf("%d bytes at byte %d, want %d: %w", n, off, len(p), io.ErrUnexpectedEOF)
	}
	return err
}

// Of the form of an age file: chunks that are authenticated each by itself.
const (
	chunkBytes    = 64 << 10
	chunkOverhead = 16
	// ageHead is about as much as the header of an age file takes, with a few recipients.
	ageHead = 4 << 10
)

// decrypted are stored bytes before they were encrypted, if they were.
type decrypted struct {
	io.ReaderAt
	size   int64
	window *window // below the decryption; nil without
	head   int64   // bytes before the first chunk
}

// decryptAt reads the header and the last chunk of an encrypted object.
func decryptAt(src io.ReaderAt, enc backup.Encoding, want Want, ids Identities) (*decrypted, error) {
	if enc.Encryption != "age" {
		return &decrypted{ReaderAt: src, size: want.Stored.Bytes}, nil
	}
	if len(ids) == 0 {
		return nil, noIdentity(enc)
	}
	w := &window{src: &remembering{r: src}, size: want.Stored.Bytes}
	if err := w.fetch(0, ageHead); err != nil {
		return nil, err
	}
	plain, size, err := age.DecryptReaderAt(w, w.size, ids...)
	if err = wrongIdentity(err, enc); errors.Is(err, ErrNoIdentity) {
		return nil, err
	}
	if err != nil {
		return nil, w.src.explain("decrypt", err)
	}
	d := &decrypted{size: size, window: w}
	d.ReaderAt = explaining{plain, w.src}
	d.head = w.size - size - chunkOverhead*max(1, (size+chunkBytes-1)/chunkBytes)
	return d, nil
}

// read reads exactly len(p) bytes, in one request. The caller asks for some.
func (d *decrypted) read(p []byte, off int64) error {
	if d.window != nil {
		const stored = chunkBytes + chunkOverhead
		first, last := off/chunkBytes, (off+int64(len(p))-1)/chunkBytes
		if err := d.window.fetch(d.head+first*stored, (last-first+1)*stored); err != nil {
			return err
		}
	}
	return readAll(d, p, off)
}

// window is a part of src in memory, at which one goroutine looks. What is asked for outside of it
// becomes the window.
type window struct {
	src  *remembering
	size int64
	off  int64
	buf  []byte
}

// fetch makes the bytes from off on the window, up to n of them.
func (w *window) fetch(off, n int64) error {
	n = min(n, w.size-off)
	if n <= 0 || off >= w.off && off+n <= w.off+int64(len(w.buf)) {
		return nil
	}
	w.off, w.buf = off, slices.Grow(w.buf[:0], int(n))[:n]
	if err := readAll(w.src, w.buf, off); err != nil {
		w.buf = w.buf[:0]
		return err
	}
	return nil
}

// ReadAt implements [io.ReaderAt].
func (w *window) ReadAt(p []byte, off int64) (int, error) {
	if err := w.fetch(off, int64(len(p))); err != nil {
		return 0, err
	}
	if off < w.off || off >= w.off+int64(len(w.buf)) {
		return 0, io.EOF
	}
	n := copy(p, w.buf[off-w.off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// remembering remembers the error of its reader, because age may replace it.
type remembering struct {
	r   io.ReaderAt
	mu  sync.Mutex
	err error
}

func (r *remembering) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.r.ReadAt(p, off)
	if err != nil && err != io.EOF {
		r.mu.Lock()
		r.err = err
		r.mu.Unlock()
	}
	return n, err
}

// explain distinguishes errors of the reader from damage.
func (r *remembering) explain(verb string, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if failed := r.err; failed != nil {
		r.err = nil
		return fmt.Errorf("%s: %w", verb, failed)
	}
	return backup.Corruptf("%s: %w", verb, err)
}

// explaining is a decryption whose errors are damage, unless they are those of the source.
type explaining struct {
	io.ReaderAt
	src *remembering
}

func (e explaining) ReadAt(p []byte, off int64) (int, error) {
	n, err := e.ReaderAt.ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = e.src.explain("decrypt", err)
	}
	return n, err
}
