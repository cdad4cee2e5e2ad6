package rescue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

// Folder is where the data of one member is.
type Folder struct {
	DataDir string
	WALDir  string // empty: inside DataDir
}

func (f Folder) wal() string {
	if f.WALDir != "" {
		return f.WALDir
	}
	return filepath.Join(f.DataDir, "member", "wal")
}

// apart reports whether the WAL is said to be elsewhere. Its usual place may be said, too.
func (f Folder) apart() bool {
	return f.WALDir != "" && filepath.Clean(f.WALDir) != Folder{DataDir: f.DataDir}.wal()
}

func (f Folder) snap() string { return filepath.Join(f.DataDir, "member", "snap") }

// original is the data of a member, open for reading and held against a server.
type original struct {
	folder    Folder
	snap, wal []openFile
	bytes     int64
	log       int64 // bytes of the WAL
}

type openFile struct {
	name string
	f    *os.File // the file itself, where name is a link
}

// open opens all files of a folder that are of use. It changes nothing there.
func (f Folder) open() (*original, error) {
	o := &original{folder: f}
	err := o.openAll()
	if err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

func (o *original) openAll() (err error) {
	o.snap, err = o.add(o.folder.snap(), func(name string) bool {
		return name == database || strings.HasSuffix(name, "."+sentDatabase)
	})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(o.snap, func(f openFile) bool { return f.name == database }) {
		return backup.WithHint(fmt.Errorf("%s has no database: %w", o.folder.snap(), fs.ErrNotExist),
			"give the data directory of a member of etcd: the folder that has member/snap/db")
	}
	before := o.bytes
	o.wal, err = o.add(o.folder.wal(), func(name string) bool { return filepath.Ext(name) == ".wal" })
	o.log = o.bytes - before
	if err == nil && o.folder.apart() && len(o.wal) == 0 {
		err = fmt.Errorf("%s has no segments of a WAL: %w", o.folder.WALDir, fs.ErrNotExist)
	}
	return err
}

// Files in member/snap. A leader sends a database to a member that is too far behind.
const (
	database     = "db"
	sentDatabase = "snap.db" // after the index, and a dot
)

// NoWALError are data directories that have no WAL, where it may be elsewhere.
type NoWALError struct{ DataDirs []string }

// Error names the directories.
func (e *NoWALError) Error() string { return e.Unwrap().Error() }

// Unwrap returns a [backup.RefusedError].
func (e *NoWALError) Unwrap() error {
	return &backup.RefusedError{Reason: strings.Join(e.DataDirs, " has no WAL, and ") +
		" has no WAL in member/wal: it is elsewhere, or lost, and may have acknowledged writes that the database lacks"}
}

// checkLogs returns a [NoWALError] if there is a database without a WAL.
func checkLogs(all []*original) error {
	e := new(NoWALError)
	for _, o := range all {
		if len(o.wal) == 0 {
			e.DataDirs = append(e.DataDirs, o.folder.DataDir)
		}
	}
	if len(e.DataDirs) == 0 {
		return nil
	}
	return e
}

// add opens the files of a folder that want accepts, and looks whether a server holds them.
func (o *original) add(dir string, want func(name string) bool) (out []openFile, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !want(e.Name()) {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(dir, e.Name()))
		if err != nil {
			return out, err
		}
		f, err := disk.OpenRegular(path, os.O_RDONLY)
		if err != nil {
			return out, err
		}
		out = append(out, openFile{e.Name(), f})
		if err := inuse.Hold(o.folder.DataDir, f); err != nil {
			return out, err
		}
		info, err := f.Stat()
		if err != nil {
			return out, err
		}
		o.bytes += info.Size()
	}
	return out, nil
}

func (o *original) close() error {
	var errs []error
	for _, f := range slices.Concat(o.snap, o.wal) {
		errs = append(errs, f.f.Close())
	}
	return errors.Join(errs...)
}

// copied is the copy of a member's data.
type copied struct {
	folder    Folder
	snap, wal string
}

// copy copies all files into dir, which does not exist.
func (o *original) copy(ctx context.Context, dir string, progress func(n int64)) (copied, error) {
	c := copied{folder: o.folder, snap: filepath.Join(dir, "snap"), wal: filepath.Join(dir, "wal")}
	for _, d := range []string{dir, c.snap, c.wal} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return c, err
		}
	}
	for to, files := range map[string][]openFile{c.snap: o.snap, c.wal: o.wal} {
		for _, f := range files {
			if err := disk.CopySparse(ctx, f.f, filepath.Join(to, f.name), progress); err != nil {
				return c, fmt.Errorf("copy %s: %w", f.f.Name(), err)
			}
		}
	}
	return c, nil
}

// checkRoom refuses a folder for the copies that has no room for them. Entries that are replayed
// make a database grow, by about twice their size, and the best one is written out.
func checkRoom(dir string, reserve disk.Reserve, all []*original) error {
	need, largest := int64(16<<20), int64(0)
	for _, o := range all {
		grown := o.bytes + 2*o.log
		need, largest = need+grown, max(largest, grown)
	}
	need += largest
	fs, err := disk.FileSystemOf(dir)
	if err != nil {
		return err
	}
	if keep := reserve.Of(fs); fs.Free < need+keep {
		return fmt.Errorf("folder %s has %s free, the copies need %s, and %s must stay free: %w",
			dir, disk.Size(fs.Free), disk.Size(need), disk.Size(keep), unix.ENOSPC)
	}
	return nil
}
