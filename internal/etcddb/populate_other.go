//go:build unix && !linux

package etcddb

// populate exists on Linux only.
const populate = 0
