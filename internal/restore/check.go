package restore

import (
	"context"
	"errors"
	"fmt"
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
)

// walReserve is what a new WAL takes: etcd allocates a segment of 64 MiB, and
// the next one ahead of need.
const walReserve = 128 << 20

// checkTargets refuses what would put data at risk, before anything is touched.
func (p *Plan) checkTargets(ctx context.Context) error {
	for _, t := range p.Targets {
		for _, s := range t.slots() {
			if err := p.checkSlot(t, s); err != nil {
				return err
			}
		}
		if err := p.checkListening(ctx, t.Member); err != nil {
			return err
		}
	}
	return p.checkSpace()
}

func (t Target) slots() []*slot {
	if t.wal == nil {
		return []*slot{t.data}
	}
	return []*slot{t.data, t.wal}
}

func (p *Plan) checkSlot(t Target, s *slot) error {
	if err := s.checkJournal(); err != nil {
		return err
	}
	if err := s.checkLocks(); err != nil {
		return err
	}
	if s.nested != "" {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("%s is a mount point in %s, which would have to be moved", s.nested, s.dir)},
			"unmount it; a data directory or a WAL directory may be a mount point itself")
	}
	if len(s.old) > 0 && !p.req.Replace {
		return s.occupied()
	}
	return p.checkOwner(t, s)
}

func (s *slot) occupied() error {
	reason := fmt.Sprintf("data-dir %q not empty or could not be read", s.dir)
	if s.kind == walSlot {
		reason = fmt.Sprintf("wal-dir %q exists and is not empty", s.dir)
	}
	return backup.WithHint(&backup.RefusedError{Reason: reason, Override: "--replace"},
		"--replace moves what is there aside (it is never deleted), or name another folder")
}

// checkLocks refuses a folder that a running etcd holds: it locks its database
// with flock(2), as bbolt does, and its WAL segments with fcntl(2).
func (s *slot) checkLocks() error {
	if !s.exists {
		return nil
	}
	wal := filepath.Join(s.dir, s.wal)
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
			return s.held(path)
		case err == nil:
			_ = l.Close() // nothing was written
		case !absent(err):
			return fmt.Errorf("look for a running server: %w", err)
		}
	}
	if s.kind == walSlot {
		return nil
	}
	return s.checkDatabase(filepath.Join(s.dir, "member", "snap", "db"))
}

func (s *slot) checkDatabase(path string) error {
	f, err := os.Open(path)
	if absent(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return s.held(path)
	}
	return nil
}

func (s *slot) held(file string) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("a running process holds %s", file)},
		"stop the etcd server that uses %s first", s.dir)
}

// checkListening refuses while something listens on the member's own peer
// address on this host: it is most likely the member that is to be replaced.
func (p *Plan) checkListening(ctx context.Context, m Member) error {
	if p.req.AllowRunning {
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
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("a server listens on %s, the peer URL of member %s", raw, m.Name), Override: "--allow-running"},
			"stop it first; --allow-running restores all the same, for data that is started elsewhere or later")
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

// checkSpace adds up what each file system will be asked for.
func (p *Plan) checkSpace() error {
	type device struct {
		root       string
		free, need int64
	}
	devices := map[uint64]*device{}
	for _, t := range p.Targets {
		for _, s := range t.slots() {
			need := int64(walReserve)
			if s.kind == dataSlot && t.wal != nil {
				need = 1 << 20
			}
			if s.kind == dataSlot {
				need += p.Source.Bytes
			}
			var st unix.Statfs_t
			var id syscall.Stat_t
			root := s.root()
			if err := errors.Join(unix.Statfs(root, &st), syscall.Stat(root, &id)); err != nil {
				return fmt.Errorf("ask for free space of %s: %w", root, err)
			}
			d := devices[uint64(id.Dev)]
			if d == nil {
				d = &device{root: root, free: int64(st.Bavail) * int64(st.Bsize)}
				devices[uint64(id.Dev)] = d
			}
			d.need += need
		}
	}
	for _, d := range devices {
		if d.free < d.need {
			return fmt.Errorf("the file system of %s has %d bytes free, the restore needs %d: %w", d.root, d.free, d.need, unix.ENOSPC)
		}
	}
	return nil
}

// ownerOf is who will own what is restored into s.
func (p *Plan) ownerOf(t Target, s *slot) Owner {
	switch {
	case p.req.Owner != nil:
		return *p.req.Owner
	case s.owner != nil:
		return *s.owner
	}
	// One server uses both.
	for _, other := range t.slots() {
		if other.owner != nil {
			return *other.owner
		}
	}
	return Owner{os.Geteuid(), os.Getegid()}
}

// checkOwner refuses early what chown(2) would refuse at the end.
func (p *Plan) checkOwner(t Target, s *slot) error {
	want := p.ownerOf(t, s)
	if os.Geteuid() == 0 || want.UID == os.Geteuid() && want.GID == os.Getegid() {
		return nil
	}
	return backup.WithHint(fmt.Errorf("only root can give %s to %d:%d", s.dir, want.UID, want.GID),
		"run as root, or give --chown %d:%d to keep the files yours", os.Geteuid(), os.Getegid())
}
