package file

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// roomy is a store on a file system of 1000 MiB with a reserve of 100 MiB.
func roomy(t *testing.T, free func() int64) *Store {
	t.Helper()
	s := NewWithReserve(t.TempDir(), disk.RepositoryReserve{Reserve: disk.ReserveOf(100 << 20)})
	s.room.space = func(string) (disk.FileSystem, error) {
		return disk.FileSystem{Total: 1000 << 20, Free: free()}, nil
	}
	return s
}

// counted counts what was read of it.
type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func wantNoRoom(t *testing.T, s *Store, err error, keep string) {
	t.Helper()
	var hint *backup.HintError
	want := keep + " must stay free on the file system of the repository"
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &hint) || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, hint %v", err, hint)
	}
	if left := files(t, s.root); len(left) != 0 {
		t.Errorf("%q is left", left)
	}
}

// TestRoom_Begin: an object is not begun below the reserve, and a small one not below a
// tenth of it. Removals need no room.
func TestRoom_Begin(t *testing.T) {
	var free int64
	s := roomy(t, func() int64 { return free })
	large := make([]byte, smallObject)
	for _, c := range []struct {
		free    int64
		object  []byte
		refused string
	}{
		{100 << 20, large, ""},
		{100<<20 - 1, large, "100 MiB"},
		{100<<20 - 1, large[1:], ""},
		{10 << 20, large[1:], ""},
		{10<<20 - 1, large[1:], "10 MiB"},
		{0, nil, "10 MiB"},
	} {
		free = c.free
		r := &counted{r: bytes.NewReader(append(c.object, make([]byte, len(c.object)/smallObject<<20)...))}
		err := s.Create(t.Context(), "c1/data/x", r)
		if c.refused != "" {
			wantNoRoom(t, s, err, c.refused)
			if r.n > smallObject {
				t.Errorf("%d bytes were read of an object that cannot be stored", r.n)
			}
			continue
		}
		if err != nil {
			t.Errorf("%d free: %v", c.free, err)
		}
		free = 0
		if err := s.Delete(t.Context(), "c1/data/x"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}

// TestRoom_MidWrite: others take the room while an object is written. What was written goes
// at once.
func TestRoom_MidWrite(t *testing.T) {
	looks := 0
	s := roomy(t, func() int64 {
		looks++
		if looks > 3 {
			return 100<<20 - 1
		}
		return 200 << 20
	})
	r := &counted{r: io.LimitReader(zeros{}, 64<<20)}
	err := s.Create(t.Context(), "c1/data/x", r)
	wantNoRoom(t, s, err, "100 MiB")
	if r.n < 3*lookEvery || r.n > 3*lookEvery+(1<<20) {
		t.Errorf("stopped after %d bytes", r.n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestRoom_Unknown: some file systems in user space say nothing about themselves.
func TestRoom_Unknown(t *testing.T) {
	s := roomy(t, nil)
	s.room.space = func(string) (disk.FileSystem, error) { return disk.FileSystem{}, nil }
	if err := s.Create(t.Context(), "x", io.LimitReader(zeros{}, 9<<20)); err != nil {
		t.Error(err)
	}
	s.room.space = func(string) (disk.FileSystem, error) { return disk.FileSystem{}, unix.EIO }
	if err := s.Create(t.Context(), "y", strings.NewReader("y")); !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v", err)
	}
}
