package restore_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestNewPlan_Refuses refuses requests, and touches nothing.
func TestNewPlan_Refuses(t *testing.T) {
	f := newest(t)
	root := t.TempDir()
	old := newGround(t, f, filepath.Join(root, "old"), "old", true)
	file := filepath.Join(root, "file")
	must(t, os.WriteFile(file, []byte("not a folder"), 0o600))
	dangling := filepath.Join(root, "dangling")
	must(t, os.Symlink(filepath.Join(root, "nowhere"), dangling))
	link := filepath.Join(root, "link")
	must(t, os.Symlink(root, link))
	good := restore.Request{Name: "m1", DataDir: filepath.Join(root, "new"), InitialCluster: "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"}
	for name, c := range map[string]struct {
		change  func(*restore.Request)
		reason  string
		refused bool // as dangerous, not as wrong
	}{
		"NotAMember":    {func(r *restore.Request) { r.Name = "m3" }, "couldn't find local name", true},
		"OtherURLs":     {func(r *restore.Request) { r.PeerURLs = []string{"http://10.0.0.2:2380"} }, "--initial-cluster has http://10.0.0.1:2380", true},
		"MoreURLs":      {func(r *restore.Request) { r.PeerURLs = []string{"http://10.0.0.1:2380", "http://10.0.0.9:2380"} }, "but --initial-cluster has", true},
		"NotEmpty":      {func(r *restore.Request) { r.DataDir = old.DataDir }, "not empty", true},
		"WALNotEmpty":   {func(r *restore.Request) { r.WALDir = old.WALDir }, "exists and is not empty", true},
		"NotADirectory": {func(r *restore.Request) { r.DataDir = file }, "is not a directory", false},
		"BelowAFile":    {func(r *restore.Request) { r.DataDir = filepath.Join(file, "data") }, "not a directory", false},
		"DanglingLink":  {func(r *restore.Request) { r.DataDir = dangling }, "follow", false},
		"WALIsData":     {func(r *restore.Request) { r.WALDir = filepath.Join(link, "new") }, "do not go together", false},
		"DataInWAL":     {func(r *restore.Request) { r.WALDir = link }, "do not go together", false},
		"WALInSnap":     {func(r *restore.Request) { r.WALDir = filepath.Join(r.DataDir, "member", "snap", "wal") }, "do not go together", false},
		"WALIsMember":   {func(r *restore.Request) { r.WALDir = filepath.Join(r.DataDir, "member") }, "do not go together", false},
		"BumpAlone":     {func(r *restore.Request) { r.BumpRevision = 5 }, "go together", false},
		"MarkAlone":     {func(r *restore.Request) { r.MarkCompacted = true }, "go together", false},
		"Overflow": {func(r *restore.Request) {
			r.BumpRevision, r.MarkCompacted = math.MaxInt64-uint64(f.hash.Revision), true
		}, "past the largest revision", false},
		"OverflowUnsigned": {func(r *restore.Request) { r.BumpRevision, r.MarkCompacted = math.MaxUint64, true }, "past the largest revision", false},
		"GarbageMembers":   {func(r *restore.Request) { r.InitialCluster = "m1" }, "parse --initial-cluster", false},
		"SharedURL":        {func(r *restore.Request) { r.InitialCluster += ",m3=http://10.0.0.1:2380" }, "stands for both", false},
		"SharedURLOfOne":   {func(r *restore.Request) { r.InitialCluster += ",m1=http://10.0.0.1:2380" }, "parse --initial-cluster", false},
		"NameIsNoFolder":   {func(r *restore.Request) { r.OutputDir, r.InitialCluster = root, "../m1=http://10.0.0.1:2380" }, "cannot be a folder's name", false},
	} {
		t.Run(name, func(t *testing.T) {
			req := good
			c.change(&req)
			err := refuse(t, root, f, req, c.reason)
			var refused *backup.RefusedError
			if errors.As(err, &refused) != c.refused {
				t.Errorf("%v is a RefusedError: %v, want %v", err, !c.refused, c.refused)
			}
		})
	}
}

