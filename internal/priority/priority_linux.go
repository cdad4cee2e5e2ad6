package priority

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// tasks lists the threads of this process.
const tasks = "/proc/self/task"

// Lower lowers the priority of every thread of this process, and so of its disk access,
// of the threads that it will start and of its child processes.
func Lower() error {
	lowered := map[string]bool{}
	for {
		threads, err := os.ReadDir(tasks)
		if err != nil {
			return fmt.Errorf("lower the priority: %w", err)
		}
		before := len(lowered)
		for _, t := range threads {
			if lowered[t.Name()] {
				continue
			}
			if err := lower(t.Name()); err != nil {
				return fmt.Errorf("lower the priority: %w", err)
			}
			lowered[t.Name()] = true
		}
		// A thread that was not in the list yet may have started another one.
		if len(lowered) == before {
			return nil
		}
	}
}

func lower(thread string) error {
	id, err := strconv.Atoi(thread)
	if err != nil {
		return err
	}
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, id)
	if err == nil {
		nice := 20 - raw // the system call avoids negative results
		err = syscall.Setpriority(syscall.PRIO_PROCESS, id, min(nice+step, lowest))
	}
	if errors.Is(err, syscall.ESRCH) {
		return nil // it has ended
	}
	return err
}
