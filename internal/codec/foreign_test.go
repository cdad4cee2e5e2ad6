package codec_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
)

// TestNewZstdReader reads what other programs write: frames that depend on nothing of ours, one
// after the other, up to a bound of memory.
func TestNewZstdReader(t *testing.T) {
	want := bytes.Repeat([]byte("what was taken long ago. "), 1<<18)
	var b bytes.Buffer
	for _, part := range [][]byte{want[:1000], want[1000:]} {
		w, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	read := func(raw []byte) ([]byte, error) {
		r, err := codec.NewZstdReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		return io.ReadAll(r)
	}
	if got, err := read(b.Bytes()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes and %v, want %d", len(got), err, len(want))
	}
	if _, err := read(b.Bytes()[:b.Len()-9]); err == nil {
		t.Error("a stream without its end is read")
	}
	// A frame of raw bytes whose window is 512 MiB.
	if _, err := read([]byte("\x28\xb5\x2f\xfd\x00\x98\x09\x00\x00a")); !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("a window of 512 MiB: %v", err)
	}
}
