package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// TestOpenInput_Ends: a signal ends the wait for who writes to standard input, and an error
// of reading it is told. Nothing stays behind.
func TestOpenInput_Ends(t *testing.T) {
	lost := errors.New("the pipe broke")
	interrupted := &interruptError{os.Interrupt}
	for name, want := range map[string]error{"Interrupted": interrupted, "Broken": lost} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			r, w := io.Pipe()
			go func() {
				_, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) // read before the end
				if want == lost {
					w.CloseWithError(lost)
				} else {
					cancel(interrupted)
				}
			}()
			cmd := &cobra.Command{}
			cmd.SetContext(ctx)
			dir := t.TempDir()
			in, err := (&app{stdin: r}).openInput(cmd, "-", spool.Folder{Dir: dir, MinFree: disk.ReserveOf(0)})
			left, _ := os.ReadDir(dir)
			if in != nil || !errors.Is(err, want) || len(left) > 0 {
				t.Errorf("got %v, %v; left %v", in, err, left)
			}
			r.Close()
			cancel(nil)
		})
	}
}
