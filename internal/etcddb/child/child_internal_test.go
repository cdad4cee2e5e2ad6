package child

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestExplainDeath ends real processes in every way a child can end.
func TestExplainDeath(t *testing.T) {
	for _, c := range []struct {
		name    string
		script  string
		corrupt bool
		want    string
	}{
		{"BusError", "kill -BUS $$", true, "bus error"},
		{"SegmentationFault", "kill -SEGV $$", true, "segmentation fault"},
		{"GoFault", "echo 'fatal error: fault\n[signal SIGBUS: bus error code=0x2]' >&2; exit 2", true, "SIGBUS"},
		{
			"GoSegfault", "echo 'panic: runtime error\n[signal SIGSEGV: segmentation violation]' >&2; exit 2", true,
			"SIGSEGV",
		},
		{"BboltPanic", "echo 'panic: assertion failed: page 3\ngo.etcd.io/bbolt.(*Tx).page' >&2; exit 2", true,
			"assertion failed"},
		{"OurPanic", "echo 'panic: index out of range\nmain.main()' >&2; exit 2", false, "index out of range"},
		{"Killed", "kill -KILL $$", false, "memory"},
		{"OutOfMemory", "echo 'fatal error: runtime: out of memory' >&2; exit 2", false, "no more memory"},
		{"NoMemory", "echo 'fatal error: runtime: cannot allocate memory' >&2; exit 2", false, "no more memory"},
		{"NoArena", "echo 'fatal error: out of memory allocating heap arena metadata' >&2; exit 2", false, "no more memory"},
		{"Terminated", "kill -TERM $$", false, "terminated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", c.script)
			stderr := &capped{limit: maxStderrBytes}
			cmd.Stderr = stderr
			err := explainDeath(cmd.Run(), stderr.buf.String())
			if isDeath(err) != c.corrupt || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q (corrupt: %v), want %q (corrupt: %v)", err, isDeath(err), c.want, c.corrupt)
			}
		})
	}
	t.Run("NotStarted", func(t *testing.T) {
		err := explainDeath(exec.CommandContext(t.Context(), "/nonexistent").Run(), "")
		if isDeath(err) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("error %v", err)
		}
	})
}

func isDeath(err error) bool {
	var death *DeathError
	return errors.As(err, &death)
}

// TestRun_NoHook would otherwise start programs without end.
func TestRun_NoHook(t *testing.T) {
	defer func(args []string) { os.Args = args }(os.Args)
	os.Args = []string{os.Args[0], string(testRole) + roleSuffix}
	_, err := Run[string](t.Context(), testRole, "a request", nil)
	if err == nil || !strings.Contains(err.Error(), "ChildMain") {
		t.Errorf("error %v, want one that names ChildMain", err)
	}
}

func TestCapped(t *testing.T) {
	c := &capped{limit: 5}
	for _, s := range []string{"abc", "def", "ghi"} {
		if n, err := c.Write([]byte(s)); n != 3 || err != nil {
			t.Fatalf("Write(%q) = %d, %v", s, n, err)
		}
	}
	if c.buf.String() != "abcde" || !c.over {
		t.Errorf("kept %q, over %v", c.buf.String(), c.over)
	}
	if _, err := readAnswer[string](c); !errors.Is(err, ErrTooLong) {
		t.Errorf("an answer that is too long: %v, want ErrTooLong", err)
	}
}
