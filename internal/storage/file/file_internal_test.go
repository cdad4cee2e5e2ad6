package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// tracedDisk records the durable steps and lets one of them fail.
type tracedDisk struct {
	steps  []string
	failAt int // index into steps; -1 is never
	err    error
}

func (d *tracedDisk) step(format string, args ...any) error {
	d.steps = append(d.steps, tempInText(fmt.Sprintf(format, args...)))
	if len(d.steps)-1 == d.failAt {
		return d.err
	}
	return nil
}

// tempInText makes temporary names the same in every run.
func tempInText(s string) string {
	if i := strings.Index(s, ".backupd-"); i >= 0 {
		return s[:i] + "TEMP" + s[i+len(".backupd-")+16+len(".tmp"):]
	}
	return s
}

func (d *tracedDisk) Create(root *os.Root, name string) (output, error) {
	if err := d.step("create %s", name); err != nil {
		return nil, err
	}
	f, err := osDisk{}.Create(root, name)
	return &tracedFile{f, d}, err
}

func (d *tracedDisk) Own(root *os.Root, name string, uid, gid int) error {
	if err := d.step("own %s %d %d", name, uid, gid); err != nil {
		return err
	}
	return osDisk{}.Own(root, name, uid, gid)
}

func (d *tracedDisk) Link(root *os.Root, old, new string) error {
	if err := d.step("link %s %s", old, new); err != nil {
		return err
	}
	return osDisk{}.Link(root, old, new)
}

func (d *tracedDisk) SyncDir(root *os.Root, name string) error {
	if err := d.step("sync %s/", filepath.Join(filepath.Base(root.Name()), name)); err != nil {
		return err
	}
	return osDisk{}.SyncDir(root, name)
}

type tracedFile struct {
	output
	d *tracedDisk
}

func (f *tracedFile) Write(p []byte) (int, error) {
	if err := f.d.step("write"); err != nil {
		return 0, err
	}
	return f.output.Write(p)
}

func (f *tracedFile) Sync() error {
	if err := f.d.step("sync file"); err != nil {
		return err
	}
	return f.output.Sync()
}

func (f *tracedFile) Close() error {
	err := f.d.step("close")
	return errors.Join(err, f.output.Close())
}

// TestCreate_Order: a step that moves is a promise broken in a power cut.
func TestCreate_Order(t *testing.T) {
	s, d := New(filepath.Join(t.TempDir(), "root")), &tracedDisk{failAt: -1}
	s.disk = d
	if err := s.MakeRoot(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"sync " + filepath.Base(filepath.Dir(s.root)) + "/"}; !slices.Equal(d.steps, want) {
		t.Errorf("make the root: got %q, want %q", d.steps, want)
	}
	d.steps = nil
	if err := s.Create(t.Context(), "c1/data/x", strings.NewReader("value")); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"create c1/data/TEMP", "write", "sync file", "close", "link c1/data/TEMP c1/data/x",
		"sync root/c1/data/", "sync root/c1/", "sync root/",
	}
	if !slices.Equal(d.steps, want) {
		t.Errorf("create:\n got %q\nwant %q", d.steps, want)
	}
	d.steps = nil
	if err := s.Delete(t.Context(), "c1/data/x"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"sync root/c1/data/"}; !slices.Equal(d.steps, want) {
		t.Errorf("delete: got %q, want %q", d.steps, want)
	}
}

// TestDelete_SyncFails: what could not be synced is synced by the next try, although the file
// is gone by then: a power cut might bring it back. The same holds for the store's folder.
func TestDelete_SyncFails(t *testing.T) {
	s := New(filepath.Join(t.TempDir(), "root"))
	d := &tracedDisk{failAt: 0, err: syscall.EIO}
	s.disk = d
	if err := s.MakeRoot(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	if err := s.MakeRoot(); err != nil || len(d.steps) != 2 || d.steps[0] != d.steps[1] {
		t.Errorf("got %v, %q", err, d.steps)
	}
	s.disk = osDisk{}
	if err := s.Create(t.Context(), "c1/data/x", strings.NewReader("value")); err != nil {
		t.Fatal(err)
	}
	d = &tracedDisk{failAt: 0, err: syscall.EIO}
	s.disk = d
	if err := s.Delete(t.Context(), "c1/data/x"); !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	if err := s.Delete(t.Context(), "c1/data/x"); err != nil {
		t.Error(err)
	}
	if want := []string{"sync root/c1/data/", "sync root/c1/data/"}; !slices.Equal(d.steps, want) {
		t.Errorf("got %q, want %q", d.steps, want)
	}
	if err := errors.Join(s.Delete(t.Context(), "none/x"), s.Delete(t.Context(), "c1/data/x/y")); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), "c1/data"); err != nil { // a folder is none of ours
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(s.root, "c1/data")); err != nil {
		t.Error(err)
	}
}

