package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// access is whose a new file is, and who may use it besides. Whoever can use a folder of the
// store must be able to use what is made there: a file that one command of root leaves
// behind must not lock the daemon out, which runs as another user.
type access struct {
	uid, gid int
	shared   bool // the group may write, so it is meant to share the store
}

// accessIn returns the access that new files in a folder need.
func accessIn(root *os.Root, dir string) (access, error) {
	info, err := root.Stat(name(dir))
	if err != nil {
		return access{}, err
	}
	a := accessOf(info)
	// Where everybody may write, as in /tmp, nothing is said about the group.
	a.shared = info.Mode().Perm()&0o022 == 0o020
	return a, nil
}

func accessOf(info fs.FileInfo) access {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return access{uid: -1, gid: -1}
	}
	return access{uid: int(st.Uid), gid: int(st.Gid)}
}

// asMade reports whether a file has that access as this process makes it.
func (a access) asMade() bool {
	return !a.shared && (os.Geteuid() != 0 || a.uid == 0 && a.gid == os.Getegid())
}

// place is an open folder in which files and folders are made.
type place struct {
	*os.Root
	disk steps
}

// own gives a file or folder that this process has just made the access that it needs. For
// root it is an error if that is not possible: what nobody else can read would stop whoever
// else uses the store.
func (p place) own(file string, want access) error {
	if want.asMade() {
		return nil
	}
	info, err := p.Lstat(file)
	if err != nil {
		return err
	}
	uid, got := -1, accessOf(info)
	if os.Geteuid() == 0 {
		uid = want.uid
	}
	if got.uid != want.uid && uid >= 0 || got.gid != want.gid {
		err := p.disk.Own(p.Root, file, uid, want.gid)
		switch {
		case err != nil && os.Geteuid() == 0:
			return foreign(filepath.Join(p.Name(), filepath.Dir(file)), got, want, err)
		case err != nil: // the owner of the folder is not in its group
			return nil
		}
	}
	if !want.shared {
		return nil
	}
	mode := fs.FileMode(0o660)
	if info.IsDir() {
		mode = 0o770 | fs.ModeSetgid
	}
	return p.Chmod(file, mode)
}

func foreign(folder string, got, want access, err error) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the folder %s belongs to user %d and group %d, who could not read what user %d stores there: %v",
		folder, want.uid, want.gid, got.uid, err)}, "run the command as the user that the folder belongs to")
}

// makeFolders makes the folders of dir that are missing. One call at a time may make any: a
// folder replaces one that is still empty.
func (p place) makeFolders(dir string) error {
	made := "."
	for segment := range strings.SplitSeq(dir, "/") {
		parent := made
		made = path.Join(made, segment)
		if _, err := p.Stat(name(made)); errors.Is(err, fs.ErrNotExist) {
			err = p.makeFolder(parent, made)
			if err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes one folder, which gets its name only when it has its owner: it must not
// be there for a moment, or after a crash, as one that nobody else can use.
func (p place) makeFolder(parent, folder string) error {
	want, err := accessIn(p.Root, parent)
	if err != nil {
		return err
	}
	if want.asMade() {
		if err := p.Mkdir(name(folder), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	}
	temp := name(path.Join(parent, tempName()))
	if err := p.Mkdir(temp, 0o700); err != nil {
		return err
	}
	err = p.own(temp, want)
	if err == nil {
		err = p.Rename(temp, name(folder))
	}
	if err == nil {
		return nil
	}
	err = storage.AndLeft(err, remove(p.Root, temp))
	if info, serr := p.Stat(name(folder)); serr == nil && info.IsDir() { // somebody else was quicker
		return nil
	}
	return err
}

// explain adds to an error of missing permission what to do about it.
func explain(root string, err error) error {
	if !errors.Is(err, fs.ErrPermission) || errors.As(err, new(*backup.HintError)) {
		return err
	}
	return backup.WithHint(err, "everything in the folder must belong to the user that backupd runs as, or to one group "+
		"that may write there: did root copy or make something? 'chown -R --reference=%[1]s %[1]s' mends it",
		root)
}
