package publish

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// oldData makes a folder with old data, and returns it as it is found.
func oldData(t *testing.T, dir string, inside bool) func() *Folder {
	t.Helper()
	for _, name := range []string{"member/snap/db", "member/wal/0.wal", "proxy/x"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	return func() *Folder {
		f, err := NewFolder(Place{Dir: dir, Heart: "member"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.Inside = inside
		return f
	}
}

// TestMoveAside_Killed: wherever it is killed, the next call moves the rest; every old file is
// there then, and the folder is empty and has its mode.
func TestMoveAside_Killed(t *testing.T) {
	for _, inside := range []bool{false, true} {
		crashes := 0
		for at := 1; ; at++ {
			dir := filepath.Join(t.TempDir(), "data")
			look := oldData(t, dir, inside)
			n := 0
			_, err := look().MoveAside(func(op, path string) error {
				if n++; n == at {
					return errors.New("killed before " + op)
				}
				return nil
			})
			if err != nil {
				crashes++
			}
			again, more := look().MoveAside(nil)
			if more != nil {
				t.Fatalf("Inside=%v, killed at %d (%v): %v", inside, at, err, more)
			}
			checkAside(t, look(), again)
			if err == nil {
				break
			}
		}
		if crashes < 4 {
			t.Errorf("Inside=%v: killed only %d times", inside, crashes)
		}
	}
}

func checkAside(t *testing.T, f *Folder, last string) {
	t.Helper()
	if !f.Exists || len(f.Old) > 0 {
		t.Errorf("the folder is left as %+v", f.contents)
	}
	if st, err := os.Stat(f.Dir); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("the folder has %v, %v", st, err)
	}
	asides, err := f.Asides()
	if err != nil || last != "" && !slices.Contains(asides, last) {
		t.Errorf("asides are %v, %v, and the last was %s", asides, err, last)
	}
	var found []string
	for _, aside := range asides {
		_ = filepath.WalkDir(aside, func(path string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				raw, _ := os.ReadFile(path)
				found = append(found, string(raw))
			}
			return err
		})
	}
	slices.Sort(found)
	if got := strings.Join(found, " "); got != "member/snap/db member/wal/0.wal proxy/x" {
		t.Errorf("the old files are %s", got)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(f.Dir), ".*"))
	if len(left) > 0 && last != "" {
		t.Errorf("%v is left", left)
	}
}

// TestMoveAside_Nothing: what is not there is not moved.
func TestMoveAside_Nothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	f, err := NewFolder(Place{Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if aside, err := f.MoveAside(nil); aside != "" || err != nil {
		t.Errorf("got %q, %v", aside, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a folder was made")
	}
}

// TestSweep: what a killed move has left goes, and what a restore has left stays.
func TestSweep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	look := oldData(t, dir, false)
	staging := look().Staging()
	for _, path := range []string{staging + "-try/full", staging + "-empty"} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(lockPath(staging), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := look().Sweep(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	w, err := Begin([]Group{{look()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := look().Sweep(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(lockPath(staging)); err != nil {
		t.Error("the lock of a running restore is gone")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestMoveAside_Restoring refuses a folder that a restore was interrupted on.
func TestMoveAside_Restoring(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	look := oldData(t, dir, false)
	w, err := Begin([]Group{{look()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := look().MoveAside(nil); err == nil || !strings.Contains(err.Error(), "another restore") {
		t.Errorf("got %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	checkMoved, err := look().MoveAside(nil)
	if err != nil || checkMoved == "" {
		t.Errorf("got %q, %v", checkMoved, err)
	}
}