// TestCreate_DiskFails at each step in turn: an error, and nothing is left, and
// the next Create succeeds.
func TestCreate_DiskFails(t *testing.T) {
	for _, disk := range []error{syscall.ENOSPC, syscall.EIO, syscall.EDQUOT} {
		for n := 0; ; n++ {
			s, d := New(t.TempDir()), &tracedDisk{failAt: n, err: disk}
			s.disk = d
			err := s.Create(t.Context(), "c1/data/x", bytes.NewReader(make([]byte, 100_000)))
			if n >= len(d.steps) {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if !errors.Is(err, disk) {
				t.Fatalf("%s fails: got error %v", d.steps[n], err)
			}
			// Not even the same descriptor is synced twice.
			if i := slices.Index(d.steps, "sync file"); i >= 0 && slices.Contains(d.steps[i+1:], "sync file") {
				t.Fatalf("a failed sync was repeated: %q", d.steps)
			}
			if left := files(t, s.root); len(left) != 0 {
				t.Fatalf("%s fails: %q is left", d.steps[n], left)
			}
			if err := s.Create(t.Context(), "c1/data/x", strings.NewReader("value")); err != nil {
				t.Fatalf("%s failed before: %v", d.steps[n], err)
			}
		}
	}
}

// TestCreate_NoHardLinks has a hint.
func TestCreate_NoHardLinks(t *testing.T) {
	s := New(t.TempDir())
	s.disk = &tracedDisk{failAt: 4, err: syscall.EPERM} // create, write, sync, close, link
	err := s.Create(t.Context(), "x", strings.NewReader("value"))
	var hint *backup.HintError
	if !errors.Is(err, syscall.EPERM) || !errors.As(err, &hint) {
		t.Fatalf("got error %v", err)
	}
}

// TestCreate_LostBytes: a file system that says yes and keeps less.
func TestCreate_LostBytes(t *testing.T) {
	s := New(t.TempDir())
	s.disk = forgetful{}
	if err := s.Create(t.Context(), "x", strings.NewReader("value")); !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("got error %v", err)
	}
	if left := files(t, s.root); len(left) != 0 {
		t.Fatalf("%q is left", left)
	}
}

type forgetful struct{ osDisk }

func (forgetful) Create(root *os.Root, name string) (output, error) {
	f, err := osDisk{}.Create(root, name)
	return &forgetfulFile{f}, err
}

type forgetfulFile struct{ output }

func (f *forgetfulFile) Write(p []byte) (int, error) {
	_, err := f.output.Write(p[:len(p)/2])
	return len(p), err
}

// TestSweep deletes our own old temporary files and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	old, young, foreign := tempName(), tempName(), ".backupd-notes.tmp"
	for _, name := range []string{old, young, foreign} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hourAgo := time.Now().Add(-sweepAge - time.Minute)
	for _, name := range []string{old, foreign} {
		if err := os.Chtimes(filepath.Join(dir, name), hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
	}
	s := New(dir)
	for o := range s.List(t.Context(), "", "") {
		if o.Key != foreign {
			t.Errorf("%s is listed", o.Key)
		}
	}
	if _, err := s.Stat(t.Context(), young); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("stat of a temporary file: %v", err)
	}
	if err := s.Create(t.Context(), "key", strings.NewReader("value")); err != nil {
		t.Fatal(err)
	}
	want := []string{foreign, young, "key"}
	slices.Sort(want)
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Fatalf("left: %q, want %q", got, want)
	}
}

// files returns what is below dir, temporary files too, sorted.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			found = append(found, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	return found
}
