package child

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testRole is that of the children of these tests.
const testRole Role = "test"

// parentEnv makes this program a parent that waits for its child, which never ends.
const parentEnv = "CHILD_TEST_PARENT"

// eaterEnv makes this program a parent whose child takes 1 GiB, and may take as much as
// the other variable says.
const (
	eaterEnv     = "CHILD_TEST_EATER"
	eaterRoomEnv = "CHILD_TEST_ROOM"
)

// answer is what a child tells of itself.
type answer struct {
	Environment []string
	Cores       syscall.Rlimit
	Memory      int64
	Score       string // by which the kernel chooses whom to kill
}

func TestMain(m *testing.M) {
	if code, ok := Main(testRole, serve); ok {
		os.Exit(code)
	}
	if os.Getenv(parentEnv) != "" {
		_, _ = Run[answer](context.Background(), testRole, "wait", os.NewFile(databaseFD, "database"))
		os.Exit(0)
	}
	if os.Getenv(eaterEnv) != "" {
		if room, err := strconv.ParseInt(os.Getenv(eaterRoomEnv), 10, 64); err == nil {
			roomFor = func(int64) int64 { return room }
		}
		_, err := Run[answer](context.Background(), testRole, "eat", nil)
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// eaten is memory that a child takes.
var eaten []byte

func serve(req string) (a answer) {
	if req == "wait" {
		_, _ = Database().WriteString("x")
		time.Sleep(time.Minute)
	}
	if req == "eat" {
		// In one piece, at which the collector begins: see lacksMemory.
		eaten = bytes.Repeat([]byte{1}, 1<<30)
	}
	if raw, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		a.Score = strings.TrimSpace(string(raw))
	}
	a.Environment, a.Memory = os.Environ(), debug.SetMemoryLimit(-1)
	_ = syscall.Getrlimit(syscall.RLIMIT_CORE, &a.Cores)
	return a
}

// allowCores lets this process dump core, and so every child that does not forbid it.
func allowCores(t *testing.T) {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &before); err != nil {
		t.Fatal(err)
	}
	allowed := syscall.Rlimit{Cur: before.Max, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &allowed); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &before); err != nil {
			t.Error(err)
		}
	})
}

// TestRun_Limits: a child has a bound for its memory, dumps no core, which would hold
// the keys of the database, and gets no variable that could be a secret.
func TestRun_Limits(t *testing.T) {
	allowCores(t)
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "BACKUPD_IDENTITY", "GOMEMLIMIT"} {
		t.Setenv(name, "swordfish")
	}
	got, err := Run[answer](t.Context(), testRole, "report", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Memory <= 0 || got.Memory == math.MaxInt64 {
		t.Errorf("the limit of its memory is %d bytes", got.Memory)
	}
	if got.Cores.Cur != 0 || got.Cores.Max != 0 {
		t.Errorf("it may dump cores of %d bytes, and may raise that to %d", got.Cores.Cur, got.Cores.Max)
	}
	allowed := []string{"GOGC", "GOMEMLIMIT", "GOTRACEBACK", "GORACE", "GOCOVERDIR", roomVariable}
	for _, variable := range got.Environment {
		name, value, _ := strings.Cut(variable, "=")
		if !slices.Contains(allowed, name) || value == "swordfish" {
			t.Errorf("it has the variable %s", variable)
		}
	}
}
