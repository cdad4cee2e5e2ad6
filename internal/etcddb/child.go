package etcddb

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// childArgument, as the only argument, makes a program the child.
const childArgument = "etcddb-child"

const (
	maxAnswerBytes = 16 << 20
	maxStderrBytes = 16 << 10
	databaseFD     = 3 // the first of exec.Cmd.ExtraFiles
)

type operation string

const (
	opInspect operation = "inspect"
	opNewest  operation = "newest"
	opHash    operation = "hash"
	opPrepare operation = "prepare"
)

// request is sent to the child as JSON on its standard input. The child writes a
// response to its standard output.
type request struct {
	Op              operation       `json:"op"`
	Revision        backup.Revision `json:"revision,omitempty"`
	CompactRevision backup.Revision `json:"compactRevision,omitempty"`
	Path            string          `json:"path,omitempty"`
	Prepare         *PrepareOptions `json:"prepare,omitempty"`
}

type response struct {
	Facts  *Facts          `json:"facts,omitempty"`
	Newest backup.Revision `json:"newest,omitempty"`
	HashKV *backup.HashKV  `json:"hashKV,omitempty"`
	Error  *childError     `json:"error,omitempty"`
}

// childError carries an error through JSON, with the properties that callers
// branch on.
type childError struct {
	Text       string `json:"text"`
	Corrupt    bool   `json:"corrupt,omitempty"`
	NotExist   bool   `json:"notExist,omitempty"`
	Permission bool   `json:"permission,omitempty"`
}

func newChildError(err error) *childError {
	return &childError{
		Text:       err.Error(),
		Corrupt:    errors.Is(err, backup.ErrCorrupt),
		NotExist:   errors.Is(err, fs.ErrNotExist),
		Permission: errors.Is(err, fs.ErrPermission),
	}
}

func (e *childError) Error() string { return e.Text }

func (e *childError) Is(target error) bool {
	return e.Corrupt && target == backup.ErrCorrupt ||
		e.NotExist && target == fs.ErrNotExist ||
		e.Permission && target == fs.ErrPermission
}

// ChildMain must be the first call in main, or in the TestMain of a test, of every
// program that uses this package. In a process that this package started as its
// child, it does the child's work and returns ok; then main must exit with the
// code.
func ChildMain() (code int, ok bool) {
	if !isChild() {
		return 0, false
	}
	limitChild()
	var req request
	if err := json.NewDecoder(os.Stdin).Decode(&req); err != nil {
		fmt.Fprintf(os.Stderr, "read request: %v\n", err)
		return 1, true
	}
	resp, err := serve(req)
	if err != nil {
		resp = &response{Error: newChildError(err)}
	}
	if err := json.NewEncoder(os.Stdout).Encode(resp); err != nil {
		fmt.Fprintf(os.Stderr, "write answer: %v\n", err)
		return 1, true
	}
	return 0, true
}

func isChild() bool { return len(os.Args) == 2 && os.Args[1] == childArgument }

// serve does the work of a request, in the child.
func serve(req request) (resp *response, err error) {
	resp = &response{}
	if req.Op == opPrepare {
		return resp, prepare(req.Path, *req.Prepare)
	}
	file := os.NewFile(databaseFD, "database")
	err = withImage(file, func(im *image) (err error) {
		switch req.Op {
		case opInspect:
			resp.Facts, err = inspect(im)
		case opNewest:
			resp.Newest, err = newest(im)
		case opHash:
			resp.HashKV, err = hashAtCompaction(im, req.Revision, req.CompactRevision)
		default:
			err = fmt.Errorf("operation %q is not known", req.Op)
		}
		return err
	})
	return resp, err
}

// runChild starts this program again to do the work of req. The child inherits
// database, if not nil, as an open file.
func runChild(ctx context.Context, req request, database *os.File) (*response, error) {
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
	stdout, stderr := &capped{limit: maxAnswerBytes}, &capped{limit: maxStderrBytes}
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
	return readAnswer(stdout)
}

func readAnswer(out *capped) (*response, error) {
	if out.over {
		return nil, backup.Corruptf("database lists more than %d bytes of members and alarms", maxAnswerBytes)
	}
	var resp response
	if err := json.Unmarshal(out.buf.Bytes(), &resp); err != nil {
		return nil, fmt.Errorf("decode answer of child process: %w", err)
	}
	if resp.Error != nil {
		return nil, resp.Error
	}
	return &resp, nil
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
			return damaged(status.Signal().String(), first)
		case syscall.SIGKILL:
			return errors.New("child process was killed, perhaps for lack of memory")
		}
		return fmt.Errorf("child process: %w: %s", err, first)
	}
	switch {
	case strings.Contains(stderr, "[signal SIGBUS"):
		return damaged("SIGBUS", first)
	case strings.Contains(stderr, "[signal SIGSEGV"):
		return damaged("SIGSEGV", first)
	case strings.HasPrefix(first, "panic: ") && strings.Contains(stderr, "go.etcd.io/bbolt"):
		return damaged("a panic", first)
	}
	return fmt.Errorf("child process: %w: %s", err, first)
}

func damaged(how, detail string) error {
	return backup.Corruptf("database is damaged: working on it died with %s (%s)", how, detail)
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
