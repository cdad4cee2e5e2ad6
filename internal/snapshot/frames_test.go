package snapshot_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/file"
)

// framed are stored bytes, cut into frames as their seek table says.
type framed struct {
	frames [][]byte
	plain  []uint32 // bytes in each
}

func cutFrames(stored []byte) (f framed) {
	order := binary.LittleEndian
	n := int(order.Uint32(stored[len(stored)-9:]))
	entries := stored[len(stored)-9-12*n:]
	for range n {
		size := order.Uint32(entries)
		f.frames, f.plain = append(f.frames, stored[:size]), append(f.plain, order.Uint32(entries[4:]))
		stored, entries = stored[size:], entries[12:]
	}
	return f
}

// table returns the seek table of the frames.
func (f framed) table() []byte {
	order := binary.LittleEndian
	out := order.AppendUint32(nil, 0x184D2A5E)
	out = order.AppendUint32(out, uint32(12*len(f.frames)+9))
	for i, frame := range f.frames {
		out = order.AppendUint32(order.AppendUint32(out, uint32(len(frame))), f.plain[i])
		out = append(out, frame[len(frame)-4:]...)
	}
	out = append(order.AppendUint32(out, uint32(len(f.frames))), 0x80)
	return order.AppendUint32(out, 0x8F92EAB1)
}

// swap exchanges two frames.
func (f framed) swap(a, b int) framed {
	f = framed{slices.Clone(f.frames), slices.Clone(f.plain)}
	f.frames[a], f.frames[b] = f.frames[b], f.frames[a]
	f.plain[a], f.plain[b] = f.plain[b], f.plain[a]
	return f
}

// change compresses one frame again, with one bit of its content changed: all its checksums fit.
func (f framed) change(t *testing.T, at int) framed {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(f.frames[at], nil)
	if err != nil {
		t.Fatal(err)
	}
	plain[len(plain)/2] ^= 1
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	f.frames = slices.Clone(f.frames)
	f.frames[at] = enc.EncodeAll(plain, nil)
	return f
}

// tamperings are what somebody may do to stored frames who knows the format.
var tamperings = []struct {
	name   string
	tamper func(t *testing.T, f framed) (frames, table []byte)
}{
	{"NoTable", func(_ *testing.T, f framed) ([]byte, []byte) { return slices.Concat(f.frames...), nil }},
	{"TableOfFewer", func(_ *testing.T, f framed) ([]byte, []byte) {
		return slices.Concat(f.frames...), framed{f.frames[1:], f.plain[1:]}.table()
	}},
	{"TableInOtherOrder", func(_ *testing.T, f framed) ([]byte, []byte) {
		return slices.Concat(f.frames...), f.swap(0, 1).table()
	}},
	{"StoredSizes", func(_ *testing.T, f framed) ([]byte, []byte) { return entryChanged(f, 0) }},
	{"PlainSizes", func(_ *testing.T, f framed) ([]byte, []byte) { return entryChanged(f, 4) }},
	{"Checksum", func(_ *testing.T, f framed) ([]byte, []byte) { return entryChanged(f, 8) }},
	{"Order", func(_ *testing.T, f framed) ([]byte, []byte) {
		return slices.Concat(f.swap(0, 1).frames...), f.table()
	}},
	{"OrderAndTable", func(_ *testing.T, f framed) ([]byte, []byte) {
		f = f.swap(0, 1)
		return slices.Concat(f.frames...), f.table()
	}},
	{"FrameTwice", func(_ *testing.T, f framed) ([]byte, []byte) {
		f = framed{slices.Insert(slices.Clone(f.frames), 1, f.frames[1]), slices.Insert(slices.Clone(f.plain), 1, f.plain[1])}
		return slices.Concat(f.frames...), f.table()
	}},
	{"FrameMissing", func(_ *testing.T, f framed) ([]byte, []byte) {
		f = framed{slices.Delete(slices.Clone(f.frames), 1, 2), slices.Delete(slices.Clone(f.plain), 1, 2)}
		return slices.Concat(f.frames...), f.table()
	}},
	{"Frame", func(t *testing.T, f framed) ([]byte, []byte) {
		return slices.Concat(f.change(t, 1).frames...), f.table()
	}},
	{"FrameAndTable", func(t *testing.T, f framed) ([]byte, []byte) {
		f = f.change(t, 1)
		return slices.Concat(f.frames...), f.table()
	}},
	{"FrameSum", func(_ *testing.T, f framed) ([]byte, []byte) {
		f.frames = slices.Clone(f.frames)
		f.frames[1] = bytes.Clone(f.frames[1])
		f.frames[1][len(f.frames[1])-1] ^= 1
		return slices.Concat(f.frames...), f.table()
	}},
	{"Behind", func(_ *testing.T, f framed) ([]byte, []byte) {
		return slices.Concat(f.frames...), append(f.table(), f.frames[0]...)
	}},
}

