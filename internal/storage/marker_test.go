package storage_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func TestRepository(t *testing.T) {
	s := mem.New()
	_, err := storage.OpenRepository(t.Context(), s)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not a backupd repository") {
		t.Fatalf("got error %v", err)
	}
	made, err := storage.InitRepository(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if made.Format != storage.MarkerFormat || len(made.ID) < 16 || made.CreatedAt.IsZero() {
		t.Fatalf("got %+v", made)
	}
	for name, open := range map[string]func(context.Context, storage.Store) (storage.Marker, error){
		"open": storage.OpenRepository, "init again": storage.InitRepository,
	} {
		if got, err := open(t.Context(), s); err != nil || got != made {
			t.Errorf("%s: got %+v, want %+v, error %v", name, got, made, err)
		}
	}
}

func TestInitRepository_Race(t *testing.T) {
	s := mem.New()
	const racers = 8
	var markers [racers]storage.Marker
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			var err error
			if markers[i], err = storage.InitRepository(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, m := range markers {
		if m != markers[0] {
			t.Fatalf("two identities: %+v and %+v", m, markers[0])
		}
	}
}

// TestInitRepository_Fails at every operation: a retry always succeeds.
func TestInitRepository_Fails(t *testing.T) {
	broken := errors.New("broken")
	for _, when := range []storagetest.When{storagetest.Before, storagetest.After} {
		for n := 0; ; n++ {
			s := mem.New()
			f := storagetest.FailAt(s, n, when, broken)
			_, err := storage.InitRepository(t.Context(), f)
			if !f.Fired() {
				break
			}
			if n > 10 {
				t.Fatal("no end")
			}
			// An answer lost after there was nothing to open is not an error.
			if err != nil && !errors.Is(err, broken) {
				t.Fatalf("operation %d: %v", n, err)
			}
			if _, err := storage.InitRepository(t.Context(), s); err != nil {
				t.Fatalf("retry after operation %d: %v", n, err)
			}
		}
	}
}

func TestOpenRepository_Refuses(t *testing.T) {
	for text, corrupt := range map[string]bool{
		"":                                   true,
		"{}":                                 true,
		"not json":                           true,
		`{"format":"backupd/repository/v1"}`: true,
		`{"format":"backupd/repository/v1","id":"short"}`: true,
		`{"format":7}`: true,
		`{"format":"backupd/repository/v1","id":7}`:                              true,
		`{"format":"backupd/repository/v2","id":{"of":"another shape"}}`:         false,
		`{"format":"backupd/repository/v1","id":"` + strings.Repeat("x", 70<<10): true,
	} {
		s := mem.New()
		if err := s.Create(t.Context(), backup.MarkerKey, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		_, err := storage.OpenRepository(t.Context(), s)
		if err == nil || errors.Is(err, backup.ErrCorrupt) != corrupt || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.60s: got error %v", text, err)
		}
		if !corrupt && !strings.Contains(err.Error(), "backupd/repository/v2") {
			t.Errorf("%.60s: got error %v", text, err)
		}
		if _, err := storage.InitRepository(t.Context(), s); err == nil {
			t.Errorf("%.60s: was initialized over", text)
		}
	}
}

func TestWithObserver(t *testing.T) {
	var events []storage.Event
	s := storage.WithObserver(mem.New(), func(e storage.Event) { events = append(events, e) })
	if err := s.Create(t.Context(), "key", strings.NewReader("12345")); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "key", 1, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = s.Open(t.Context(), "missing", 0, -1)
	_, _ = s.Stat(t.Context(), "missing")
	for range s.List(t.Context(), "k", "") {
		break
	}
	_ = s.Delete(t.Context(), "key")
	want := []storage.Event{
		{Op: storage.OpCreate, Key: "key", Bytes: 5},
		{Op: storage.OpOpen, Key: "key", Bytes: 3},
		{Op: storage.OpOpen, Key: "missing", Err: fs.ErrNotExist},
		{Op: storage.OpStat, Key: "missing", Err: fs.ErrNotExist},
		{Op: storage.OpList, Key: "k"},
		{Op: storage.OpDelete, Key: "key"},
	}
	if len(events) != len(want) {
		t.Fatalf("got %d events, want %d: %+v", len(events), len(want), events)
	}
	for i, w := range want {
		e := events[i]
		if e.Op != w.Op || e.Key != w.Key || e.Bytes != w.Bytes || !errors.Is(e.Err, w.Err) || e.Duration <= 0 {
			t.Errorf("event %d: got %+v, want %+v", i, e, w)
		}
	}
}
