package etcddb

import "syscall"

// executable returns a path of the running program that stays valid even if its
// file is replaced.
func executable() (string, error) { return "/proc/self/exe", nil }

// childAttributes makes the kernel kill the child when its parent ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// populate makes the kernel read a database that is opened for writing in advance
// and in order, as etcd does. bbolt looks at every page to find the free ones, and
// forbids read-ahead.
const populate = syscall.MAP_POPULATE