// entryChanged moves one from the second entry of the table to the first, so that sums stay.
func entryChanged(f framed, at int) (frames, table []byte) {
	table = f.table()
	table[8+at]++
	table[8+12+at]--
	return slices.Concat(f.frames...), table
}

// testFrames tampers with frames and with their table, in two ways: as a disk or a stranger would,
// and so that all sums of the manifest of stored bytes fit and its seal, too. The sum of the plain
// bytes is etcd's own. Verify must name each, and reading must refuse it.
func testFrames(t *testing.T, taker *taker, dir string, ids ...age.Identity) int {
	t.Helper()
	m := take(t, taker)
	s := subject{store: file.New(dir), dir: dir, ids: ids, m: m}
	manifest, stored := s.read(t, m.Key()), s.read(t, m.DataKey())
	raw, seal := stored, func(b []byte) []byte { return b }
	if m.Encoding.Encryption != "" {
		raw, seal = decrypt(t, stored, ids[0]), func(b []byte) []byte { return encrypt(t, b, ids[0]) }
	}
	f := cutFrames(raw)
	if len(f.frames) < 3 || !bytes.Equal(append(slices.Concat(f.frames...), f.table()...), raw) {
		t.Fatalf("%d frames, and the rest is not their table", len(f.frames))
	}
	for _, c := range tamperings {
		frames, table := c.tamper(t, f)
		damaged := seal(append(bytes.Clone(frames), table...))
		s.write(t, m.DataKey(), damaged)
		want := backup.Changed
		if len(damaged) != len(stored) {
			want = backup.Truncated
		}
		if err := s.check(t, m.DataKey(), want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}

		lying := *m
		lying.Stored = backup.Blob{Bytes: int64(len(damaged)), SHA256: sha256.Sum256(damaged)}
		lying.Table = &backup.Blob{Bytes: int64(len(table)), SHA256: sha256.Sum256(table)}
		if len(table) == 0 {
			lying.Table = m.Table
		}
		s.write(t, m.Key(), []byte(marshal(t, &lying)))
		s.m = &lying
		if err := s.checkContent(t); err != nil {
			t.Errorf("%s, with sums that fit: %v", c.name, err)
		}
		s.m = m
		s.write(t, m.Key(), manifest)
		s.write(t, m.DataKey(), stored)
	}
	if err := verify(t, s.store, m, ids...); err != nil {
		t.Errorf("after everything was put right: %v", err)
	}
	return 2 * len(tamperings)
}

// checkContent verifies and reads a snapshot whose stored bytes are those of the manifest.
func (s subject) checkContent(t *testing.T) error {
	t.Helper()
	var defect *backup.DefectError
	err := verify(t, s.store, s.m, s.ids...)
	if !errors.As(err, &defect) || defect.Kind != backup.Content || defect.Key != s.m.DataKey() {
		return errors.Join(errors.New("verify: want another content"), err)
	}
	v := newVerifier(s.store, s.m.Cluster, t.TempDir())
	v.Depth = snapshot.StoredOnly
	if _, err := v.Verify(t.Context(), item(s.m)); err != nil {
		return errors.Join(errors.New("verify without identity: the stored bytes are those of the manifest"), err)
	}
	if _, err := readData(t.Context(), s.store, s.m, s.ids...); !errors.Is(err, backup.ErrCorrupt) {
		return errors.Join(errors.New("read: want damage"), err)
	}
	return nil
}

func decrypt(t *testing.T, raw []byte, id age.Identity) []byte {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(raw), id)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func encrypt(t *testing.T, raw []byte, id age.Identity) []byte {
	t.Helper()
	enc, err := codec.NewEncoder(bytes.NewReader(raw),
		codec.Options{Recipients: encryptTo(t, id.(*age.X25519Identity).Recipient().String()).Recipients})
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(enc); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
