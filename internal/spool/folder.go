// Package spool is the local folder that databases are received into. A database
// that could not be stored waits there. The folder is durable, bounded and locked,
// so that any number of processes can share it.
package spool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Folder is a folder for spools. The zero value is the system's folder for
// temporary files, and nothing waits in it.
type Folder struct {
	Dir string // empty means the system's folder for temporary files
	// Keep makes a received database stay pending if it cannot be stored, for a
	// later run or a later process. Older pending ones then give way to new
	// databases.
	Keep bool
	// Limit is the most bytes that all spools in the folder may take together,
	// those of other processes included. Zero means no limit.
	Limit int64
	// MinFree is kept free on the file system of the folder, at all times: see levels.
	MinFree disk.Reserve
	// Setting is what a person calls MinFree, for hints.
	Setting string
	// Log reports the pending snapshots that are dropped; nil discards.
	Log *slog.Logger
}

const spoolSuffix = ".spool"

var spoolPattern = regexp.MustCompile(`^backupd-[a-z2-7]{12}\.spool$`)

// Path returns the path of the folder.
func (f *Folder) Path() string {
	if f.Dir == "" {
		return os.TempDir()
	}
	return f.Dir
}

func (f *Folder) log() *slog.Logger {
	if f.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return f.Log
}

// New makes an empty spool with room for need bytes. Spools of processes that
// died are removed first, and older pending ones give way.
func (f *Folder) New(need int64) (*File, error) {
	if err := f.sweep(); err != nil {
		return nil, fmt.Errorf("read spool folder: %w", err)
	}
	if err := (room{f}).prepare(disk.RoomFor(need)); err != nil {
		return nil, err
	}
	s, err := create(f.Path())
	if err != nil {
		return nil, err
	}
	s.folder = *f
	if err := (room{f}).allot(s, need); err != nil {
		return nil, errors.Join(err, s.Remove())
	}
	return s, nil
}

// CheckRoom refuses a folder that has no room to receive a database of the given
// size. The error wraps ENOSPC.
func CheckRoom(dir string, need int64) error {
	err := disk.CheckRoom(dir, need)
	if errors.Is(err, unix.ENOSPC) {
		return backup.WithHints(err, "free some space, or choose another folder",
			"free some space, or choose another daemon.spool.folder")
	}
	return err
}

// create makes a file in a folder and locks it.
func create(dir string) (*File, error) {
	for {
		path := filepath.Join(dir, "backupd-"+backup.RandomName(12)+spoolSuffix)
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("make spool: %w", err)
		}
		s := newFile(path, file)
		// A shared lock, because the process that inspects the database takes a
		// shared one too. Only the sweep takes an exclusive one.
		err = disk.TryLock(file, disk.Shared)
		switch {
		case err == nil:
			return s, nil
		case !errors.Is(err, disk.ErrInUse) && !errors.Is(err, disk.ErrGone):
			return nil, errors.Join(fmt.Errorf("lock spool: %w", err), s.Remove())
		}
		_ = file.Close() // another process swept it before it was locked
	}
}

// Begin empties a spool for a try that receives a database of total bytes. The
// database may have grown since the spool was made.
func (f *Folder) Begin(s *File, total int64) error {
	if err := s.reset(total); err != nil {
		return err
	}
	if err := (room{f}).prepare(total); err != nil {
		return err
	}
	return (room{f}).allot(s, total)
}

// Bytes returns the space that the spools in the folder take, of all clusters and
// processes.
func (f *Folder) Bytes() (int64, error) { return f.bytes("") }

// bytes leaves out the spool at the path except.
func (f *Folder) bytes(except string) (int64, error) {
	entries, err := os.ReadDir(f.Path())
	if err != nil {
		return 0, fmt.Errorf("read spool folder: %w", err)
	}
	sum := int64(0)
	for _, e := range entries {
		if !spoolPattern.MatchString(e.Name()) || filepath.Join(f.Path(), e.Name()) == except {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() { // else it was removed a moment ago
			sum += disk.SpaceOf(info)
		}
	}
	return sum, nil
}

// sweep removes the spools that no living process holds and that are not pending.
// It ignores files that it cannot remove, such as those of another user: they are
// no reason not to make a backup.
func (f *Folder) sweep() error {
	entries, err := os.ReadDir(f.Path())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(f.Path(), e.Name())
		switch beside := pendingPattern.FindStringSubmatch(e.Name()); {
		case !e.Type().IsRegular():
		case spoolPattern.MatchString(e.Name()):
			sweepSpool(path)
		case beside != nil:
			// A spool is there before the file beside it is written. Without its
			// spool that file is a leftover.
			if _, err := os.Lstat(filepath.Join(f.Path(), beside[1]+spoolSuffix)); errors.Is(err, os.ErrNotExist) {
				_ = os.Remove(path)
			}
		}
	}
	return nil
}

