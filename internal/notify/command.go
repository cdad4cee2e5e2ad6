package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	commandTimeout = 30 * time.Second
	// maxOutput is how much of a command's output is logged.
	maxOutput = 4096
	// tryAgain is the exit code that asks for another try (EX_TEMPFAIL of
	// sysexits.h).
	tryAgain = 75
)

// Command is a program with its arguments. It runs for every event, without a
// shell. It gets the event as JSON on its standard input, and the parts of the
// event in the environment as BACKUPD_EVENT_*. Exit code 75 asks for another try.
type Command struct{ Args []string }

type program struct {
	args    []string
	timeout time.Duration
}

func (c Command) prepare() (sender, error) {
	if len(c.Args) == 0 || c.Args[0] == "" {
		return nil, errors.New("command: the program is missing")
	}
	if _, err := exec.LookPath(c.Args[0]); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return &program{c.Args, commandTimeout}, nil
}

func (p *program) kind() string { return "command" }

func (p *program) send(ctx context.Context, log *slog.Logger, e Event) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout,
		fmt.Errorf("it took longer than %s and was killed", p.timeout))
	defer cancel()
	event, err := json.Marshal(e)
	if err != nil {
		return backoff.Permanent(err)
	}
	out := &firstBytes{max: maxOutput}
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(event), out, out
	cmd.Env = append(os.Environ(), environment(e)...)
	// In a process group of its own, so that its children are killed with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if text := strings.TrimSpace(string(out.b)); text != "" {
		log.Info("output of a notification command", "command", p.args[0], "output", text)
	}
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return backoff.Permanent(fmt.Errorf("%s: %w", p.args[0], context.Cause(ctx)))
	case errors.Is(err, exec.ErrWaitDelay):
		return nil // it succeeded; processes that it left behind are its own affair
	case ok && exit.ExitCode() == tryAgain:
		return fmt.Errorf("%s: %w", p.args[0], err)
	default:
		return backoff.Permanent(fmt.Errorf("%s: %w", p.args[0], err))
	}
}

// environment returns the parts of an event as variables. The kernel accepts
// neither long values nor zero bytes.
func environment(e Event) []string {
	var out []string
	for _, v := range [][2]string{
		{"KIND", string(e.Kind)}, {"JOB", e.Job}, {"REPOSITORY", e.Repository}, {"CLUSTER", e.Cluster},
		{"TIME", stamp(e.Time)}, {"SNAPSHOT", e.Snapshot}, {"REVISION", strconv.FormatInt(e.Revision, 10)},
		{"ERROR", e.Error},
		{"HINT", e.Hint}, {"SINCE", stamp(e.Since)}, {"TEXT", e.String()},
	} {
		out = append(out, "BACKUPD_EVENT_"+v[0]+"="+strings.ReplaceAll(clip(v[1], 10_000), "\x00", ""))
	}
	return out
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// firstBytes keeps the first bytes written to it.
type firstBytes struct {
	b   []byte
	max int
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.b = append(f.b, p[:min(len(p), f.max-len(f.b))]...)
	return len(p), nil
}
