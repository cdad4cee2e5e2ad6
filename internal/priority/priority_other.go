//go:build unix && !linux

package priority

import (
	"fmt"
	"syscall"
)

// Lower lowers the priority of this process and of its child processes.
func Lower() error {
	nice, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err == nil {
		err = syscall.Setpriority(syscall.PRIO_PROCESS, 0, min(nice+step, lowest))
	}
	if err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	return nil
}
