package restore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// ground is where a job restores to, and the old data that must be kept.
type ground struct {
	job
	root string
	old  map[string]string // all that was in data and WAL directory; nil for nothing
}

// newGround prepares a target below root: "new", "empty" or "old".
func newGround(t *testing.T, f *fixture, root, before string, withWAL bool) *ground {
	t.Helper()
	g := &ground{root: root, job: job{
		Snapshot: f.snapshot, DataDir: filepath.Join(root, "data"), Peer: "http://10.0.0.1:2380",
		Replace: before == "old",
	}}
	if withWAL {
		g.WALDir = filepath.Join(root, "log")
	}
	if before == "new" {
		return g
	}
	for _, dir := range g.dirs() {
		must(t, os.MkdirAll(dir, 0o700))
	}
	if before == "old" {
		must(t, os.MkdirAll(filepath.Dir(databaseOf(g.DataDir)), 0o700))
		must(t, os.MkdirAll(g.wal(), 0o700))
		copyFile(t, f.stopped, databaseOf(g.DataDir))
		must(t, os.WriteFile(filepath.Join(g.wal(), "0000000000000000-0000000000000000.wal"), []byte("old"), 0o600))
		must(t, os.WriteFile(filepath.Join(g.wal(), "0000000000000007-0000000000000070.wal"), []byte("old"), 0o600))
		g.old = g.contents(t)
	}
	return g
}

func (g *ground) dirs() []string {
	if g.WALDir == "" {
		return []string{g.DataDir}
	}
	return []string{g.DataDir, g.WALDir}
}

func (g *ground) wal() string {
	if g.WALDir == "" {
		return filepath.Join(g.DataDir, "member", "wal")
	}
	return g.WALDir
}

// contents lists the files that a server would see, and none of ours.
func (g *ground) contents(t testing.TB) map[string]string {
	out := map[string]string{}
	for _, dir := range g.dirs() {
		if _, err := os.Lstat(dir); err != nil {
			continue
		}
		for name, what := range contents(t, dir) {
			if name != "." && !strings.HasPrefix(name, ".backupd-") && !strings.HasPrefix(name, "lost+found") {
				out[filepath.Base(dir)+"/"+name] = what
			}
		}
	}
	return out
}

// run lets a child do the job and reports whether it was killed.
func (g *ground) run(t testing.TB, killAfter time.Duration) (killed bool) {
	t.Helper()
	cmd, out := child(t, g.job)
	must(t, cmd.Start())
	if killAfter > 0 {
		timer := time.AfterFunc(killAfter, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("restore by a child: %v\n%s", err, out)
	}
	return false
}

// child starts this program again to do one restore.
func child(t testing.TB, j job) (*exec.Cmd, *bytes.Buffer) {
	raw, err := json.Marshal(j)
	must(t, err)
	out := &bytes.Buffer{}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), jobVariable+"="+string(raw))
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

// isNew reports whether a server would find the complete restored data.
func (g *ground) isNew(t testing.TB, f *fixture) bool {
	if _, err := os.Stat(databaseOf(g.DataDir)); err != nil {
		return false
	}
	facts, err := etcddb.Inspect(t.Context(), databaseOf(g.DataDir))
	if err != nil || len(facts.Members) != 1 || facts.Members[0].PeerURLs[0] != g.Peer {
		return false
	}
	if facts.HashKV != f.hash {
		t.Errorf("HashKV %+v, the snapshot's server said %+v", facts.HashKV, f.hash)
	}
	names, err := filepath.Glob(filepath.Join(g.wal(), "*.wal"))
	must(t, err)
	if len(names) != 1 || !strings.Contains(walOf(t, g.wal()), "entry ") {
		return false
	}
	return len(snapsOf(t, g.DataDir)) == 1
}

// check looks at a target after a kill: it must be whole, old or new, or closed
// to any server.
func (g *ground) check(t testing.TB, f *fixture, when string) {
	t.Helper()
	for _, path := range []string{g.DataDir, filepath.Join(g.DataDir, "member")} {
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
			return
		}
	}
	if g.isNew(t, f) {
		return
	}
	same(t, when+": neither the new data nor the old", g.contents(t), g.old)
}

