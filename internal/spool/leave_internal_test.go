package spool

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestLeave_NotDurable: a spool that stays is synced. If that fails it is pending all
// the same, and the error says that it may not survive a power cut.
func TestLeave_NotDurable(t *testing.T) {
	folder := Folder{Dir: t.TempDir(), Keep: true, MinFree: disk.ReserveOf(0)}
	s, err := folder.New(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remember("r", begun(time.Now()).Capture); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe() // which cannot be synced
	if err := errors.Join(err, r.Close(), s.f.Close()); err != nil {
		t.Fatal(err)
	}
	s.f = w
	if left, err := s.Leave(errors.New("no route to host")); !errors.Is(err, unix.EINVAL) || left.Tries != 1 {
		t.Errorf("got %+v, %v, want the error of the sync", left, err)
	}
	if waiting, err := folder.Waiting(); err != nil || len(waiting) != 1 || waiting[0].Tries != 1 {
		t.Errorf("waiting: %+v, %v", waiting, err)
	}
}

// TestLeave_Record: the file beside a spool is never written in place: a power cut
// would leave half of it, and the snapshot would be lost.
func TestLeave_Record(t *testing.T) {
	folder := Folder{Dir: t.TempDir(), Keep: true, MinFree: disk.ReserveOf(0)}
	s, err := folder.New(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remember("r", begun(time.Now()).Capture); err != nil {
		t.Fatal(err)
	}
	before, berr := os.Stat(pendingPath(s.path))
	_, lerr := s.Leave(errors.New("no route to host"))
	after, aerr := os.Stat(pendingPath(s.path))
	if err := errors.Join(berr, lerr, aerr); err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, after) {
		t.Error("it was written in place")
	}
}

// TestClaim_Exposed: since it was listed, another user may have got at the spool or at
// the file beside it.
func TestClaim_Exposed(t *testing.T) {
	folder := Folder{Dir: t.TempDir(), Keep: true, MinFree: disk.ReserveOf(0)}
	path := putPending(t, folder.Dir, begun(time.Now()))
	all, err := folder.All()
	if err != nil || len(all) != 1 {
		t.Fatalf("got %+v, %v", all, err)
	}
	for _, exposed := range []string{path, pendingPath(path)} {
		if err := os.Chmod(exposed, 0o622); err != nil {
			t.Fatal(err)
		}
		if s, err := folder.Claim(all[0]); err == nil || !strings.Contains(err.Error(), "nobody else may") {
			t.Errorf("%s: got %v, %v", filepath.Base(exposed), s, err)
		}
		if err := os.Chmod(exposed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := folder.Claim(all[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
}
