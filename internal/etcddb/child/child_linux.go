package child

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

const self = "/proc/self/exe"

// executable returns a path of the running program that stays valid even if its
// file is replaced. Without a proc file system, as in the chroot of a rescue system, it is
// the path by which the program was started.
func executable() (string, error) {
	if _, err := os.Lstat(self); !errors.Is(err, fs.ErrNotExist) {
		return self, nil
	}
	path, err := exec.LookPath(os.Args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return "", fmt.Errorf("find this program without /proc (start it by its whole path): %w", err)
	}
	return filepath.Abs(path)
}

// childAttributes makes the kernel kill the child when its parent ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
