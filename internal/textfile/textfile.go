// Package textfile keeps the metrics of one slot in a file, for the textfile collector of
// Prometheus' node exporter. It knows which metrics would lie in a file that grows old, and
// what a run that could not read its repository must not forget.
package textfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// maxBytes is more than any file of ours has.
const maxBytes = 16 << 20

// File is the file of one CronJob or timer.
type File struct{ path string }

// Open checks that a file can be at path, and that what is there is ours and whole. It
// changes nothing. The error is a [backup.RefusedError] with a hint if somebody must put
// something right; any other one says that the file could not be read.
func Open(path string) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("metrics file: %w", err)
	}
	f := &File{path}
	folder := filepath.Dir(path)
	info, err := os.Stat(folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, refuse("make it, and name it to the node exporter by --collector.textfile.directory",
			"metrics file %s: there is no folder %s", path, folder)
	case err == nil && !info.IsDir():
		return nil, refuse("name a file in a folder", "metrics file %s: %s is not a folder", path, folder)
	case err != nil:
		return nil, fmt.Errorf("metrics file: %w", err)
	}
	_, err = f.read()
	return f, err
}

// Probe tries to make a file in the folder, and removes it. The caller may go on after an
// error, which [File.Write] will most likely have, too.
func (f *File) Probe() error {
	temp, err := f.temporary()
	if err == nil {
		err = errors.Join(temp.Close(), os.Remove(temp.Name()))
	}
	if err != nil {
		return fmt.Errorf("metrics file %s cannot be written: %w", f.path, err)
	}
	return nil
}

// Write replaces the file as a whole by the metrics of a slot, and keeps of the content
// before what the slot does not know better. A file that is not ours is not replaced.
func (f *File) Write(s Slot, now time.Time) error {
	before, err := f.read() // again: another run may have ended meanwhile
	if err != nil {
		return err
	}
	raw, err := s.over(before, now).encode()
	if err == nil {
		f.sweep(now)
		err = f.replace(raw)
	}
	if err != nil {
		return fmt.Errorf("metrics file %s: %w", f.path, err)
	}
	return nil
}

// read returns what the file says. It returns no content and no error if there is none.
func (f *File) read() (*content, error) {
	info, err := os.Lstat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &content{}, nil
	case err == nil && !info.Mode().IsRegular():
		return nil, refuse("name another file, or remove what is there",
			"metrics file %s: it is not a regular file but %v", f.path, kind(info.Mode()))
	}
	var raw []byte
	if err == nil {
		raw, err = readWhole(f.path)
	}
	if err != nil {
		return nil, fmt.Errorf("metrics file: %w", err)
	}
	c, err := decode(raw)
	if err != nil {
		return nil, refuse("name another file; or, if nobody needs this one: "+shellquote.Join("rm", f.path),
			"metrics file %s: %v", f.path, err)
	}
	return c, nil
}

func readWhole(path string) ([]byte, error) {
	file, err := disk.OpenRegular(path, os.O_RDONLY) // it may have been replaced by a link
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read from
	return io.ReadAll(io.LimitReader(file, maxBytes))
}

// kind names what is not a regular file.
func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a link"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "a pipe or a socket"
}

// The names of temporary files. The node exporter reads only those that end in .prom.
const (
	tempSuffix = ".tmp"
	tempAge    = time.Hour // an older one is of a process that was killed
)

func (f *File) tempPrefix() string { return "." + filepath.Base(f.path) + "." }

// temporary makes a new file beside the real one. Two runs at a time have two.
func (f *File) temporary() (*os.File, error) {
	return os.CreateTemp(filepath.Dir(f.path), f.tempPrefix()+"*"+tempSuffix)
}

// sweep removes what killed processes have left.
func (f *File) sweep(now time.Time) {
	entries, err := os.ReadDir(filepath.Dir(f.path))
	if err != nil {
		return // the write says so
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), f.tempPrefix()) || !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && now.Sub(info.ModTime()) > tempAge {
			_ = os.Remove(filepath.Join(filepath.Dir(f.path), e.Name())) // it harms nobody
		}
	}
}

// syncFile is a variable so that a test can see what is made durable, and let it fail.
var syncFile = disk.SyncFile

// replace writes the file durably and as a whole, so that everybody can read it: the node
// exporter runs as a user of its own.
func (f *File) replace(raw []byte) error {
	temp, err := f.temporary()
	if err != nil {
		return err
	}
	_, err = temp.Write(raw)
	if err == nil {
		err = temp.Chmod(0o644)
	}
	if err == nil {
		err = syncFile(temp)
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), f.path)
	}
	if err != nil {
		return errors.Join(err, disk.Remove(temp.Name()))
	}
	return disk.Sync(filepath.Dir(f.path))
}

func refuse(hint, format string, args ...any) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(format, args...)}, "%s", hint)
}
