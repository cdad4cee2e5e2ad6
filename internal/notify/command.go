package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"

	"github.com/etcd-backupd/backupd/internal/secret"
)

const (
	commandTimeout = 30 * time.Second
	// maxOutput is how much of a command's output is logged.
	maxOutput = 4096
	// tryAgain is the exit code that asks for another try (EX_TEMPFAIL of
	// sysexits.h).
	tryAgain = 75
)

// Command is a program that runs for every event, without a shell. It gets the event
// as JSON on its standard input. Its environment holds PATH, the parts of the event as
// BACKUPD_EVENT_*, and Env: nothing else of the daemon's, which may hold secrets of
// others. Exit code 75 asks for another try.
type Command struct {
	Program string
	Args    []string          // may hold secrets: they are never shown
	Env     map[string]string // by the name of the variable; they are never shown
}

// variable is a name that every shell accepts.
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckVariable returns why a variable of [Command.Env] cannot have this name, or nil.
func CheckVariable(name string) error {
	switch {
	case !variable.MatchString(name):
		return fmt.Errorf("%q is no name of a variable: want letters, digits and _", name)
	case strings.HasPrefix(name, eventPrefix):
		return fmt.Errorf("%s: the variables %s* tell the event", name, eventPrefix)
	}
	return nil
}

// CheckProgram returns why a program cannot be started, or nil. A text that looks like a
// whole command line is not shown: it may hold secrets.
func CheckProgram(name string) error {
	_, err := exec.LookPath(name)
	if err != nil && strings.ContainsFunc(name, unicode.IsSpace) {
		return errors.New("there is no such program: it holds spaces, and arguments belong in args " +
			"(it is not shown, because it may hold a secret)")
	}
	return err
}

type program struct {
	Command
	timeout time.Duration
}

func (c Command) prepare() (sender, error) {
	if c.Program == "" {
		return nil, errors.New("command: the program is missing")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		if err := CheckVariable(name); err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
	}
	if err := CheckProgram(c.Program); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return &program{c, commandTimeout}, nil
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
	cmd := exec.CommandContext(ctx, p.Program, p.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(event), out, out
	cmd.Env = p.environment(e)
	// In a process group of its own, so that its children are killed with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if text := strings.TrimSpace(string(out.b)); text != "" {
		log.Info("output of a notification command", "command", p.Program, "output", p.mask(text, len(out.b) < maxOutput))
	}
	switch exit, ok := errors.AsType[*exec.ExitError](err); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return backoff.Permanent(fmt.Errorf("%s: %w", p.Program, context.Cause(ctx)))
	case errors.Is(err, exec.ErrWaitDelay):
		return nil // it succeeded; processes that it left behind are its own affair
	case ok && exit.ExitCode() == tryAgain:
		return fmt.Errorf("%s: %w", p.Program, err)
	default:
		return backoff.Permanent(fmt.Errorf("%s: %w", p.Program, err))
	}
}

// Lengths from which on texts are masked: whole arguments and values, and the words in
// them. Shorter ones are parts of many words.
const (
	shortestSecret = 4
	shortestWord   = 8
)

// mask returns the output of the program without the arguments and variables that it
// repeats, whole or in part. whole says that the output was not cut off.
func (p *program) mask(text string, whole bool) string {
	secrets := p.secrets()
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, secret.Mask)
	}
	if whole {
		return text
	}
	return text[:len(text)-cut(text, secrets)]
}

// secrets returns all texts that may be secrets, the longest first: a short one may be a
// part of it.
func (p *program) secrets() []string {
	var out []string
	add := func(s string, shortest int) {
		if s = strings.TrimSpace(s); len(s) >= shortest && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, s := range slices.Concat(p.Args, slices.Collect(maps.Values(p.Env))) {
		add(s, shortestSecret)
		for line := range strings.Lines(s) {
			add(line, shortestSecret)
		}
		if _, value, ok := strings.Cut(s, "="); ok && strings.HasPrefix(s, "-") {
			add(value, shortestSecret)
		}
		// The parts of a URL or of a script.
		for _, word := range strings.FieldsFunc(s, func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._~+", r)
		}) {
			add(word, shortestWord)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// cut returns the length of the end of a text that may be the beginning of a secret: the
// output is kept up to a length.
func cut(text string, secrets []string) int {
	longest := 0
	for _, s := range secrets {
		for n := min(len(s)-1, len(text)); n > longest; n-- {
			if strings.HasSuffix(text, s[:n]) {
				longest = n
			}
		}
	}
	return longest
}

const eventPrefix = "BACKUPD_EVENT_"

// environment returns the whole environment of the program. The kernel accepts
// neither long values nor zero bytes.
func (p *program) environment(e Event) []string {
	var out []string
	if path, ok := os.LookupEnv("PATH"); ok {
		out = append(out, "PATH="+path)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		out = append(out, name+"="+p.Env[name])
	}
	for _, v := range [][2]string{
		{"KIND", string(e.Kind)}, {"JOB", e.Job}, {"REPOSITORY", e.Repository}, {"CLUSTER", e.Cluster},
		{"TIME", stamp(e.Time)}, {"SNAPSHOT", e.Snapshot}, {"REVISION", number(e.Revision)},
		{"ERROR", e.Error}, {"HINT", e.Hint}, {"SINCE", stamp(e.Since)},
		{"FILE", e.File}, {"EXPIRES", stamp(e.Expires)}, {"TEXT", e.line()},
	} {
		out = append(out, eventPrefix+v[0]+"="+strings.ReplaceAll(clip(v[1], 10_000), "\x00", ""))
	}
	return out
}

// number is empty where there is none.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
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
