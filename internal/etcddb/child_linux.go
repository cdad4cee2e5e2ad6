package etcddb

import "syscall"

// executable names the running program even after the file it was started
// from was replaced.
func executable() (string, error) { return "/proc/self/exe", nil }

// childAttributes makes the child die with its parent.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// populate has the kernel read a database that is opened for writing ahead and
// in order, as etcd does. bbolt looks at every page to find the free ones, and
// forbids read-ahead.
const populate = syscall.MAP_POPULATE
