//go:build unix && !linux

package etcddb

import (
	"os"
	"syscall"
)

func executable() (string, error) { return os.Executable() }

func childAttributes() *syscall.SysProcAttr { return nil }

// populate exists on Linux only.
const populate = 0
