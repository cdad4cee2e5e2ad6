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
	"strings"
	"syscall"
	"time"
)

// childArgument, as the only argument, makes a program the child.
const childArgument = "etcddb-child"

// MaxAnswerBytes is the longest answer of a child.
const MaxAnswerBytes = 16 << 20

const (
	maxStderrBytes = 16 << 10
	databaseFD     = 3 // the first of exec.Cmd.ExtraFiles
)

// ErrTooLong is returned for an answer of more than [MaxAnswerBytes].
var ErrTooLong = fmt.Errorf("child process: the answer has more than %d bytes", MaxAnswerBytes)

// DeathError is a child that died of the file that it worked on.
type DeathError struct{ How, Detail string }

// Error says how it died.
func (e *DeathError) Error() string { return fmt.Sprintf("died with %s (%s)", e.How, e.Detail) }

// Main must be the first call in main of every program that uses this package. In a
// process that [Run] started, it decodes the request, lets serve do the work,
// encodes its answer and returns ok; then main must exit with the code.
func Main[Request, Answer any](serve func(Request) Answer) (code int, ok bool) {
	if !isChild() {
		return 0, false
	}
	limitChild()
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

// limitChild forbids core dumps, which would contain the keys of the database.
func limitChild() {
	none := syscall.Rlimit{}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &none); err != nil {
		fmt.Fprintf(os.Stderr, "forbid core dumps: %v\n", err)
	}
}

func isChild() bool { return len(os.Args) == 2 && os.Args[1] == childArgument }

// Run starts this program again to do the work of req, which is sent to the child as
// JSON on its standard input. The child writes the answer to its standard output. It
// inherits database, if not nil, as an open file. When ctx ends it is killed.
func Run[Answer any](ctx context.Context, req any, database *os.File) (*Answer, error) {
	if isChild() {
		return nil, errors.New("this program does not call etcddb.ChildMain first")
	}
	input, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	self, err := executable()
	if err != nil {
		return nil, err
	}
	stdout, stderr := &capped{limit: MaxAnswerBytes}, &capped{limit: maxStderrBytes}
	cmd := exec.CommandContext(ctx, self, childArgument)
	cmd.Env = childEnvironment()
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
		return nil, explainDeath(err, stderr.buf.String())
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
			return errors.New("child process was killed, perhaps for lack of memory")
		}
		return fmt.Errorf("child process: %w: %s", err, first)
	}
	switch {
	case strings.Contains(stderr, "[signal SIGBUS"):
		return &DeathError{"SIGBUS", first}
	case strings.Contains(stderr, "[signal SIGSEGV"):
		return &DeathError{"SIGSEGV", first}
	case strings.HasPrefix(first, "panic: ") && strings.Contains(stderr, "go.etcd.io/bbolt"):
		return &DeathError{"a panic", first}
	}
	return fmt.Errorf("child process: %w: %s", err, first)
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
