package spool

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/disk"
)

func makeSpool(t *testing.T, dir string) *File {
	t.Helper()
	s, err := (&Folder{Dir: dir, MinFree: disk.ReserveOf(0)}).New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestSpool_Follow: a reader sees every byte, as early as it can, and the end.
func TestSpool_Follow(t *testing.T) {
	s := makeSpool(t, t.TempDir())
	want := bytes.Repeat([]byte("0123456789"), 100_000)
	var readers sync.WaitGroup
	for range 3 {
		r := s.Reader()
		readers.Go(func() {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 77_777)
		if _, err := s.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	s.Finish(io.EOF)
	readers.Wait()
	if got, err := io.ReadAll(s.Reader()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("afterwards: got %d bytes, %v", len(got), err)
	}
}

// TestSpool_Ends: each event that must end the wait of a reader.
func TestSpool_Ends(t *testing.T) {
	lost := errors.New("member lost")
	for name, c := range map[string]struct {
		end  func(*File)
		want error
	}{
		"Failed":    {func(s *File) { s.Finish(lost) }, lost},
		"Abandoned": {func(s *File) { s.AbandonReaders() }, errReset},
		"Reset": {func(s *File) {
			if err := s.reset(0); err != nil {
				t.Error(err)
			}
		}, errReset},
	} {
		t.Run(name, func(t *testing.T) {
			s := makeSpool(t, t.TempDir())
			if _, err := s.Write([]byte("some")); err != nil {
				t.Fatal(err)
			}
			r := s.Reader()
			if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() {
				_, err := r.Read(make([]byte, 1))
				ended <- err
			}()
			c.end(s)
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestSpool_Reset(t *testing.T) {
	s := makeSpool(t, t.TempDir())
	for _, text := range []string{"the first try was longer", "the second"} {
		if err := s.reset(0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	s.Finish(io.EOF)
	raw, err := os.ReadFile(s.path)
	if got, rerr := io.ReadAll(s.Reader()); rerr != nil || err != nil || string(got) != "the second" ||
		string(raw) != "the second" {
		t.Errorf("got %q, file %q, %v, %v", got, raw, rerr, err)
	}
}

// TestSpool_Sweep: leftovers go, spools in use and foreign files stay.
func TestSpool_Sweep(t *testing.T) {
	dir := t.TempDir()
	living := makeSpool(t, dir)
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dead := write("backupd-aaaaaaaaaaaa.spool")
	foreign := []string{write("backupd-aaaaaaaaaaaa.spool.old"), write("backupd-1.spool"), write("notes.spool")}
	link := filepath.Join(dir, "backupd-bbbbbbbbbbbb.spool")
	if err := os.Symlink(foreign[0], link); err != nil {
		t.Fatal(err)
	}
	second := makeSpool(t, dir)
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover: got %v", err)
	}
	for _, path := range append(foreign, living.path, second.path, link) {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("it must stay: %v", err)
		}
	}
}

// TestSpool_Race: many processes in one folder, each of which sweeps, never remove
// spools of one another.
func TestSpool_Race(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				s, err := (&Folder{Dir: dir, MinFree: disk.ReserveOf(0)}).New(1)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(s.path); err != nil {
					t.Errorf("swept while in use: %v", err)
				}
				if err := s.Remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestSpool_NoSpace(t *testing.T) {
	dir := t.TempDir()
	if _, err := (&Folder{Dir: dir, MinFree: disk.ReserveOf(0)}).New(1 << 60); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
