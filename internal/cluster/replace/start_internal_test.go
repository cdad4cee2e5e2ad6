package replace

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEnded: a command that has ended well, and after which no server holds the folder, is told
// of once.
func TestEnded(t *testing.T) {
	s := newScene(t)
	var out bytes.Buffer
	failed := make(chan error, 1)
	r := &run{o: s.o, folders: s.f, failed: failed}
	r.o.Log = slog.New(slog.NewTextHandler(&out, nil))
	ended(r, &s.state)
	failed <- nil
	for range 3 {
		ended(r, &s.state)
	}
	if n := strings.Count(out.String(), "no server holds the folder"); n != 1 || r.broken != nil {
		t.Errorf("told %d times, %v: %s", n, r.broken, out.String())
	}
	out.Reset()
	failed, r.quiet = make(chan error, 1), false
	r.failed, s.held.used = failed, true
	failed <- nil
	ended(r, &s.state)
	ended(r, &s.state)
	if out.Len() > 0 {
		t.Errorf("with a server: %s", out.String())
	}
	failed = make(chan error, 1)
	r.failed = failed
	failed <- context.Canceled
	if ended(r, &s.state); r.broken == nil {
		t.Error("a failure is lost")
	}
}

// TestStanding: each step tells how the cluster stands when it is interrupted.
func TestStanding(t *testing.T) {
	for step, want := range map[Step]string{
		Remove: "the dead member m2 is in the cluster", Aside: "one member less", Add: "one member less",
		Start: "the new member m2 (5) was added to the cluster", Promote: "as a learner", Compare: "(5) votes",
	} {
		r := &run{o: Options{Name: "m2"}, begun: step, report: &Report{MemberID: 5}, folders: newScene(t).f}
		if got := standing(r); !strings.Contains(got, want) {
			t.Errorf("%s: %s", step, got)
		}
	}
}

// TestStanding_OldWAL: a member that was started and has its WAL elsewhere is told of, until its WAL is
// where it is expected.
func TestStanding_OldWAL(t *testing.T) {
	s := newScene(t)
	r := &run{o: s.o, begun: Start, report: &Report{MemberID: 5}, folders: s.f}
	all := func() string { return standing(r) + answering(r, &s.state) }
	if got := all(); strings.Contains(got, "mismatch member") {
		t.Errorf("before it has begun: %s", got)
	}
	file := func(path string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	file(filepath.Join(s.f.dataDir, "member", "snap", "db"))
	if got := all(); strings.Count(got, "--wal-dir") != 2 || strings.Count(got, "mismatch member") != 2 {
		t.Errorf("without a WAL: %s", got)
	}
	file(filepath.Join(s.f.wal(), "0.wal"))
	if got := all(); strings.Contains(got, "mismatch member") {
		t.Errorf("with its WAL: %s", got)
	}
}
