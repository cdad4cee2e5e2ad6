package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestRepeats: of lines that are alike the first is logged, and how many followed.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out guardedBuffer
		handler := newRepeats(slog.NewTextHandler(&out, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		}))
		log := slog.New(handler)
		want := func(what string, lines ...string) {
			t.Helper()
			synctest.Wait()
			if got := strings.TrimSpace(out.take()); got != strings.Join(lines, "\n") {
				t.Errorf("%s: got\n%s", what, got)
			}
		}
		full := errors.New("too many open files")
		a, b := log.With("cluster", "a"), log.With("cluster", "b")
		for i := range 5 {
			a.Warn("a run failed", "in_a_row", i+1, "err", full)
		}
		b.Warn("a run failed", "in_a_row", 1, "err", full)
		a.Warn("a run failed", "in_a_row", 6, "err", errors.New("another"))
		a.Error("a run failed", "in_a_row", 7, "err", full)
		a.Info("nothing to do")
		a.Info("nothing to do")
		want("at once",
			`level=WARN msg="a run failed" cluster=a in_a_row=1 err="too many open files"`,
			`level=WARN msg="a run failed" cluster=b in_a_row=1 err="too many open files"`,
			`level=WARN msg="a run failed" cluster=a in_a_row=6 err=another`,
			`level=ERROR msg="a run failed" cluster=a in_a_row=7 err="too many open files"`,
			`level=INFO msg="nothing to do" cluster=a`,
			`level=INFO msg="nothing to do" cluster=a`)
		time.Sleep(repeatEvery)
		want("after a minute",
			`level=WARN msg="a run failed" cluster=a in_a_row=5 err="too many open files" repeated=4`)
		a.Warn("a run failed", "in_a_row", 6, "err", full)
		b.Warn("a run failed", "in_a_row", 2, "err", full)
		want("in the second minute", `level=WARN msg="a run failed" cluster=b in_a_row=2 err="too many open files"`)
		handler.all.end()
		want("at the end", `level=WARN msg="a run failed" cluster=a in_a_row=6 err="too many open files" repeated=1`)
		a.Warn("a run failed", "in_a_row", 7, "err", full)
		time.Sleep(3 * repeatEvery)
		want("nothing more", `level=WARN msg="a run failed" cluster=a in_a_row=7 err="too many open files"`)
	})
}

// guardedBuffer is written by several goroutines.
type guardedBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *guardedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

// take returns what was written since the last call.
func (b *guardedBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.all.Reset()
	return b.all.String()
}
