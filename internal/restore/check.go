package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
	"github.com/etcd-backupd/backupd/internal/restore/room"
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
		if err := inuse.Above(f.Dir); err != nil {
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
		if err := inuse.Below(ctx, f.Dir, staysIn(f.Inside)); err != nil {
			return err
		}
		if foreign := f.foreign(); foreign != nil && !foreign.Few() {
			return foreign.Refusal()
		}
		if err := s.checkOwner(t, f); err != nil {
			return err
		}
	}
	if s.AllowRunning {
		return nil
	}
	return inuse.Listening(ctx, t.Member)
}

// foreign returns what would be moved and is not etcd's.
func (f *folder) foreign() *inuse.ForeignError {
	if f.kind == walFolder {
		return inuse.ForeignWAL(f.Dir, f.Old)
	}
	wal, _, _ := strings.Cut(f.wal, string(filepath.Separator))
	return inuse.ForeignData(f.Dir, f.Old, wal)
}

func (f *folder) occupied() error {
	refused := &backup.RefusedError{Reason: fmt.Sprintf("data-dir %q is not empty", f.Dir), Override: "--replace"}
	var err error = &DataDirError{f.Dir, refused}
	if f.kind == walFolder {
		refused.Reason = fmt.Sprintf("wal-dir %q exists and is not empty", f.Dir) // "exists" is etcdutl's word
		err = refused
	}
	foreign := f.foreign()
	if foreign != nil && foreign.Few() {
		return backup.WithHint(err, "--replace moves the data there aside (it is never deleted), and with it what is not "+
			"etcd's: %s; or choose another folder", foreign.List())
	}
	if foreign != nil {
		refused.Override = ""
		return backup.WithHint(err,
			"choose another folder: --replace moves the data of etcd aside, and there is also %s", foreign.List())
	}
	return backup.WithHint(err,
		"--replace moves the data there aside (it is never deleted); or choose another folder")
}

// staysIn says which entries of a folder a restore does not move: those of earlier ones, if
// the folder is changed inside. Else it is moved as a whole, and a server may run on old
// data in it.
func staysIn(inside bool) func(name string) bool {
	return func(name string) bool { return inside && publish.IsOurs(name) }
}

// checkUse refuses a folder that is used by something that a restore must not disturb.
func checkUse(ctx context.Context, dir string, inside bool) error {
	if err := inuse.Above(dir); err != nil {
		return err
	}
	return inuse.Below(ctx, dir, staysIn(inside))
}

// checkSpace checks each file system for the space of all targets in it, with a database of
// that size for each.
func checkSpace(targets []Target, database int64) error {
	var needs []room.Need
	for _, t := range targets {
		for _, f := range t.folders() {
			needs = append(needs, room.Need{Root: f.Root(), Bytes: t.needs(f, database)})
		}
	}
	return room.Check(needs)
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