// finish runs the same job to its end and looks at the result.
func (g *ground) finish(t testing.TB, f *fixture, when string) {
	t.Helper()
	g.KillStep, g.KillStage = 0, ""
	if g.run(t, 0) {
		t.Fatalf("%s: the second run was killed", when)
	}
	if !g.isNew(t, f) {
		t.Errorf("%s, then run again: the target is not the new one", when)
	}
	noLitter(t, g.root)
	kept := map[string]string{}
	for _, dir := range g.dirs() {
		asides, err := filepath.Glob(dir + restore.AsidePrefix + "*")
		must(t, err)
		inside, err := filepath.Glob(filepath.Join(dir, restore.AsidePrefix+"*"))
		must(t, err)
		for _, aside := range append(asides, inside...) {
			for name, what := range contents(t, aside) {
				if name != "." {
					kept[filepath.Base(dir)+"/"+name] = what
				}
			}
		}
	}
	same(t, when+", then run again: moved aside", kept, g.old)
}

// TestExecute_KilledAtEveryStep kills a real process before each change that it
// makes to a target.
func TestExecute_KilledAtEveryStep(t *testing.T) {
	f := newest(t)
	// Every single one is tried, in less time, by TestPublish_EveryCrash.
	stride := map[bool]int{false: 1, true: 3}
	for _, before := range []string{"new", "empty", "old"} {
		for _, withWAL := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/WAL=%v", before, withWAL), func(t *testing.T) {
				t.Parallel()
				testKilledAtEveryStep(t, f, stride[withWAL], func(t *testing.T) *ground {
					return newGround(t, f, t.TempDir(), before, withWAL)
				})
			})
		}
	}
}

func testKilledAtEveryStep(t *testing.T, f *fixture, stride int, prepare func(*testing.T) *ground) {
	t.Helper()
	for step := 1; ; step += stride {
		g := prepare(t)
		g.KillStep = step
		when := fmt.Sprintf("killed before change %d", step)
		killed := g.run(t, 0)
		g.check(t, f, when)
		if !killed {
			if step < 8 {
				t.Errorf("a restore of %d changes only", step)
			}
			return
		}
		if g.isNew(t, f) && !hasJournal(t, g.root) {
			return // everything but the lock is gone: it is done
		}
		g.finish(t, f, when)
	}
}

func hasJournal(t testing.TB, root string) bool {
	found := false
	for name := range identities(t, root) {
		found = found || filepath.Base(name) == "journal.json"
	}
	return found
}

// TestExecute_KilledAtAnyTime kills at stages and at random times, while the
// new data is made.
func TestExecute_KilledAtAnyTime(t *testing.T) {
	f := newest(t)
	for _, stage := range []backup.Stage{backup.StageFetch, backup.StagePrepare, backup.StageSync} {
		t.Run(string(stage), func(t *testing.T) {
			t.Parallel()
			g := newGround(t, f, t.TempDir(), "old", true)
			g.KillStage = stage
			if !g.run(t, 0) {
				t.Fatal("not killed")
			}
			g.check(t, f, string(stage))
			g.finish(t, f, string(stage))
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for i := range rounds.Of(16) {
		after := time.Duration(rng.Int64N(int64(300 * time.Millisecond)))
		t.Run(fmt.Sprintf("Random%d", i), func(t *testing.T) {
			t.Parallel()
			g := newGround(t, f, t.TempDir(), []string{"new", "empty", "old"}[i%3], i%2 == 0)
			killed := g.run(t, after+time.Millisecond)
			g.check(t, f, after.String())
			if killed && (!g.isNew(t, f) || hasJournal(t, g.root)) {
				g.finish(t, f, after.String())
			}
		})
	}
}

// TestExecute_NoMomentWithout replaces data again and again while another looks
// at it: the database that is there must never be missing.
func TestExecute_NoMomentWithout(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", false)
	var looked, missing atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			looked.Add(1)
			if file, err := os.Open(databaseOf(g.DataDir)); err != nil {
				missing.Add(1)
			} else {
				_ = file.Close()
			}
		}
	}()
	for range 5 {
		restoreFile(t, f.snapshot, g.request())
	}
	close(stop)
	<-stopped
	if missing.Load() > 0 || looked.Load() < 1000 {
		t.Errorf("the database was missing %d of %d times", missing.Load(), looked.Load())
	}
	asides, err := filepath.Glob(g.DataDir + restore.AsidePrefix + "*")
	must(t, err)
	if len(asides) != 5 {
		t.Errorf("%d folders were moved aside in 5 restores", len(asides))
	}
}
