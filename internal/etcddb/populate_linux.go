package etcddb

import "syscall"

// populate makes the kernel read a database that is opened for writing in advance
// and in order, as etcd does. bbolt looks at every page to find the free ones, and
// forbids read-ahead.
const populate = syscall.MAP_POPULATE
