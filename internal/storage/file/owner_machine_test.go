//go:build machine

package file

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// daemonUser is some user who is not root.
const daemonUser = 12345

// folderOf makes a folder that belongs to the user.
func folderOf(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test must be run by root")
	}
	dir, err := os.MkdirTemp("", "owner") // not in t.TempDir, which only root may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chown(dir, daemonUser, daemonUser), os.Chmod(dir, mode)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// as runs a command as the user, in a group.
func as(t *testing.T, user, group uint32, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: group}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// TestMachineCreate_ByRoot: root stores something in the folder of another user, who can
// read, add and remove everything afterwards. So can a member of a group that may write.
func TestMachineCreate_ByRoot(t *testing.T) {
	for mode, user := range map[fs.FileMode]uint32{0o700: daemonUser, 0o755: daemonUser, 0o770: 54321} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := folderOf(t, mode)
			s := New(filepath.Join(dir, "repository"))
			if err := s.MakeRoot(); err != nil {
				t.Fatal(err)
			}
			for _, key := range []string{"c1/data/x", "c1/snapshots/x", "marker"} {
				if err := s.Create(t.Context(), key, strings.NewReader("value")); err != nil {
					t.Fatal(err)
				}
				if got := as(t, user, daemonUser, "cat", filepath.Join(s.root, key)); got != "value" {
					t.Errorf("%s: got %q", key, got)
				}
			}
			as(t, user, daemonUser, "touch", filepath.Join(s.root, "c1/data/y"), filepath.Join(s.root, "c1/more"))
			as(t, user, daemonUser, "ls", filepath.Join(s.root, "c1/snapshots"))
			as(t, user, daemonUser, "rm", filepath.Join(s.root, "c1/data/x"))
			err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				info, err := d.Info()
				if err == nil && accessOf(info).uid != daemonUser && user == daemonUser {
					t.Errorf("%s belongs to %d", path, accessOf(info).uid)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// cannotOwn is a file system on which root may not give files away.
type cannotOwn struct{ osDisk }

func (cannotOwn) Own(*os.Root, string, int, int) error { return syscall.EPERM }

// TestMachineCreate_Refused: where root cannot give away what it stores, nothing is stored.
func TestMachineCreate_Refused(t *testing.T) {
	dir := folderOf(t, 0o755)
	if err := os.Mkdir(filepath.Join(dir, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "there"), daemonUser, daemonUser); err != nil {
		t.Fatal(err)
	}
	s := New(dir)
	s.disk = cannotOwn{}
	for _, key := range []string{"there/x", "x", "new/x"} {
		err := s.Create(t.Context(), key, strings.NewReader("value"))
		var refused *backup.RefusedError
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), strconv.Itoa(daemonUser)) {
			t.Errorf("%s: got %v", key, err)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || slices.Contains(files(t, dir), "there/x") {
		t.Errorf("left: %v, %v", left, err)
	}
}
