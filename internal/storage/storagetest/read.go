package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage"
)

func testRanges(t *testing.T, s storage.Store) {
	want := content(10_000)
	create(t, s, "ranges", want)
	for _, r := range []struct{ offset, length int64 }{
		{0, -1}, {0, 0}, {0, 1}, {0, 10_000}, {0, 10_001}, {0, math.MaxInt64},
		{1, -1}, {1, 1}, {9_999, 1}, {9_999, -1}, {9_999, 2}, {5_000, 5_000}, {5_000, 6_000},
		{5_000, math.MaxInt64}, {5_000, 0},
		{10_000, -1}, {10_000, 0}, {10_000, 1}, {10_001, -1}, {20_000, 5}, {math.MaxInt64, math.MaxInt64},
	} {
		start := min(r.offset, int64(len(want)))
		end := int64(len(want))
		if r.length >= 0 && r.length < end-start {
			end = start + r.length
		}
		if got := read(t, s, "ranges", r.offset, r.length); !bytes.Equal(got, want[start:end]) {
			t.Fatalf("range [%d,%d]: got %d bytes, want %d", r.offset, r.length, len(got), end-start)
		}
	}
	create(t, s, "empty", nil)
	for _, r := range []struct{ offset, length int64 }{{0, -1}, {0, 0}, {0, 5}, {3, -1}, {3, 5}} {
		if got := read(t, s, "empty", r.offset, r.length); len(got) != 0 {
			t.Fatalf("range [%d,%d] of nothing: %d bytes", r.offset, r.length, len(got))
		}
	}
	_, err := s.Open(t.Context(), "ranges", -1, 5)
	wantErr(t, "negative offset", err, fs.ErrInvalid)
}

func testMissing(t *testing.T, s storage.Store) {
	create(t, s, "there/object", content(1))
	for _, key := range []string{
		"missing", "there", "there/objec", "there/object2", "there/object/below", "no/such/folder",
	} {
		_, err := s.Stat(t.Context(), key)
		wantErr(t, "stat "+key, err, fs.ErrNotExist)
		for _, r := range [][2]int64{{0, -1}, {0, 0}, {5, 5}} {
			_, err = s.Open(t.Context(), key, r[0], r[1])
			wantErr(t, "open "+key, err, fs.ErrNotExist)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatalf("delete %s: %v", key, err)
		}
	}
	wantKeys(t, s, "", "there/object")
	wantKeys(t, s, "missing")
	wantKeys(t, s, "no/such/folder/")
}

func testBadKeys(t *testing.T, s storage.Store) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\x00b", "a\nb", `a\b`,
		"a\xffb", strings.Repeat("x", 256), strings.Repeat("x/", 600) + "x",
	} {
		wantErr(t, "create", s.Create(t.Context(), key, strings.NewReader("x")), fs.ErrInvalid)
		_, err := s.Open(t.Context(), key, 0, -1)
		wantErr(t, "open", err, fs.ErrInvalid)
		_, err = s.Stat(t.Context(), key)
		wantErr(t, "stat", err, fs.ErrInvalid)
		wantErr(t, "delete", s.Delete(t.Context(), key), fs.ErrInvalid)
	}
	for _, prefix := range []string{"../", "/", "a//", "a/../"} {
		wantKeys(t, s, prefix)
	}
}

// testETag checks that a reader has the same ETag as Stat, if there is one, and
// that an object created again has another.
func testETag(t *testing.T, s storage.Store) {
	etag := func() string {
		t.Helper()
		o, err := s.Stat(t.Context(), "object")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range [][2]int64{{0, -1}, {5, 5}} {
			body, err := s.Open(t.Context(), "object", r[0], r[1])
			if err != nil {
				t.Fatal(err)
			}
			if got := storage.ETag(body); got != o.ETag {
				t.Fatalf("open %v has ETag %q, stat %q", r, got, o.ETag)
			}
			if err := body.Close(); err != nil {
				t.Fatal(err)
			}
		}
		return o.ETag
	}
	create(t, s, "object", content(100))
	first := etag()
	if err := s.Delete(t.Context(), "object"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "object", content(101))
	if second := etag(); first != "" && first == second {
		t.Fatalf("two objects have ETag %q", first)
	}
}

