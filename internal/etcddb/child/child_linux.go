package child

import "syscall"

// executable returns a path of the running program that stays valid even if its
// file is replaced.
func executable() (string, error) { return "/proc/self/exe", nil }

// childAttributes makes the kernel kill the child when its parent ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
