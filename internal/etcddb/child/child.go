// Package child does work on a file that may kill the process that does it: the
// program starts itself again, and a child that dies of the file is a [DeathError].
// bbolt maps a database and trusts it, so a damaged one is such a file.
package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Role says what work a child does. It is the only argument of the child, with
// roleSuffix.
type Role string

const roleSuffix = "-child"

// MaxAnswerBytes is the longest answer of a child.
const MaxAnswerBytes = 16 << 20

const (
	maxStderrBytes = 16 << 10
	databaseFD     = 3 // the first of exec.Cmd.ExtraFiles
	// roomVariable tells the child how many bytes of memory it may take.
	roomVariable = "BACKUPD_CHILD_MEMORY"
)

// children counts those that run: they share what memory there is.
var children atomic.Int64

// roomFor returns how much memory one of so many children may take. A test sets it.
var roomFor = func(children int64) int64 { return share(memoryRoom(), children) }

// share divides what there is, if that is known. With less than leastRoom no child could
// begin.
func share(room, children int64) int64 {
	const leastRoom = 64 << 20
	if room == 0 {
		return 0
	}
	return max(room/children, leastRoom)
}

// ErrTooLong is returned for an answer of more than [MaxAnswerBytes].
var ErrTooLong = fmt.Errorf("child process: the answer has more than %d bytes", MaxAnswerBytes)

// MemoryError is a child that needed more memory than it may take.
type MemoryError struct {
	// Limit is how much it was allowed, in bytes; 0 if nothing but the host bounds it.
	Limit int64
	// Killed reports that the kernel has killed it, before it came to the limit.
	Killed bool
}

// Error says what happened.
func (e *MemoryError) Error() string {
	switch {
	case e.Killed:
		return "child process was killed by the kernel for lack of memory"
	case e.Limit > 0:
		return fmt.Sprintf("child process needs more memory than the %d MiB that are left for it", e.Limit>>20)
	}
	return "child process found no more memory"
}

// DeathError is a child that died of the file that it worked on.
type DeathError struct{ How, Detail string }

// Error says how it died.
func (e *DeathError) Error() string { return fmt.Sprintf("died with %s (%s)", e.How, e.Detail) }

// Main must be called for every role first in main of every program that uses this package. In
// a process that [Run] started in this role, it decodes the request, lets serve do the
// work, encodes its answer and returns ok; then main must exit with the code.
func Main[Request, Answer any](role Role, serve func(Request) Answer) (code int, ok bool) {
	if !isChild() || os.Args[1] != string(role)+roleSuffix {
		return 0, false
	}
	forbidCores()
	allowed, err := strconv.ParseInt(os.Getenv(roomVariable), 10, 64)
	if err == nil {
		err = limitMemory(allowed)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "limit memory: %v\n", err)
	}
	var req Request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		fmt.Fprintf(os.Stderr, "read request: %v\n", err)
		return 1, true
	}
	if err := json.NewEncoder(os.Stdout).Encode(serve(req)); err != nil {
		fmt.Fprintf(os.Stderr, "write answer: %v\n", err)
		return 1, true
	}
	return 0, true
}

// Database returns, in the child, the open file that it has inherited.
func Database() *os.File { return os.NewFile(databaseFD, "database") }

// forbidCores forbids core dumps, which would contain the keys of the database.
func forbidCores() {
	none := syscall.Rlimit{}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &none); err != nil {
		fmt.Fprintf(os.Stderr, "forbid core dumps: %v\n", err)
	}
}

func isChild() bool { return len(os.Args) == 2 && strings.HasSuffix(os.Args[1], roleSuffix) }