// TestNewPlan_ChangesNothing makes a plan that would work, and prints it.
func TestNewPlan_ChangesNothing(t *testing.T) {
	f := newest(t)
	root := t.TempDir()
	g := newGround(t, f, root, "old", true)
	before := identities(t, root)
	for _, req := range []restore.Request{g.request(), {OutputDir: filepath.Join(root, "a", "b"), InitialCluster: "m1=http://10.0.0.1:2380"}} {
		p, err := restore.NewPlan(t.Context(), fromFile(t, f.snapshot), req)
		must(t, err)
		var b bytes.Buffer
		_, err = p.WriteTo(&b)
		must(t, err)
		if !strings.Contains(b.String(), "m1") || !strings.Contains(b.String(), p.Token) {
			t.Errorf("the plan reads\n%s", &b)
		}
	}
	same(t, "after planning", identities(t, root), before)
}

// TestNewPlan_RunningServer looks for a real server on the target.
func TestNewPlan_RunningServer(t *testing.T) {
	f := newest(t)
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			walDir := filepath.Join(t.TempDir(), "[log]") // a pattern to those who glob
			c := testserver.StartCluster(t, testserver.Options{Version: version, Args: []string{"--wal-dir", walDir}})
			m := c.Members[0]
			root := t.TempDir()
			must(t, os.Symlink(m.DataDir, filepath.Join(root, "link")))
			req := restore.Request{Name: "m1", InitialCluster: "m1=http://10.0.0.1:2380", Replace: true}

			req.DataDir = filepath.Join(root, "link")
			refuse(t, root, f, req, "a running process holds")
			req.DataDir, req.WALDir = filepath.Join(root, "new"), walDir
			refuse(t, walDir, f, req, "a running process holds")

			// It is not the folder's but the port's.
			req = restore.Request{Name: "m1", InitialCluster: "m1=" + m.PeerURL, DataDir: filepath.Join(root, "new")}
			refuse(t, root, f, req, "a server listens on")
			req.AllowRunning = true
			restoreFile(t, f.snapshot, req)

			m.Kill()
			restoreFile(t, f.snapshot, restore.Request{Name: "m1", InitialCluster: "m1=" + m.PeerURL, DataDir: m.DataDir, WALDir: walDir, Replace: true})
		})
	}
}

func TestNewPlan_ListeningElsewhere(t *testing.T) {
	f := newest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	// Only the member's own port counts.
	restoreFile(t, f.snapshot, restore.Request{
		Name: "m1", InitialCluster: "m1=" + testserver.FreeURL(t) + ",m2=http://" + l.Addr().String(), DataDir: filepath.Join(t.TempDir(), "data"),
	})
}

// TestExecute_TargetChanges uses the target in some way between the plan and
// its end. Nothing may be lost by that.
func TestExecute_TargetChanges(t *testing.T) {
	f := newest(t)
	for name, c := range map[string]struct {
		before string
		change func(*testing.T, *ground)
	}{
		"Appears":  {"new", func(t *testing.T, g *ground) { must(t, os.Mkdir(g.DataDir, 0o700)) }},
		"Filled":   {"empty", func(t *testing.T, g *ground) { must(t, os.WriteFile(filepath.Join(g.DataDir, "x"), nil, 0o600)) }},
		"MoreInIt": {"old", func(t *testing.T, g *ground) { must(t, os.WriteFile(filepath.Join(g.DataDir, "x"), nil, 0o600)) }},
		"AFile":    {"new", func(t *testing.T, g *ground) { must(t, os.WriteFile(g.DataDir, nil, 0o600)) }},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), c.before, false)
			var before map[string]string
			req := g.request()
			req.Progress = func(stage backup.Stage, _, _ int64) {
				if stage == backup.StagePrepare {
					c.change(t, g)
					before = identities(t, g.DataDir)
				}
			}
			p, err := restore.NewPlan(t.Context(), fromFile(t, f.snapshot), req)
			must(t, err)
			if err := p.Execute(t.Context()); err == nil {
				t.Error("no error")
			}
			same(t, "after it failed", identities(t, g.DataDir), before)
			noLitter(t, g.root)
		})
	}
}

