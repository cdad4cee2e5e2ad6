package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// halfway is a restore over old data that is interrupted.
type halfway struct {
	site   Site
	wal    string // where the WAL is, in any layout
	inside bool   // the folders must stay, as mount points must
}

func newHalfway(t *testing.T, wal string, inside bool) *halfway {
	t.Helper()
	root := t.TempDir()
	h := &halfway{site: Site{Name: "m1", DataDir: filepath.Join(root, "data"), Replace: true}, inside: inside}
	switch wal {
	case "":
		h.wal = filepath.Join(h.site.DataDir, "member", "wal")
	case "apart":
		h.wal = filepath.Join(root, "log")
		h.site.WALDir = h.wal
	case "nested":
		h.wal = filepath.Join(h.site.DataDir, "log")
		h.site.WALDir = h.wal
	}
	write(t, h.database(), "old")
	write(t, filepath.Join(h.wal, "0.wal"), "old")
	write(t, filepath.Join(h.wal, "1.wal"), "old")
	return h
}

func (h *halfway) database() string { return filepath.Join(h.site.DataDir, "member", "snap", "db") }

// run builds a target as build does and publishes it, up to the n-th change.
func (h *halfway) run(t *testing.T, n int) error {
	t.Helper()
	target, err := newTarget(backup.Member{Name: "m1"}, h.site.DataDir, h.site.WALDir, nil)
	ok(t, err)
	for _, f := range target.folders() {
		f.Inside = h.inside
		ok(t, f.CheckJournal())
	}
	work := &Work{Plan: &Plan{Source: Origin{Name: "test"}}, Targets: []Target{target}, site: h.site}
	w, err := publish.Begin(work.groups(), func(op, path string) error {
		if n--; n < 0 {
			return errors.New("crash")
		}
		return nil
	})
	if err != nil {
		return err
	}
	write(t, target.database(), "new")
	tree := filepath.Join(target.data.Tree(), target.data.wal)
	if target.wal != nil {
		tree = target.wal.Tree()
	}
	write(t, filepath.Join(tree, "0.wal"), "new")
	return errors.Join(work.publish(t.Context(), w), w.Close())
}

func write(t *testing.T, path, content string) {
	t.Helper()
	ok(t, os.MkdirAll(filepath.Dir(path), 0o700))
	ok(t, os.WriteFile(path, []byte(content), 0o600))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "none"
	}
	return string(raw)
}

// TestFinishInterrupted_InUse begins to use a target while its restore is
// interrupted.
func TestFinishInterrupted_InUse(t *testing.T) {
	for _, wal := range []string{"", "apart", "nested"} {
		for _, inside := range []bool{false, true} {
			t.Run(fmt.Sprintf("WAL=%s/Inside=%v", wal, inside), func(t *testing.T) {
				t.Parallel()
				used := 0
				for n := 0; ; n++ {
					h := newHalfway(t, wal, inside)
					if err := h.run(t, n); err == nil {
						break
					}
					if is := read(h.database()); is != "none" {
						used++
						h.useAndRerun(t, n, is)
					}
				}
				if used == 0 {
					t.Error("no crash left a database that could be used")
				}
			})
		}
	}
}

// TestOldDataInUse starts an etcd on old data that an earlier restore has put into the folder
// itself. Where it stays it may go on, and it is never moved, also by the end of a restore
// that was interrupted.
func TestOldDataInUse(t *testing.T) {
	for _, inside := range []bool{false, true} {
		t.Run(fmt.Sprintf("Inside=%v", inside), func(t *testing.T) {
			var h *halfway
			for n := 0; h == nil || !CanAbort(h.site); n++ {
				h = newHalfway(t, "", inside)
				if err := h.run(t, n); err == nil {
					t.Fatal("no crash left a journal and nothing moved")
				}
			}
			old := filepath.Join(h.site.DataDir, publish.AsidePrefix+"20261120T101500Z", "member", "snap", "db")
			write(t, old, "older")
			f, err := os.Open(old)
			ok(t, err)
			defer f.Close()
			ok(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))

			var refused *backup.RefusedError
			if err := checkUse(t.Context(), h.site.DataDir, inside); errors.As(err, &refused) == inside {
				t.Errorf("a new restore: %v", err)
			}
			done, err := FinishInterrupted(t.Context(), h.site, Request{}, Origin{})
			if errors.As(err, &refused) == inside || (done != nil) != inside {
				t.Errorf("finished: %v, %v", done, err)
			}
			if got := read(old); got != "older" {
				t.Errorf("the database in use is %s", got)
			}
		})
	}
}

// useAndRerun is an etcd that was started after the crash: it holds its
// database, and it has a second segment now.
func (h *halfway) useAndRerun(t *testing.T, n int, is string) {
	t.Helper()
	segment := filepath.Join(h.wal, "1.wal")
	write(t, segment, is)
	f, err := os.Open(h.database())
	ok(t, err)
	defer f.Close()
	ok(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	done, err := FinishInterrupted(t.Context(), h.site, Request{}, Origin{})
	if got := read(h.database()); got != is {
		t.Errorf("crash %d: the database in use was %s and is %s", n, is, got)
	}
	if got := read(segment); got != is {
		t.Errorf("crash %d: a segment in use was %s and is %s", n, is, got)
	}
	if is == "old" && done != nil {
		t.Errorf("crash %d: finished on a running server", n)
	}
	var refused *backup.RefusedError
	if err != nil && !errors.As(err, &refused) {
		t.Errorf("crash %d: with the %s data in use: %v", n, is, err)
	}
}
