package companion

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// read reads one file of at most left bytes, or a link.
func (f *found) read(left int64, calm *calm) (backup.CompanionFile, *tar.Header, []byte, error) {
	out := backup.CompanionFile{Path: f.path, Link: f.link}
	if f.link != "" {
		return out, headerOf(out, f.info), nil, nil
	}
	if f.root == nil { // of a Secret
		out.Mode, out.Bytes, out.SHA256 = secretMode, int64(len(f.content)), backup.BlobOf(f.content).SHA256
		return out, secretHeader(out), f.content, nil
	}
	raw, info, err := calm.stable(func() ([]byte, fs.FileInfo, error) { return f.once(left) })
	if err != nil {
		return out, nil, nil, err
	}
	blob := backup.BlobOf(raw)
	out.Mode = fmt.Sprintf("%#04o", info.Mode().Perm())
	out.Bytes, out.SHA256 = blob.Bytes, blob.SHA256
	return out, headerOf(out, info), raw, nil
}

const (
	// tries is how often a file is read at once that changes meanwhile.
	tries = 3
	// patience is how long files are waited for in all.
	patience = 3 * 2 * time.Second
)

// quiet is how long a file must have been left alone: one that is written with a pause is half, and
// is the same each time that it is read in the pause.
var quiet = 2 * time.Second

// calm waits until a file is not being written.
type calm struct {
	quiet, patience time.Duration
	now             func() time.Time
	wait            func(time.Duration)
}

// errChanges says that a file was never the same twice.
var errChanges = errors.New("it changes while it is read")

// stable reads a file that nobody writes.
func (c *calm) stable(read func() ([]byte, fs.FileInfo, error)) ([]byte, fs.FileInfo, error) {
	for {
		raw, info, err := twice(read)
		wait := c.quiet
		if err == nil {
			wait = c.young(info)
		}
		if wait <= 0 || err != nil && !errors.Is(err, errChanges) {
			return raw, info, err
		}
		if c.patience < wait {
			return nil, nil, cmp.Or(err,
				fmt.Errorf("it was written less than %s before it was read, so it may be half", c.quiet))
		}
		c.patience -= wait
		c.wait(wait)
	}
}

// young returns how long a file is to be waited for. A time in the future is that of another clock,
// and says nothing.
func (c *calm) young(info fs.FileInfo) time.Duration {
	wait := time.Duration(0)
	times := []time.Time{info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		times = append(times, time.Unix(stat.Ctim.Unix()))
	}
	for _, at := range times {
		if age := c.now().Sub(at); age >= 0 {
			wait = max(wait, c.quiet-age)
		}
	}
	return wait
}

// twice reads a file until two times bring the same.
func twice(read func() ([]byte, fs.FileInfo, error)) ([]byte, fs.FileInfo, error) {
	for range tries {
		first, _, err := read()
		if err != nil {
			return nil, nil, err
		}
		again, info, err := read()
		if err != nil {
			return nil, nil, err
		}
		if bytes.Equal(first, again) {
			return again, info, nil
		}
	}
	return nil, nil, errChanges
}

func (f *found) once(left int64) (raw []byte, info fs.FileInfo, err error) {
	// Not blocking: a pipe may have taken the place of the file.
	file, err := f.root.OpenFile(f.name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("it is no longer a file")
	}
	if info.Size() <= left { // else it is not read at all
		raw, err = io.ReadAll(io.LimitReader(file, left+1))
	}
	if err == nil && (info.Size() > left || int64(len(raw)) > left) {
		err = fmt.Errorf("with it the companions would have more than %d MiB", backup.MaxCompanionBytes>>20)
	}
	return raw, info, err
}
