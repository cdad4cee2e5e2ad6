package restore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// jobVariable makes the test binary a program that does one restore.
const jobVariable = "BACKUPD_TEST_RESTORE_JOB"

func TestMain(m *testing.M) {
	testserver.RunChild()
	if raw := os.Getenv(jobVariable); raw != "" {
		if err := runJob(raw); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// With the race detector every one of hundreds of children would sleep for
	// a second before it ends.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	code := m.Run()
	for _, f := range fixtures.made {
		_ = os.RemoveAll(f.dir)
	}
	os.Exit(code)
}

// job is one restore by a child process.
type job struct {
	Snapshot                       string
	DataDir, WALDir, Peer          string
	Replace                        bool
	KillStep                       int          // die before the n-th visible change, from 1
	KillStage                      backup.Stage // die when this stage begins
	Owner                          *restore.Owner
	SkipHash, ClearAlarms, DirOnly bool
	DryRun                         bool
}

func (j job) request() request {
	return request{
		Site:    restore.Site{Name: "m1", DataDir: j.DataDir, WALDir: j.WALDir, Replace: j.Replace, Owner: j.Owner},
		Request: restore.Request{InitialCluster: "m1=" + j.Peer, Token: "token-1", ClearAlarms: j.ClearAlarms},
	}
}

func (j job) hash() restore.HashCheck {
	if j.SkipHash {
		return restore.SkipHash
	}
	return restore.RequireHash
}

func runJob(raw string) error {
	var j job
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		return err
	}
	req := j.request()
	die := func() error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	steps := 0
	req.before = func(string, string) error {
		if steps++; steps == j.KillStep {
			return die()
		}
		return nil
	}
	req.Progress = func(stage backup.Stage, _, _ int64) {
		if stage == j.KillStage {
			_ = die()
		}
	}
	return restoreAgain(context.Background(), j, req)
}

// restoreAgain does the same as the command: it finishes an interrupted restore,
// or starts one.
func restoreAgain(ctx context.Context, j job, req request) error {
	src, err := restore.FromFile(ctx, j.Snapshot, j.hash(), nil)
	if err != nil {
		return err
	}
	if j.DryRun {
		w, err := req.plan(ctx, src)
		if err != nil {
			return err
		}
		return w.Try(ctx, src)
	}
	done, err := restore.FinishInterruptedBefore(ctx, req.Site, req.Request, src.About(), req.before)
	if done != nil || err != nil {
		return err
	}
	w, err := req.plan(ctx, src)
	if err != nil {
		return err
	}
	return req.execute(ctx, w, src)
}

// fixture is one small database of a real server.
type fixture struct {
	dir      string
	version  string
	snapshot string // with trailer
	running  string // copied while the server ran
	stopped  string // the member's own file after it ended
	peer     string
	hash     backup.HashKV // of the live server at the snapshot's revision
}

var fixtures struct {
	mu   sync.Mutex
	made map[string]*fixture
}

// fixtureOf makes the fixture of an etcd version, once.
func fixtureOf(t testing.TB, version string) *fixture {
	t.Helper()
	fixtures.mu.Lock()
	defer fixtures.mu.Unlock()
	if f := fixtures.made[version]; f != nil {
		return f
	}
	dir, err := os.MkdirTemp("", "backupd-fixture-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	if fixtures.made == nil {
		fixtures.made = make(map[string]*fixture)
	}
	f := &fixture{dir: dir, version: version}
	fixtures.made[version] = f
	c := testserver.StartCluster(t, testserver.Options{Version: version})
	client := c.Client(t)
	testserver.Fill(t, client, testserver.FillOptions{Keys: 300, ValueBytes: 200, Compact: true})
	f.peer = c.Members[0].PeerURL
	f.hash = liveHash(t, c, client)
	f.snapshot = download(t, client, filepath.Join(dir, "snapshot.db"))
	db := filepath.Join(c.Members[0].DataDir, "member", "snap", "db")
	f.running = copyFile(t, db, filepath.Join(dir, "running.db"))
	c.Members[0].Terminate()
	f.stopped = copyFile(t, db, filepath.Join(dir, "stopped.db"))
	return f
}

// newest is the fixture for tests that look only at our own work.
func newest(t testing.TB) *fixture { return fixtureOf(t, "3.7") }

func liveHash(t testing.TB, c *testserver.Cluster, client *clientv3.Client) backup.HashKV {
	t.Helper()
	resp, err := client.HashKV(t.Context(), c.Endpoints()[0], 0)
	must(t, err)
	return backup.HashKV{
		Hash: resp.Hash, Revision: backup.Revision(resp.Header.Revision),
		CompactRevision: backup.Revision(resp.CompactRevision),
	}
}
