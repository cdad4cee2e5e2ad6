package storage_test

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

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
