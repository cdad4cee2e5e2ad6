package snapshot_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// killEnv tells the test binary to do a job and be killed in it.
const killEnv = "BACKUPD_TEST_PENDING_JOB"

// killJob is the work of a child, which kills itself with SIGKILL at an operation
// of the store.
type killJob struct {
	Endpoint, Repository, Spool string

	Store  bool // store pending snapshots instead of taking one
	KillAt int  // the operation, counted from 0; negative: none
	Moment string

	KillStage backup.Stage // kill when this stage begins
}

// Moments of an operation at which a child dies.
const (
	killBefore = "before"
	killDuring = "during" // of a create: half of the bytes are read
	killAfter  = "after"
)

func runKillJob(raw string) error {
	var j killJob
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		return err
	}
	source, err := cluster.New(cluster.Config{Endpoints: []string{j.Endpoint}, InsecureTransport: true,
		RequestTimeout: 20 * time.Second})
	if err != nil {
		return err
	}
	taker := taker{
		store: j.killing(), cluster: "prod",
		Taker: snapshot.Taker{
			Source: source, Spool: spool.Folder{Dir: j.Spool, Keep: true, MinFree: disk.ReserveOf(0)},
			Codec: codec.Options{Compress: codec.Zstd},
			Tool:  "test",
		},
	}
	taker.Progress = func(stage backup.Stage, _, _ int64) {
		if stage == j.KillStage {
			die()
		}
	}
	if j.Store {
		_, err = taker.StorePending(context.Background())
	} else {
		_, err = taker.Take(context.Background())
	}
	return err
}

// killing is the store of the job, which ends the process at one of its
// operations. Data is taken only when the record is there, so that each death
// from then on is one of a snapshot that can be kept.
func (j killJob) killing() storage.Store {
	var ops atomic.Int64
	var doomed atomic.Value // the operation to die in
	name := func(op storage.Op, key string) string { return string(op) + " " + key }
	h := &storagetest.Hook{Store: file.New(j.Repository)}
	h.Before = func(ctx context.Context, op storage.Op, key string) error {
		if op == storage.OpList {
			return nil // it has no part in this
		}
		if k, err := backup.ParseKey(key); op == storage.OpCreate && err == nil && k.Kind == backup.KindData {
			if err := j.awaitRecord(ctx); err != nil {
				return err
			}
		}
		if int(ops.Add(1)-1) != j.KillAt {
			return nil
		}
		if j.Moment == killBefore {
			die()
		}
		doomed.Store(name(op, key))
		return nil
	}
	h.Upload = func(_ context.Context, key string, r io.Reader) io.Reader {
		if j.Moment != killDuring || doomed.Load() != name(storage.OpCreate, key) {
			return r
		}
		return storagetest.CutAfter(1000, r, func() error { die(); return nil })
	}
	h.After = func(_ context.Context, op storage.Op, key string) error {
		if j.Moment == killAfter && doomed.Load() == name(op, key) {
			die()
		}
		return nil
	}
	return h
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (j killJob) awaitRecord(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if records, err := filepath.Glob(filepath.Join(j.Spool, "*.pending.json")); err != nil || len(records) > 0 {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the record: %w", ctx.Err())
		}
	}
}

// run does the job in a child, and reports whether that was killed.
func (j killJob) run(t *testing.T) bool {
	t.Helper()
	raw, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), killEnv+"="+string(raw))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if ws, ok := syscall.WaitStatus(0), errors.As(err, &exit); ok {
		ws = exit.Sys().(syscall.WaitStatus)
		if ws.Signaled() && ws.Signal() == syscall.SIGKILL {
			return true
		}
	}
	t.Fatalf("%+v: %v\n%s", j, err, out)
	return false
}

// TestPending_Killed: a process is killed at each operation of the store, while it
// takes a snapshot and while it stores a pending one. Another process stores the
// snapshot without a second stream, with etcd down, and only once.
func TestPending_Killed(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 50})
	var left []killJob
	for _, moment := range []string{killBefore, killDuring, killAfter} {
		for n := 0; ; n++ {
			j := killJob{Endpoint: real.Endpoints()[0], Repository: t.TempDir(), Spool: t.TempDir(), KillAt: n,
				Moment: moment}
			if !j.run(t) {
				wantEmpty(t, j.Spool)
				if n > 5 || moment != killDuring {
					break
				}
				continue // it does not read then
			}
			left = append(left, j)
		}
	}
	real.Members[0].Terminate()
	stored, deaths := 0, 0
	for _, j := range left {
		t.Run(fmt.Sprintf("%s/%d", j.Moment, j.KillAt), func(t *testing.T) {
			s := file.New(j.Repository)
			waiting := pending(t, j.Spool)
			if len(waiting) == 0 {
				if j.KillAt > 2 { // after: open marker, create marker, read it back
					t.Fatal("nothing was kept")
				}
				return
			}
			stored++
			if p := waiting[0]; p.Tries != 0 || p.Why() == "" {
				t.Errorf("got %+v", p)
			}
			// The process that is to store it is killed as well, at each operation.
			again := j
			again.Endpoint, again.Store = testserver.FreeURL(t), true
			if j.Moment == killDuring {
				again.Moment = killAfter
			}
			for again.KillAt = 0; again.run(t); again.KillAt++ {
			}
			if deaths += again.KillAt; again.KillAt < 2 {
				t.Errorf("it was killed %d times", again.KillAt)
			}
			wantEmpty(t, j.Spool)
			all := entries(t, s)
			if len(all) != 1 || all[0].ID.Revision() != backup.Revision(filled.Revision) {
				t.Fatalf("listed %v, want one of revision %d", all, filled.Revision)
			}
			v := newVerifier(s, "prod", j.Spool) // which sweeps
			if _, err := v.Verify(t.Context(), itemOf(all[0])); err != nil {
				t.Error(err)
			}
			wantEmpty(t, j.Spool)
		})
	}
	if stored < 10 || deaths < 40 {
		t.Errorf("only %d of %d were pending, storing them was killed %d times", stored, len(left), deaths)
	}
}

// TestPending_KilledEarly: a spool that was not yet compared is a leftover, which
// the next process sweeps away.
func TestPending_KilledEarly(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	for _, stage := range []backup.Stage{backup.StageReceive, backup.StageInspect, backup.StageCompare} {
		j := killJob{Endpoint: url, Repository: t.TempDir(), Spool: t.TempDir(), KillAt: -1, KillStage: stage}
		if !j.run(t) {
			t.Fatalf("%s: it lives", stage)
		}
		if spools, err := filepath.Glob(filepath.Join(j.Spool, "*")); err != nil || len(spools) != 1 {
			t.Errorf("%s: left are %q, %v", stage, spools, err)
		}
		if p := pending(t, j.Spool); len(p) != 0 {
			t.Errorf("%s: got %+v", stage, p)
		}
		testserver.Eventually(t, "the child that inspects to end with its parent", func() bool {
			spools, err := filepath.Glob(filepath.Join(j.Spool, "*"))
			return err == nil && !slices.ContainsFunc(spools, disk.InUse)
		})
		m := take(t, keeper(t, url, file.New(j.Repository), j.Spool))
		if all := entries(t, file.New(j.Repository)); len(all) != 1 || all[0] != m.ObjectKey() {
			t.Errorf("%s: listed %v", stage, all)
		}
		wantEmpty(t, j.Spool)
	}
}
