package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage"
)

func testRoundTrip(t *testing.T, s storage.Store) {
	before := time.Now()
	want := content(12345)
	create(t, s, "c1/data/one.db.zst", want)
	if got := read(t, s, "c1/data/one.db.zst", 0, -1); !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes that are not the %d written", len(got), len(want))
	}
	o, err := s.Stat(t.Context(), "c1/data/one.db.zst")
	if err != nil {
		t.Fatal(err)
	}
	if o.Key != "c1/data/one.db.zst" || o.Size != int64(len(want)) {
		t.Fatalf("stat: got %+v", o)
	}
	// Stores keep seconds, and clocks differ a little.
	if age := o.ModTime.Sub(before); age < -time.Minute || age > time.Minute {
		t.Fatalf("stat: object is %v old", age)
	}
	for listed, err := range s.List(t.Context(), "c1/", "") {
		if err != nil {
			t.Fatal(err)
		}
		sameTime := listed.ModTime.Unix() == o.ModTime.Unix()
		if listed.Key != o.Key || listed.Size != o.Size || !sameTime || listed.ETag != o.ETag {
			t.Fatalf("list says %+v, stat says %+v", listed, o)
		}
	}
}

// testSizes crosses the boundaries of every buffer and part there could be.
func testSizes(t *testing.T, s storage.Store) {
	const mib = 1 << 20
	for _, n := range []int{0, 1, 511, 32<<10 - 1, 64<<10 - 1, 64 << 10, 64<<10 + 1,
		5*mib - 1, 5 * mib, 5*mib + 1, 10 * mib, 10*mib + 1, 11 * mib} {
		key := fmt.Sprintf("sizes/%d", n)
		want := content(n)
		create(t, s, key, want)
		if o, err := s.Stat(t.Context(), key); err != nil || o.Size != int64(n) {
			t.Fatalf("stat %s: size %d, error %v", key, o.Size, err)
		}
		if got := read(t, s, key, 0, -1); !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: read %d that are not those written", n, len(got))
		}
	}
}

func testCreateTwice(t *testing.T, s storage.Store) {
	for _, n := range []int{100, 6 << 20} {
		key := fmt.Sprintf("twice/%d", n)
		want := content(n)
		create(t, s, key, want)
		before, err := s.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for _, again := range [][]byte{want, content(n + 1), nil} {
			wantErr(t, "create again", s.Create(t.Context(), key, bytes.NewReader(again)), fs.ErrExist)
		}
		after, err := s.Stat(t.Context(), key)
		if err != nil || after != before {
			t.Fatalf("object changed from %+v to %+v, error %v", before, after, err)
		}
		if got := read(t, s, key, 0, -1); !bytes.Equal(got, want) {
			t.Fatal("content changed")
		}
	}
	wantKeys(t, s, "", "twice/100", "twice/6291456")
}

func testCreateRace(t *testing.T, s storage.Store) {
	for _, n := range []int{1000, 6 << 20} {
		const racers = 8
		key := fmt.Sprintf("race/%d", n)
		errs := make([]error, racers)
		var wg sync.WaitGroup
		for i := range racers {
			wg.Go(func() { errs[i] = s.Create(t.Context(), key, bytes.NewReader(content(n+i))) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatalf("%d bytes: both %d and %d created the object", n, winner, i)
			default:
				wantErr(t, "the loser", err, fs.ErrExist)
			}
		}
		if winner < 0 {
			t.Fatalf("%d bytes: the object was not created", n)
		}
		if got := read(t, s, key, 0, -1); !bytes.Equal(got, content(n+winner)) {
			t.Fatalf("%d bytes: the object is not the winner's", n)
		}
	}
}

func testCreateReaderFails(t *testing.T, s storage.Store) {
	// A source that was cut is the one most easily taken for one that ended.
	for _, broken := range []error{errors.New("the source broke"), io.ErrUnexpectedEOF} {
		for _, n := range []int{0, 1, 100_000, 6 << 20, 10 << 20, 11 << 20} {
			key := fmt.Sprintf("fails/%d", n)
			wantErr(t, key, s.Create(t.Context(), key, &failingReader{left: n, err: broken}), broken)
			_, err := s.Stat(t.Context(), key)
			wantErr(t, "stat "+key, err, fs.ErrNotExist)
		}
	}
	wantKeys(t, s, "")
	// A failed attempt must not hinder the next one.
	create(t, s, "fails/1", content(10))
}

func testCreateCancelled(t *testing.T, s storage.Store) {
	for _, n := range []int{1, 100_000, 6 << 20, 11 << 20} {
		key := fmt.Sprintf("cancelled/%d", n)
		ctx, cancel := context.WithCancel(t.Context())
		wantErr(t, key, s.Create(ctx, key, &cancellingReader{left: n, cancel: cancel}), context.Canceled)
		_, err := s.Stat(t.Context(), key)
		wantErr(t, "stat "+key, err, fs.ErrNotExist)
	}
	// Cancelled with the last byte: whole or absent, and the answer is true.
	for _, n := range []int{1000, 6 << 20} {
		key := fmt.Sprintf("late/%d", n)
		ctx, cancel := context.WithCancel(t.Context())
		want := content(n)
		err := s.Create(ctx, key, io.MultiReader(bytes.NewReader(want), &cancelAtEnd{cancel}))
		if err != nil {
			wantErr(t, key, err, context.Canceled)
			_, err = s.Stat(t.Context(), key)
			wantErr(t, "stat "+key, err, fs.ErrNotExist)
		} else if got := read(t, s, key, 0, -1); !bytes.Equal(got, want) {
			t.Fatalf("%s: created, but not whole", key)
		}
	}
}

type cancelAtEnd struct{ cancel context.CancelFunc }

func (c *cancelAtEnd) Read([]byte) (int, error) {
	c.cancel()
	return 0, io.EOF
}

func testCreateParallel(t *testing.T, s storage.Store) {
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			key, want := fmt.Sprintf("parallel/%d/object", i), content(i*2<<20+i)
			if err := s.Create(t.Context(), key, bytes.NewReader(want)); err != nil {
				t.Errorf("create %s: %v", key, err)
				return
			}
			r, err := s.Open(t.Context(), key, 0, -1)
			if err != nil {
				t.Errorf("open %s: %v", key, err)
				return
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %s: %d of %d bytes, error %v", key, len(got), len(want), err)
			}
		})
	}
	wg.Wait()
}