// Run starts this program again to do the work of req in a role. The request is sent to the child as
// JSON on its standard input. The child writes the answer to its standard output. It
// inherits database, if not nil, as an open file. When ctx ends it is killed.
func Run[Answer any](ctx context.Context, role Role, req any, database *os.File) (*Answer, error) {
	if isChild() {
		return nil, errors.New("this program does not call the ChildMain of each package first")
	}
	input, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	self, err := executable()
	if err != nil {
		return nil, err
	}
	defer children.Add(-1)
	allowed, killed := roomFor(children.Add(1)), memoryKills()
	stdout, stderr := &capped{limit: MaxAnswerBytes}, &capped{limit: maxStderrBytes}
	cmd := exec.CommandContext(ctx, self, string(role)+roleSuffix)
	cmd.Env = append(childEnvironment(), fmt.Sprintf("%s=%d", roomVariable, allowed))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), stdout, stderr
	cmd.SysProcAttr = childAttributes()
	cmd.WaitDelay = 10 * time.Second
	if database != nil {
		cmd.ExtraFiles = []*os.File{database}
	}
	done := make(chan error)
	go func() {
		// The child is killed when the thread that started it ends, so the
		// thread must live as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	if err := <-done; err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		err = explainDeath(err, stderr.buf.String())
		var lack *MemoryError
		switch {
		case errors.As(err, &lack):
			lack.Limit = allowed
		case errors.Is(err, errKilled) && memoryKills() > killed:
			return nil, &MemoryError{Limit: allowed, Killed: true}
		}
		return nil, err
	}
	return readAnswer[Answer](stdout)
}

func readAnswer[Answer any](out *capped) (*Answer, error) {
	if out.over {
		return nil, ErrTooLong
	}
	var answer Answer
	if err := json.Unmarshal(out.buf.Bytes(), &answer); err != nil {
		return nil, fmt.Errorf("decode answer of child process: %w", err)
	}
	return &answer, nil
}

// childEnvironment returns an environment without anything that could be a
// secret. Its memory limit is soft: the child collects garbage more often before
// it exceeds it. The race detector and the coverage of tests get their variables;
// without atexit_sleep_ms a child under the race detector would sleep a second
// before it ends.
func childEnvironment() []string {
	env := []string{
		"GOGC=50", "GOMEMLIMIT=128MiB", "GOTRACEBACK=single",
		"GORACE=" + os.Getenv("GORACE") + " atexit_sleep_ms=0",
	}
	if dir, ok := os.LookupEnv("GOCOVERDIR"); ok {
		env = append(env, "GOCOVERDIR="+dir)
	}
	return env
}

var errKilled = errors.New("child process was killed, perhaps for lack of memory")

// explainDeath distinguishes damage of the database from problems of the machine
// by the way the child ended. Go's runtime reports a bad memory access on standard
// error and exits with code 2.
func explainDeath(err error, stderr string) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("start child process: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		switch status.Signal() {
		case syscall.SIGBUS, syscall.SIGSEGV:
			return &DeathError{status.Signal().String(), first}
		case syscall.SIGKILL:
			return errKilled
		}
		return fmt.Errorf("child process: %w: %s", err, first)
	}
	switch {
	case lacksMemory(stderr):
		return &MemoryError{}
	case strings.Contains(stderr, "[signal SIGBUS"):
		return &DeathError{"SIGBUS", first}
	case strings.Contains(stderr, "[signal SIGSEGV"):
		return &DeathError{"SIGSEGV", first}
	case strings.HasPrefix(first, "panic: ") && strings.Contains(stderr, "go.etcd.io/bbolt"):
		return &DeathError{"a panic", first}
	}
	return fmt.Errorf("child process: %w: %s", err, first)
}

// lacksMemory reports whether Go's runtime ended because the kernel gave it no memory. Its collector
// does not ask whether it was given some for a queue of its own, and then reads at address 0
// (Go 1.26, runtime/mgcmark_greenteagc.go).
func lacksMemory(stderr string) bool {
	if strings.HasPrefix(stderr, "SIGSEGV") && strings.Contains(stderr, " addr=0x0\n") &&
		strings.Contains(stderr, "\nruntime.(*spanQueue)") {
		return true
	}
	for line := range strings.Lines(stderr) {
		why, fatal := strings.CutPrefix(line, "fatal error: ")
		if fatal && (strings.Contains(why, "out of memory") || strings.Contains(why, "cannot allocate memory")) {
			return true
		}
	}
	return false
}

// capped keeps the first bytes written to it and drops the rest.
type capped struct {
	buf   bytes.Buffer
	limit int
	over  bool
}

var _ io.Writer = (*capped)(nil)

func (c *capped) Write(p []byte) (int, error) {
	keep := min(len(p), c.limit-c.buf.Len())
	c.buf.Write(p[:keep])
	c.over = c.over || keep < len(p)
	return len(p), nil
}