func sweepSpool(path string) {
	f, err := disk.OpenRegular(path, os.O_RDWR)
	if err != nil {
		return
	}
	if disk.TryLock(f, disk.Exclusive) == nil && !staysPending(path) {
		_ = newFile(path, f).Remove()
		return
	}
	_ = f.Close() // gives the lock back
}

// staysPending reports whether a spool that no process holds waits for the store.
func staysPending(path string) bool {
	_, err := readPending(path)
	var unknown *unknownFormatError
	if err == nil || errors.As(err, &unknown) {
		// However old it is: it may hold the newest data of its cluster. See Tidy.
		return true
	}
	// A file of another user cannot be read. It is not ours to remove.
	return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, backup.ErrCorrupt)
}

// drop removes a pending spool that no process is storing, and reports whether it
// did. It logs an error, because the snapshot is lost.
func (f *Folder) drop(e entry, reason string) bool {
	file, err := disk.OpenRegular(e.path, os.O_RDWR)
	if err != nil {
		return false
	}
	if disk.TryLock(file, disk.Exclusive) != nil {
		_ = file.Close()
		return false
	}
	args := []any{"path", e.path, "reason", reason}
	if e.pending != nil {
		c := e.pending.Capture
		args = append(args, "cluster", c.Cluster, "started", c.StartedAt, "revision", int64(c.Revision))
	}
	if err := newFile(e.path, file).Remove(); err != nil {
		f.log().Error("cannot drop a pending snapshot", append(args, "err", err)...)
		return false
	}
	f.log().Error("dropped a pending snapshot", args...)
	return true
}

// Tidy drops the pending spools of one cluster, for one repository, that are too many
// or too old, and those that nobody can read. It is called after they were offered to
// the repository: what the repository could take must not be dropped. The newest of the
// cluster stays, however old it is: nothing else may hold its data.
func (f *Folder) Tidy(cluster, repository string) {
	all, err := f.entries()
	if err != nil {
		f.log().Warn("cannot read the spool folder", "err", err)
		return
	}
	newest, waiting := newestOf(all), 0
	for _, e := range slices.Backward(all) { // the newest first
		switch {
		case errors.Is(e.err, backup.ErrCorrupt):
			f.drop(e, e.err.Error())
			continue
		case e.err != nil:
			f.log().Warn("cannot use a pending spool", "path", e.path, "err", e.err)
			continue
		case e.pending.owner() != owner{cluster, repository}:
			continue
		}
		waiting++
		switch {
		case newest[e.path]:
		case e.pending.expired(time.Now()):
			f.drop(e, fmt.Sprintf("it could not be stored within %d days", int(maxAge.Hours()/24)))
		case waiting > maxPending:
			f.drop(e, fmt.Sprintf("%d newer ones of the cluster are pending", maxPending))
		}
	}
}

// Claim locks a pending spool for this process alone, and reads the file beside it
// again. If another process was quicker, the error wraps [disk.ErrInUse] or
// [disk.ErrGone].
func (f *Folder) Claim(p Pending) (*File, error) {
	file, err := disk.OpenRegular(p.Path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return nil, disk.ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open pending spool: %w", err)
	}
	s := newFile(p.Path, file)
	s.folder, s.end, s.stream = *f, io.EOF, true
	if err := s.takeOver(); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return s, nil
}

func (s *File) takeOver() error {
	if err := disk.TryLock(s.f, disk.Exclusive); err != nil {
		return err
	}
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("stat pending spool: %w", err)
	}
	s.n, s.expect = info.Size(), info.Size()
	if err := checkOurs(s.path); err != nil {
		return err
	}
	s.pending, err = readPending(s.path)
	return err
}