func testCancelled(t *testing.T, s storage.Store) {
	create(t, s, "there", content(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, "create", s.Create(ctx, "new", strings.NewReader("x")), context.Canceled)
	_, err := s.Open(ctx, "there", 0, -1)
	wantErr(t, "open", err, context.Canceled)
	_, err = s.Stat(ctx, "there")
	wantErr(t, "stat", err, context.Canceled)
	wantErr(t, "delete", s.Delete(ctx, "there"), context.Canceled)
	yields := 0
	for _, err := range s.List(ctx, "", "") {
		yields++
		wantErr(t, "list", err, context.Canceled)
	}
	if yields != 1 {
		t.Fatalf("list yielded %d times, want its error once", yields)
	}
	wantKeys(t, s, "", "there")
}

func testOpenCancelled(t *testing.T, s storage.Store) {
	create(t, s, "big", content(10<<20))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Open(ctx, "big", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.Copy(io.Discard, r)
	wantErr(t, "read", err, context.Canceled)
}

func testListOrder(t *testing.T, s storage.Store) {
	want := createListed(t, s)
	for _, prefix := range []string{
		"", "a", "a-", "a/", "ab", "ab/", "ab/c", "ab/c/", "ab/c/d", "b/1", "c d/", "zz", "日本/",
	} {
		var matching []string
		for _, key := range want {
			if strings.HasPrefix(key, prefix) {
				matching = append(matching, key)
			}
		}
		wantKeys(t, s, prefix, matching...)
	}
}

// createListed creates objects whose keys sort differently in the tree of a file
// system, and returns them in order.
func createListed(t *testing.T, s storage.Store) []string {
	t.Helper()
	all := []string{
		"a", "a-b", "a.b", "a0/x", "a0x", "ab/c-d", "ab/c/d", "ab/c/d2/e", "ab/c0", "b/1", "b/10", "b/2",
		"c d/e f", "c+d", "c=d", "k8s_1/snapshots/x.json", "ä", "日本/語",
	}
	slices.Sort(all) // bytewise
	for i := range all {
		create(t, s, all[(i*7)%len(all)], content(1)) // 7 and 18 have no common factor
	}
	return all
}

// testListAfter begins listings at each key, between keys, in the middle of
// folders, and before and behind the prefix.
func testListAfter(t *testing.T, s storage.Store) {
	all := createListed(t, s)
	afters := append(slices.Clone(all),
		"0", "a-", "a/", "a/z", "a0", "a0/", "a00", "aa", "ab", "ab/", "ab/b/x", "ab/c", "ab/c/", "ab/c/d0",
		"ab/c/d2", "ab/c/d2/z", "ab/c0/", "ab/c1", "ab0", "b", "b/", "b/0", "b/1/x", "b0", "c d0", "zz",
		"日本", "日本/", "日本0")
	for _, prefix := range []string{
		"", "a", "a/", "a0", "ab", "ab/", "ab/c", "ab/c/", "ab/c/d", "b/", "b/1", "c ", "zz", "日本/",
	} {
		for _, after := range afters {
			var want []string
			for _, key := range all {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := keys(t, s, prefix, after); !slices.Equal(got, want) {
				t.Fatalf("list %q after %q: got %q, want %q", prefix, after, got, want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, after := range []string{"a", "ab/c", "zz"} {
		for _, err := range s.List(ctx, "ab/", after) {
			wantErr(t, "list after "+after, err, context.Canceled)
		}
	}
}

func testListStops(t *testing.T, s storage.Store) {
	for i := range 5 {
		create(t, s, fmt.Sprintf("x/%d", i), nil)
	}
	n := 0
	for _, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Fatalf("the loop ran %d times", n)
	}
}

// testListMany goes over several pages of any service.
func testListMany(t *testing.T, s storage.Store) {
	const many = 2100
	next := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range next {
				key := fmt.Sprintf("many/%02d/%05d", i%7, i)
				if err := s.Create(t.Context(), key, strings.NewReader("x")); err != nil {
					t.Errorf("create %s: %v", key, err)
				}
			}
		})
	}
	for i := range many {
		next <- i
	}
	close(next)
	wg.Wait()
	if got := len(keys(t, s, "many/", "")); got != many {
		t.Fatalf("listed %d objects of %d", got, many)
	}
	if got := len(keys(t, s, "many/03/", "")); got != many/7 {
		t.Fatalf("listed %d objects of %d", got, many/7)
	}
	if got := len(keys(t, s, "many/", "many/02/99999")); got != many/7*4 {
		t.Fatalf("listed %d objects of %d", got, many/7*4)
	}
}

func testDelete(t *testing.T, s storage.Store) {
	create(t, s, "d/a", content(10))
	create(t, s, "d/b", content(6<<20))
	for range 2 {
		if err := s.Delete(t.Context(), "d/a"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Stat(t.Context(), "d/a")
	wantErr(t, "stat", err, fs.ErrNotExist)
	_, err = s.Open(t.Context(), "d/a", 0, -1)
	wantErr(t, "open", err, fs.ErrNotExist)
	wantKeys(t, s, "", "d/b")
	create(t, s, "d/a", content(20))
	if got := read(t, s, "d/a", 0, -1); !bytes.Equal(got, content(20)) {
		t.Fatal("the object created again is the old one")
	}
}

func testDownload(t *testing.T, s storage.Store) {
	want := content(11<<20 + 17)
	create(t, s, "big", want)
	o, err := s.Stat(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	r := storage.Download(t.Context(), s, o)
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes, error %v", len(got), len(want), err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// testOpenParallel reads more ranges at once than a download does.
func testOpenParallel(t *testing.T, s storage.Store) {
	const part = 1 << 20
	want := content(11<<20 + 17)
	create(t, s, "big", want)
	var wg sync.WaitGroup
	for start := 0; start < len(want); start += part {
		wg.Go(func() {
			r, err := s.Open(t.Context(), "big", int64(start), part)
			if err != nil {
				t.Errorf("open from %d on: %v", start, err)
				return
			}
			got, err := io.ReadAll(r)
			err = errors.Join(err, r.Close())
			if err != nil || !bytes.Equal(got, want[start:min(start+part, len(want))]) {
				t.Errorf("from %d on: %d bytes that are not those written, error %v", start, len(got), err)
			}
		})
	}
	wg.Wait()
}
