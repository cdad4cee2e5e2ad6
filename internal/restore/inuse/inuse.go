// Package inuse says what uses a folder, so that a restore neither moves it nor builds in
// it: a running etcd server, by the locks on its files, a repository and a spool, by the
// names of theirs. It changes nothing.
package inuse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Above refuses a folder that lies in the data or WAL directory of a running server, or in
// a repository. The folder need not exist.
func Above(dir string) error {
	above, err := disk.Up(dir)
	if err != nil {
		return err
	}
	mounts, err := disk.Mounts()
	if err != nil {
		return err
	}
	for _, d := range above {
		if err := byServer(d); err != nil {
			return err
		}
		if isRepository(d, mounts) {
			return backup.WithHint(&backup.RefusedError{
				Reason: fmt.Sprintf("%s is, or lies in, a backupd repository (%s)", dir, d),
			}, ownFolder)
		}
	}
	return nil
}

// Server reports whether a running server holds the data or WAL directory itself.
func Server(dir string) (bool, error) {
	err := byServer(dir)
	if errors.As(err, new(*backup.RefusedError)) {
		return true, nil
	}
	return false, err
}

// byServer refuses a data or WAL directory that a running server holds.
func byServer(dir string) error {
	for _, wal := range []string{dir, filepath.Join(dir, "member", "wal")} {
		entries, err := os.ReadDir(wal)
		unseen := wal == dir && errors.Is(err, fs.ErrPermission) // a folder far above may be another user's
		if err != nil && !absent(err) && !unseen {
			return fmt.Errorf("look for a running server: %w", err)
		}
		for _, e := range entries {
			if err := byLock(dir, filepath.Join(wal, e.Name()), e.Type()); err != nil {
				return err
			}
		}
	}
	return byLock(dir, filepath.Join(dir, "member", "snap", "db"), 0)
}

// Below refuses a file or folder that must not be moved, because something that is used lies in
// it: the files of a running server, a repository, a spool. Entries of the folder itself that
// stays accepts are not moved, and not looked at.
func Below(ctx context.Context, path string, stays func(name string) bool) error {
	s := &search{moved: path, stays: stays, seen: map[folderID]bool{}}
	return s.walk(ctx, path)
}

// search looks through all that is moved with a folder.
type search struct {
	moved string
	stays func(name string) bool
	seen  map[folderID]bool
}

type folderID struct{ device, inode uint64 }

func (s *search) walk(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(at string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case absent(err):
			return nil // removed meanwhile
		case err != nil:
			return fmt.Errorf("look for a running server: %w", err)
		case at == filepath.Join(s.moved, e.Name()) && s.stays(e.Name()):
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		case e.Type()&fs.ModeSymlink != 0:
			return s.follow(ctx, at)
		case e.IsDir():
			return s.enter(e)
		case e.Name() == backup.MarkerKey || isManifest(at):
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s would be moved, and it holds a backupd repository (%s)", s.moved, filepath.Dir(at))}, ownFolder)
		case spoolFile.MatchString(e.Name()):
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s would be moved, and it holds the spool of a backupd (%s)", s.moved, at)}, ownFolder)
		}
		return byLock(s.moved, at, e.Type())
	})
}

// enter skips a folder that has been looked through: links can lead to it again.
func (s *search) enter(e fs.DirEntry) error {
	info, err := e.Info()
	if absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	id := folderID{uint64(st.Dev), st.Ino}
	if s.seen[id] {
		return fs.SkipDir
	}
	s.seen[id] = true
	return nil
}

// follow looks at all that is behind a link. What uses it goes on through the link, which
// would be moved.
func (s *search) follow(ctx context.Context, link string) error {
	info, err := os.Stat(link)
	if absent(err) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	if !info.IsDir() {
		return byLock(s.moved, link, info.Mode().Type())
	}
	to, err := filepath.EvalSymlinks(link)
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	return s.walk(ctx, to)
}

// isRepository reports whether dir is a repository, or the folder of a cluster in one. A
// life-cycle rule may have removed its marker. It does not look into mounts below dir: one
// whose server is down would never answer.
func isRepository(dir string, mounts []disk.Mount) bool {
	if _, err := os.Lstat(filepath.Join(dir, backup.MarkerKey)); err == nil {
		return true
	}
	mounted := func(path string) bool {
		return slices.ContainsFunc(mounts, func(m disk.Mount) bool { return m.Point == path })
	}
	isCluster := func(folder string) bool {
		snapshots := filepath.Join(folder, "snapshots")
		if mounted(folder) && folder != dir || mounted(snapshots) {
			return false
		}
		manifests, _ := os.ReadDir(snapshots) // without it there are none
		return slices.ContainsFunc(manifests, func(e fs.DirEntry) bool {
			return isManifest(filepath.Join(snapshots, e.Name()))
		})
	}
	entries, _ := os.ReadDir(dir) // a folder far above may be another user's
	return isCluster(dir) || slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.IsDir() && isCluster(filepath.Join(dir, e.Name()))
	})
}

// isManifest reports whether path has the name of a snapshot's manifest. The folder of its
// cluster may have another name by now.
func isManifest(path string) bool {
	folder, name := filepath.Split(path)
	key, err := backup.ParseKey("any/" + filepath.Base(folder) + "/" + name)
	return err == nil && key.Kind == backup.KindManifest
}

// spoolFile is a file of a spool: a database, the description of one that waits, what was
// last known of a cluster.
var spoolFile = regexp.MustCompile(`^backupd-.+\.(spool|pending\.json|record\.json)$`)

// byLock refuses a file that a server holds: it locks its database with flock(2), as bbolt
// does, and its WAL segments with fcntl(2). dir is what the refusal speaks of.
func byLock(dir, path string, kind fs.FileMode) error {
	var held bool
	var err error
	switch name := filepath.Base(path); {
	case kind&^fs.ModeSymlink != 0:
		return nil // a folder, or a pipe, which would block
	case strings.HasSuffix(name, ".wal"):
		held, err = segmentHeld(path)
	case name == "db":
		held, err = databaseHeld(path)
	}
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	if held {
		return running(dir, path)
	}
	return nil
}

func segmentHeld(path string) (bool, error) {
	l, err := fileutil.TryLockFile(path, os.O_WRONLY, fileutil.PrivateFileMode)
	switch {
	case errors.Is(err, fileutil.ErrLocked):
		return true, nil
	case absent(err) || errors.Is(err, syscall.EISDIR):
		return false, nil
	case err != nil:
		return false, err
	}
	return false, l.Close() // nothing was written
}

func databaseHeld(path string) (bool, error) {
	db, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if absent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer db.Close() // only locked
	return errors.Is(disk.TryLock(db, disk.Exclusive), disk.ErrInUse), nil
}

// absent reports whether the file or one of its parent directories does not exist.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

const ownFolder = "give the restored data a folder of its own"
