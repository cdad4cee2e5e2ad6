package textfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/textfile"
)

// good returns a folder with a file of ours, and what is in it.
func good(t *testing.T) (path string, raw []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "backupd.prom")
	write(t, path, slot("a", known{read: 1, readAt: 5000, success: 4000}))
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, raw
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestOpen_Refused: what is not our file, and whole, is refused with a hint and not touched.
func TestOpen_Refused(t *testing.T) {
	path, raw := good(t)
	folder := filepath.Dir(path)
	file := func(name string, content []byte) {
		must(t, os.WriteFile(filepath.Join(folder, name), content, 0o600))
	}
	file("foreign", []byte("# HELP other_metric x\nother_metric 1\n"))
	file("empty", nil)
	file("torn", raw[:len(raw)/2])
	file("torn at a line", raw[:bytes.LastIndex(raw, []byte("# sha256"))])
	file("changed", bytes.Replace(raw, []byte(" 4000"), []byte(" 9000"), 1))
	file("more", append(bytes.Clone(raw), "x 1\n"...))
	file("next version", bytes.Replace(raw, []byte("metrics/v1"), []byte("metrics/v2"), 1))
	must(t, os.Symlink(path, filepath.Join(folder, "link")))
	must(t, os.Symlink("nowhere", filepath.Join(folder, "dangling")))
	must(t, os.Mkdir(filepath.Join(folder, "folder"), 0o700))
	must(t, syscall.Mkfifo(filepath.Join(folder, "pipe"), 0o600))
	for name, want := range map[string]string{
		"foreign": "did not write", "empty": "did not write", "torn": "damaged", "torn at a line": "damaged",
		"changed": "damaged", "more": "damaged", "next version": "another version", "link": "a link",
		"dangling": "a link", "folder": "a folder", "pipe": "a pipe", "/dev/null": "a device",
		"none/backupd.prom": "there is no folder", "foreign/backupd.prom": "not a folder",
	} {
		t.Run(name, func(t *testing.T) {
			at := name
			if !filepath.IsAbs(name) {
				at = filepath.Join(folder, name)
			}
			read := func() []byte {
				if name == "pipe" {
					return nil // it would wait for a writer
				}
				raw, _ := os.ReadFile(at) // a folder has nothing to read
				return raw
			}
			before := read()
			_, err := textfile.Open(at)
			var hint *backup.HintError
			if !errors.As(err, new(*backup.RefusedError)) || !errors.As(err, &hint) || hint.Hint == "" ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
			if after := read(); !bytes.Equal(before, after) {
				t.Errorf("it was changed:\n%s", after)
			}
		})
	}
}

// TestWrite_Replaced: a file that somebody has put there during the run is not overwritten.
func TestWrite_Replaced(t *testing.T) {
	path, _ := good(t)
	f, err := textfile.Open(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte("other_metric 1\n"), 0o600))
	if err := f.Write(slot("a", nil), now); !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("got %v", err)
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "other_metric 1\n" {
		t.Errorf("got %q, %v", raw, err)
	}
}

// TestWrite_Whole: everybody may read the file, and nothing else is left in the folder, not
// even what a killed process has left. The node exporter reads no unfinished file.
func TestWrite_Whole(t *testing.T) {
	path, raw := good(t)
	folder := filepath.Dir(path)
	var seen []string
	defer textfile.Watch(func(f *os.File) error {
		seen = append(seen, f.Name())
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(raw, after) {
			t.Errorf("it was written in place: %v\n%s", err, after)
		}
		return nil
	})()
	killed := filepath.Join(folder, ".backupd.prom.123.tmp")
	must(t, os.WriteFile(killed, raw[:20], 0o600))
	must(t, os.Chtimes(killed, now, now.Add(-2*time.Hour)))
	write(t, path, slot("b", known{read: 1, readAt: 6000, success: 6000}))
	entries, err := os.ReadDir(folder)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if len(entries) != 1 || info.Mode() != 0o644 {
		t.Errorf("left %v, mode %v", entries, info.Mode())
	}
	if len(seen) != 1 || strings.HasSuffix(seen[0], ".prom") || filepath.Dir(seen[0]) != folder {
		t.Errorf("made durable: %q", seen)
	}
	if got := content(t, path); got[success] != 6000 {
		t.Errorf("got %v", got)
	}
}

// TestWrite_Fails: where the disk fails, the file before stays, and nothing beside it.
func TestWrite_Fails(t *testing.T) {
	path, raw := good(t)
	f, err := textfile.Open(path)
	must(t, err)
	restore := textfile.Watch(func(*os.File) error { return syscall.EIO })
	err = f.Write(slot("b", nil), now)
	restore()
	if !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v", err)
	}
	after, rerr := os.ReadFile(path)
	entries, derr := os.ReadDir(filepath.Dir(path))
	if rerr != nil || derr != nil || !bytes.Equal(raw, after) || len(entries) != 1 {
		t.Errorf("left %v, %v, %v:\n%s", entries, rerr, derr, after)
	}
	must(t, os.RemoveAll(filepath.Dir(path)))
	if err := errors.Join(f.Probe(), f.Write(slot("b", nil), now)); err == nil {
		t.Error("written into a folder that is gone")
	}
}
