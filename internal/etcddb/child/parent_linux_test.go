package child

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestRun_ParentKilled: a child does not outlive its parent. It would hold the
// database, and nobody would read its answer.
func TestRun_ParentKilled(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env, parent.ExtraFiles = append(os.Environ(), parentEnv+"=1"), []*os.File{w}
	if err := errors.Join(parent.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	// The pipe ends when the last process that has it ends.
	began := make([]byte, 1)
	if _, err := io.ReadFull(r, began); err != nil {
		t.Fatalf("the child did not begin: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("after its parent was killed the child lives on: %q, %v", rest, err)
	}
}
