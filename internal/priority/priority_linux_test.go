package priority_test

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/priority"
)

// timesEnv makes this program one that lowers its priority so many times and prints
// what its threads and a child process of it have.
const timesEnv = "PRIORITY_TEST_TIMES"

func TestMain(m *testing.M) {
	times, err := strconv.Atoi(os.Getenv(timesEnv))
	if err != nil {
		os.Exit(m.Run())
	}
	if err := lowerAndPrint(times); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func lowerAndPrint(times int) error {
	defer startThread()()
	for range times {
		if err := priority.Lower(); err != nil {
			return err
		}
	}
	defer startThread()()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		fmt.Println(nice(id))
	}
	child := exec.Command("nice")
	child.Stdout = os.Stdout
	return child.Run()
}

// startThread starts a thread of its own. The caller ends it by the function returned.
func startThread() (end func()) {
	var running, ended sync.WaitGroup
	stop := make(chan struct{})
	running.Add(1)
	ended.Go(func() {
		runtime.LockOSThread()
		running.Done()
		<-stop
	})
	running.Wait()
	return func() { close(stop); ended.Wait() }
}

func nice(thread int) int {
	raw, err := syscall.Getpriority(syscall.PRIO_PROCESS, thread)
	if err != nil {
		return -100
	}
	return 20 - raw
}

// TestLower: every thread has the lower priority, also one that was there before, one
// that is started later, and a child process. It never becomes lower than the lowest.
func TestLower(t *testing.T) {
	before := nice(0)
	for times, want := range []int{before, min(before+10, 19), min(before+20, 19)} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), timesEnv+"="+strconv.Itoa(times))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		got := strings.Fields(string(out))
		if len(got) < 4 { // the first thread, two of ours and the child
			t.Errorf("%d threads and processes: %s", len(got), out)
		}
		for _, n := range got {
			if n != strconv.Itoa(want) {
				t.Errorf("lowered %d times from %d, the threads and the child have %v, want %d", times, before, got, want)
				break
			}
		}
	}
}
