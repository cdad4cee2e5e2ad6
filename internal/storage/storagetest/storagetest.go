// Package storagetest is the law for implementations of storage.Store: [Run]
// is the conformance suite, run on each of them. It also has wrappers for the
// tests of other packages: a [Hook] does something at an operation, [FailAt] lets
// the n-th operation fail, [Trace] records the order of operations.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// Run tests that the stores open returns obey the contract of [storage.Store].
// open is called once for each subtest and must return an empty store that
// exists; its own checks, of what a test left behind, go into t.Cleanup.
//
// Objects of up to 11 MiB are written: an implementation that stores large
// ones in parts should be opened with parts of 5 MiB.
func Run(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, storage.Store)
	}{
		{"RoundTrip", testRoundTrip},
		{"Sizes", testSizes},
		{"Ranges", testRanges},
		{"Missing", testMissing},
		{"BadKeys", testBadKeys},
		{"ETag", testETag},
		{"CreateTwice", testCreateTwice},
		{"CreateRace", testCreateRace},
		{"CreateReaderFails", testCreateReaderFails},
		{"CreateCancelled", testCreateCancelled},
		{"CreateParallel", testCreateParallel},
		{"Cancelled", testCancelled},
		{"OpenParallel", testOpenParallel},
		{"OpenCancelled", testOpenCancelled},
		{"ListOrder", testListOrder},
		{"ListAfter", testListAfter},
		{"ListStops", testListStops},
		{"ListMany", testListMany},
		{"Delete", testDelete},
		{"Download", testDownload},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// noise is the source of all content. To make it for each test would take longer
// than the tests, above all under the race detector.
var noise = sync.OnceValue(func() []byte {
	raw := make([]byte, 12<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	return raw
})

// content returns n bytes, at most 11 MiB, that are the same for the same n and
// differ at every place where two parts or two objects could be confused. They
// must not be changed.
func content(n int) []byte {
	start := n % 1000
	return noise()[start : start+n : start+n]
}

func create(t *testing.T, s storage.Store, key string, raw []byte) {
	t.Helper()
	// Not a bytes.Reader: a store gets a stream, which cannot be rewound.
	if err := s.Create(t.Context(), key, io.MultiReader(bytes.NewReader(raw))); err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
}

func read(t *testing.T, s storage.Store, key string, offset, length int64) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key, offset, length)
	if err != nil {
		t.Fatalf("open %s [%d,%d]: %v", key, offset, length, err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("read %s [%d,%d]: %v", key, offset, length, err)
	}
	return raw
}

// keys lists s and checks that it is in order.
func keys(t *testing.T, s storage.Store, prefix, after string) []string {
	t.Helper()
	var got []string
	last := after
	for o, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		if o.Key <= last {
			t.Fatalf("list %q after %q: %q comes after %q", prefix, after, o.Key, last)
		}
		if !strings.HasPrefix(o.Key, prefix) {
			t.Fatalf("list %q after %q: %q", prefix, after, o.Key)
		}
		last = o.Key
		got = append(got, o.Key)
	}
	return got
}

func wantKeys(t *testing.T, s storage.Store, prefix string, want ...string) {
	t.Helper()
	got := keys(t, s, prefix, "")
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("list %q: got %q, want %q", prefix, got, want)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want one that wraps %v", what, got, want)
	}
}

// failingReader yields some bytes and then err.
type failingReader struct {
	left int
	err  error
}

func (r *failingReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, r.err
	}
	n := min(len(p), r.left)
	r.left -= n
	return n, nil
}

// cancellingReader cancels a context after some bytes and goes on for ever.
type cancellingReader struct {
	left   int
	cancel context.CancelFunc
}

func (r *cancellingReader) Read(p []byte) (int, error) {
	if r.left -= len(p); r.left <= 0 {
		r.cancel()
	}
	return len(p), nil
}
