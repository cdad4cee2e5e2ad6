package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

// TestReaderAt_OK reads parts, also over connections that break.
func TestReaderAt_OK(t *testing.T) {
	raw := content(10_000)
	s, obj := stored(t, raw)
	for name, s := range map[string]storage.Store{"whole": s, "interrupted": interrupting(s)} {
		r := storage.ReaderAt(t.Context(), s, obj)
		for _, at := range []int64{0, 1, 5000, 9990, 10_000, 12_000} {
			part := io.NewSectionReader(r, at, max(0, min(100, 10_000-at)))
			if err := iotest.TestReader(part, raw[min(at, 10_000):min(at+100, 10_000)]); err != nil {
				t.Errorf("%s: at %d: %v", name, at, err)
			}
		}
		p := make([]byte, 100)
		if n, err := r.ReadAt(p, 9950); n != 50 || err != io.EOF || !bytes.Equal(p[:n], raw[9950:]) {
			t.Errorf("%s: over the end: %d, %v", name, n, err)
		}
		if _, err := r.ReadAt(p, -1); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: before the beginning: %v", name, err)
		}
	}
}

// TestReaderAt_Replaced: bytes of two objects never mix.
func TestReaderAt_Replaced(t *testing.T) {
	raw := content(1000)
	s, obj := stored(t, raw)
	replaced := false
	r := storage.ReaderAt(t.Context(), &storagetest.Hook{Store: s,
		Download: func(_ context.Context, _ string, _ int64, r io.Reader) io.Reader {
			if replaced {
				return tagged{r, "another"}
			}
			return r
		}}, obj)
	p := make([]byte, 10)
	if _, err := r.ReadAt(p, 5); err != nil || !bytes.Equal(p, raw[5:15]) {
		t.Fatalf("read: %v", err)
	}
	replaced = true
	if _, err := r.ReadAt(p, 50); err == nil || !strings.Contains(err.Error(), "was replaced") {
		t.Errorf("got %v", err)
	}
}
