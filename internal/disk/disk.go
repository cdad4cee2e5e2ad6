// Package disk has what backupd needs of a local file system beyond package os:
// durable files and folders, room, and locks.
package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// fsync is a variable so that a test can see what is made durable, and when, and
// let it fail.
var fsync = (*os.File).Sync

// Sync makes a file durable, or the names in a folder.
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return errors.Join(SyncFile(f), f.Close())
}

// SyncFile makes an open file durable, or the names in an open folder. Some
// file systems, such as CIFS and some FUSE mounts, cannot sync a folder: that
// is no error. After an error the file must be written again from its source,
// never synced again: the kernel reports the loss of a page only once.
func SyncFile(f *os.File) error {
	err := fsync(f)
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		if info, serr := f.Stat(); serr == nil && info.IsDir() {
			return nil
		}
	}
	return err
}

// TempSuffix ends the name of the temporary file of [WriteFile].
const TempSuffix = ".tmp"

// WriteFile writes a file durably and as a whole: after a crash it has the old
// content or the new one. A temporary file beside it, whose name ends in
// [TempSuffix], is overwritten; two processes must not write one path at a time.
func WriteFile(path string, content []byte) error {
	temp := path + TempSuffix
	err := Remove(temp) // a killed process may have left it
	if err == nil {
		err = writeNew(temp, content)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, Remove(temp))
	}
	return Sync(filepath.Dir(path))
}

// writeNew writes a file that nobody else can have opened before.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = SyncFile(f)
	}
	return errors.Join(err, f.Close())
}

// Remove removes a file or an empty folder. If nothing has this name there is
// no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// OpenRegular opens a regular file that exists. It refuses links, and does not
// block on a file such as a pipe. It is for folders in which other users may make
// files. flag is as in [os.OpenFile].
func OpenRegular(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ErrUnfit is the error of a file that [ReadSmall] does not read.
var ErrUnfit = errors.New("not a file to read")

// ReadSmall reads a regular file of at most limit bytes, through links. It neither blocks on a
// pipe nor reads from a device without an end: that is an [ErrUnfit], and so is a larger file.
func ReadSmall(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file (%w)", path, ErrUnfit)
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s has more than %s (%w)", path, Size(limit), ErrUnfit)
	}
	return raw, err
}

// Existing returns path, or the nearest folder above it that exists.
func Existing(path string) string {
	for {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}
