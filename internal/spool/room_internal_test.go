package spool

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// tooMuch is a reserve that no file system has.
var tooMuch = disk.ReserveOf(1 << 60)

// TestNew_Reserve: a spool that would cross the reserve is not begun, and the error says
// what to do. What waits is no reason to go on.
func TestNew_Reserve(t *testing.T) {
	dir := t.TempDir()
	newest := putPending(t, dir, begun(time.Now()))
	folder := Folder{Dir: dir, Keep: true, MinFree: tooMuch, Setting: "daemon.spool.min-free"}
	_, err := folder.New(1)
	var hint *backup.HintError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "daemon.spool.min-free") ||
		!strings.Contains(err.Error(), "must stay free") {
		t.Errorf("got %v", err)
	}
	wantFiles(t, dir, newest, pendingPath(newest))

	folder.MinFree = disk.ReserveOf(0)
	s, err := folder.New(1)
	if err != nil {
		t.Fatal(err)
	}
	folder.MinFree = tooMuch
	for what, err := range map[string]error{
		"grown since": folder.Begin(s, 1), "taken meanwhile": (room{&folder}).allot(s, 1),
		"no room": (room{&folder}).prepare(0),
	} {
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "must stay free") {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
}

// TestMakeWay: what waits gives way to the reserve, the oldest first, and the newest of
// each cluster last. Each is an error in the log. A spool in use stays.
func TestMakeWay(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	var log strings.Builder
	folder := Folder{Dir: dir, Keep: true, MinFree: disk.ReserveOf(0), Log: slog.New(slog.NewTextHandler(&log, nil))}
	put := func(cluster string, age time.Duration) string {
		p := begun(now.Add(-age))
		p.Capture.Cluster = cluster
		return putPending(t, dir, p)
	}
	last, first, second := put("b", 4*time.Hour), put("a", 3*time.Hour), put("a", 2*time.Hour)
	end, held, unknown := put("a", time.Hour), put("c", 5*time.Hour), put("a", 9*time.Hour)
	if err := os.WriteFile(pendingPath(unknown), []byte(`{"format": "backupd/pending/v9"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := folder.Claim(Pending{Path: held})
	if err != nil {
		t.Fatal(err)
	}
	if err := folder.MakeWay(); err != nil || log.Len() > 0 {
		t.Errorf("with room: got %v, %s", err, log.String())
	}
	if err := (room{&folder}).dropWaiting(1, "test"); err != nil || strings.Count(log.String(), "dropped") != 1 {
		t.Errorf("one is enough: got %v, %s", err, log.String())
	}
	folder.MinFree = tooMuch
	if err := folder.MakeWay(); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir, held, pendingPath(held))
	var order []string
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "level=ERROR") {
			t.Errorf("no error: %s", line)
		}
		for _, path := range []string{last, first, second, end, unknown} {
			if strings.Contains(line, path) {
				order = append(order, path)
			}
		}
	}
	if want := []string{first, second, unknown, last, end}; !slices.Equal(order, want) {
		t.Errorf("they went in the order %q, want %q", order, want)
	}
	if err := file.Remove(); err != nil {
		t.Error(err)
	}
}

// TestLevels: what can be had again for the least gives way first.
func TestLevels(t *testing.T) {
	l := levelsOf(1000)
	if !slices.IsSorted([]int64{0, l.uploads, l.streams, l.waiting, l.copies, l.begin}) ||
		l.streams != 1000 || l.waiting == l.streams || l.uploads == l.streams || l.copies == l.waiting {
		t.Errorf("got %+v", l)
	}
	s := makeSpool(t, t.TempDir())
	if got := (guard{s, nil}).level(l); got != l.copies {
		t.Errorf("a copy: %d", got)
	}
	if err := s.reset(1); err != nil {
		t.Fatal(err)
	}
	if got := (guard{s, nil}).level(l); got != l.streams {
		t.Errorf("a stream: %d", got)
	}
	if s.Finish(io.EOF); (guard{s, nil}).level(l) != l.uploads {
		t.Errorf("an upload: %d", (guard{s, nil}).level(l))
	}
}

// TestGuard: a spool in use gives way too. All who use it end, with the reason, and its
// space is free at once.
func TestGuard(t *testing.T) {
	for what, end := range map[string]error{"stream": nil, "upload": io.EOF} {
		t.Run(what, func(t *testing.T) {
			var log strings.Builder
			folder := Folder{Dir: t.TempDir(), MinFree: disk.ReserveOf(0), Log: slog.New(slog.NewTextHandler(&log, nil))}
			s, err := folder.New(1 << 20)
			if err != nil {
				t.Fatal(err)
			}
			if err := folder.Begin(s, 1<<20); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
			if err := s.Remember("r", begun(time.Now()).Capture); err != nil {
				t.Fatal(err)
			}
			if s.Finish(end); s.GaveWay() != nil {
				t.Error("it gave way without a reason")
			}
			s.folder.MinFree = tooMuch // the disk has filled
			ctx, stop := s.Guard(t.Context())
			<-ctx.Done()
			for who, err := range map[string]error{
				"the context": context.Cause(ctx), "the file": s.GaveWay(), "a reader": readAll(s), "a writer": write(s),
				"a memory": s.Remember("r", begun(time.Now()).Capture),
			} {
				if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "the spool gave way") {
					t.Errorf("%s: got %v", who, err)
				}
			}
			stop()
			if n, err := folder.Bytes(); err != nil || n != 0 {
				t.Errorf("it takes %d bytes, %v", n, err)
			}
			if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), s.Path()) {
				t.Errorf("logged: %s", log.String())
			}
			wantFiles(t, folder.Dir, s.Path()) // nobody takes it for pending
			if err := s.Remove(); err != nil {
				t.Error(err)
			}
		})
	}
}

func readAll(s *File) error {
	_, err := io.ReadAll(s.Reader())
	return err
}

func write(s *File) error {
	_, err := s.Write([]byte("x"))
	return err
}

// TestFolder_Room: the numbers are those of the file system.
func TestFolder_Room(t *testing.T) {
	folder := Folder{Dir: filepath.Join(t.TempDir(), "missing")}
	if _, _, err := folder.Room(); !errors.Is(err, os.ErrNotExist) || folder.MakeWay() == nil {
		t.Errorf("of no folder: %v", err)
	}
}