// TestExecute_Twice lets two restores work on the same folders.
func TestExecute_Twice(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "new", true)
	src := fromFile(t, f.snapshot)
	other := restore.Request{Name: "m1", InitialCluster: "m1=" + g.Peer, DataDir: filepath.Join(g.root, "other"), WALDir: g.WALDir}
	req := g.request()
	req.Progress = func(stage backup.Stage, _, _ int64) {
		if stage != backup.StagePrepare {
			return
		}
		for _, second := range []restore.Request{g.request(), other} {
			p, err := restore.NewPlan(t.Context(), src, second)
			must(t, err)
			var refused *backup.RefusedError
			if err := p.Execute(t.Context()); !errors.As(err, &refused) {
				t.Errorf("a second restore at the same time: %v", err)
			}
		}
	}
	restoreFile(t, f.snapshot, req)
	if !g.isNew(t, f) {
		t.Error("the first restore was disturbed")
	}
	noLitter(t, g.root)
}

// TestExecute_Cancelled leaves nothing, whenever it is cancelled.
func TestExecute_Cancelled(t *testing.T) {
	f := newest(t)
	for _, at := range []backup.Stage{backup.StageFetch, backup.StagePrepare, backup.StageCopy, backup.StageSync} {
		t.Run(string(at), func(t *testing.T) {
			root := t.TempDir()
			ctx, cancel := context.WithCancelCause(t.Context())
			interrupted := errors.New("interrupted")
			p, err := restore.NewPlan(ctx, fromFile(t, f.snapshot), restore.Request{
				OutputDir: filepath.Join(root, "a", "b"), InitialCluster: "m1=http://10.0.0.1:1,m2=http://10.0.0.2:1",
				Progress: func(stage backup.Stage, _, _ int64) {
					if stage == at {
						cancel(interrupted)
					}
				},
			})
			must(t, err)
			if err := p.Execute(ctx); !errors.Is(err, interrupted) {
				t.Errorf("error %v, want the cause", err)
			}
			if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// TestFinishInterrupted_OtherRequest finds out that it was asked for something
// else.
func TestFinishInterrupted_OtherRequest(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", true)
	crash := errors.New("crash")
	req := g.request()
	req.SetBefore(func(op, _ string) error {
		if op == "exchange" {
			return crash
		}
		return nil
	})
	p, err := restore.NewPlan(t.Context(), fromFile(t, f.snapshot), req)
	must(t, err)
	late, err := restore.NewPlan(t.Context(), fromFile(t, f.snapshot), g.request())
	must(t, err)
	if err := p.Execute(t.Context()); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	refuse(t, g.root, f, g.request(), "was interrupted and must be finished first")
	// Nor may one that was planned before throw away what is half done.
	if err := late.Execute(t.Context()); err == nil || !strings.Contains(err.Error(), "must be finished first") {
		t.Errorf("a restore into an interrupted one: %v", err)
	}
	// The WAL directory alone leads to it.
	done, err := restore.FinishInterrupted(restore.Request{Name: "m2", DataDir: filepath.Join(g.root, "other"), WALDir: g.WALDir})
	must(t, err)
	if done == nil || done.SameRequest || done.Token != "token-1" || !strings.Contains(done.Source, f.snapshot) {
		t.Errorf("finished %+v", done)
	}
	if !g.isNew(t, f) {
		t.Error("it was not finished")
	}
	noLitter(t, g.root)
}

// refuse fails unless a plan is refused, for that reason, with nothing touched.
func refuse(t testing.TB, root string, f *fixture, req restore.Request, reason string) error {
	t.Helper()
	src := fromFile(t, f.snapshot)
	before := identities(t, root)
	_, err := restore.NewPlan(t.Context(), src, req)
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("error %v, want one with %q", err, reason)
	}
	same(t, "after it was refused", identities(t, root), before)
	var refused *backup.RefusedError
	if errors.As(err, &refused) && refused.Reason == "" {
		t.Error("refused without a reason")
	}
	return err
}
