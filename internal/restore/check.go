package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// walReserve is the space of a new WAL: etcd allocates a segment of 64 MiB, and
// the next segment in advance.
const walReserve = 128 << 20

// checkTarget refuses a target where a restore would put data at risk.
func (s *Site) checkTarget(ctx context.Context, t Target) error {
	for _, f := range t.folders() {
		if err := f.CheckJournal(); err != nil {
			return err
		}
		if err := f.checkLocks(); err != nil {
			return err
		}
		if f.Nested != "" {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s is a mount point in %s, which would have to be moved", f.Nested, f.Dir)},
				"unmount it; a data directory or a WAL directory may be a mount point itself")
		}
		if len(f.Old) > 0 && !s.Replace {
			return f.occupied()
		}
		if err := s.checkOwner(t, f); err != nil {
			return err
		}
	}
	return s.checkListening(ctx, t.Member)
}

func (f *folder) occupied() error {
	reason := fmt.Sprintf("data-dir %q not empty or could not be read", f.Dir)
	if f.kind == walFolder {
		reason = fmt.Sprintf("wal-dir %q exists and is not empty", f.Dir)
	}
	return backup.WithHint(&backup.RefusedError{Reason: reason, Override: "--replace"},
		"--replace moves the data there aside (it is never deleted); or choose another folder")
}

// checkLocks refuses a folder that a running etcd holds: it locks its database
// with flock(2), as bbolt does, and its WAL segments with fcntl(2).
func (f *folder) checkLocks() error {
	if !f.Exists {
		return nil
	}
	wal := filepath.Join(f.Dir, f.wal)
	entries, err := os.ReadDir(wal)
	if err != nil && !absent(err) {
		return fmt.Errorf("look for a running server: %w", err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".wal") {
			continue
		}
		path := filepath.Join(wal, e.Name())
		l, err := fileutil.TryLockFile(path, os.O_WRONLY, fileutil.PrivateFileMode)
		switch {
		case errors.Is(err, fileutil.ErrLocked):
			return f.held(path)
		case err == nil:
			_ = l.Close() // nothing was written
		case !absent(err):
			return fmt.Errorf("look for a running server: %w", err)
		}
	}
	if f.kind == walFolder {
		return nil
	}
	return f.checkDatabase(filepath.Join(f.Dir, "member", "snap", "db"))
}

func (f *folder) checkDatabase(path string) error {
	db, err := os.Open(path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	defer db.Close() //nolint:errcheck // only locked
	if err := disk.TryLock(db, disk.Exclusive); errors.Is(err, disk.ErrInUse) {
		return f.held(path)
	}
	return nil
}

// absent reports whether the file or one of its parent directories does not
// exist.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (f *folder) held(file string) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("a running process holds %s", file)},
		"stop the etcd server that uses %s first", f.Dir)
}

// checkListening refuses while something listens on the peer address of the member
// on this host. Most likely it is the member that is to be replaced.
func (s *Site) checkListening(ctx context.Context, m backup.Member) error {
	if s.AllowRunning {
		return nil
	}
	for _, raw := range m.PeerURLs {
		u, err := url.Parse(raw)
		if err != nil {
			return fmt.Errorf("parse peer URL: %w", err)
		}
		if !isLocal(ctx, u.Hostname()) {
			continue
		}
		d := net.Dialer{Timeout: 500 * time.Millisecond}
		conn, err := d.DialContext(ctx, "tcp", u.Host)
		if err != nil {
			continue
		}
		_ = conn.Close()
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"a server listens on %s, the peer URL of member %s", raw, m.Name), Override: "--allow-running"},
			"stop it first; --allow-running restores all the same, if the new data will be started elsewhere or later")
	}
	return nil
}

// isLocal reports whether host is an address of this machine.
func isLocal(ctx context.Context, host string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, ip := range ips {
		if ip.IP.IsLoopback() {
			return true
		}
		for _, a := range own {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip.IP) {
				return true
			}
		}
	}
	return false
}

// checkSpace checks each file system for the space of all targets in it, with a
// database of that size for each.
func checkSpace(targets []Target, database int64) error {
	type device struct {
		root       string
		free, need int64
	}
	devices := map[uint64]*device{}
	for _, t := range targets {
		for _, f := range t.folders() {
			root := f.Root()
			fs, err := disk.FileSystemOf(root)
			if err != nil {
				return err
			}
			if devices[fs.Device] == nil {
				devices[fs.Device] = &device{root: root, free: fs.Free}
			}
			devices[fs.Device].need += t.needs(f, database)
		}
	}
	for _, d := range devices {
		if d.free < d.need {
			return fmt.Errorf("the file system of %s has %d bytes free, the restore needs %d: %w",
				d.root, d.free, d.need, unix.ENOSPC)
		}
	}
	return nil
}

// needs returns the space that will be built in f.
func (t Target) needs(f *folder, database int64) int64 {
	switch {
	case f.kind == walFolder:
		return walReserve
	case t.wal != nil:
		return database + 1<<20
	}
	return database + walReserve
}

// checkOwner refuses a change of owner that chown(2) would refuse at the end.
func (s *Site) checkOwner(t Target, f *folder) error {
	want := s.ownerOf(t, f)
	if os.Geteuid() == 0 || want.UID == os.Geteuid() && want.GID == os.Getegid() {
		return nil
	}
	return backup.WithHint(fmt.Errorf("only root can give %s to %d:%d", f.Dir, want.UID, want.GID),
		"run as root, or give --chown %d:%d to keep the files yours", os.Geteuid(), os.Getegid())
}
