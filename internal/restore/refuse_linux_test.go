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
	good := request{
		Site:    restore.Site{Name: "m1", DataDir: filepath.Join(root, "new")},
		Request: restore.Request{InitialCluster: "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"},
	}
	url := func(n string) string { return "http://10.0.0." + n + ":2380" }
	const unfit, notDir = "do not go together", "not a directory"
	for name, c := range map[string]struct {
		change  func(*request)
		reason  string
		refused bool // as dangerous, not as wrong
	}{
		"NotAMember": {func(r *request) { r.Name = "m3" }, "couldn't find local name", true},
		"OtherURLs":  {func(r *request) { r.PeerURLs = []string{url("2")} }, "--initial-cluster has " + url("1"), true},
		"MoreURLs": {func(r *request) {
			r.PeerURLs = []string{url("1"), url("9")}
		}, "but --initial-cluster has", true},
		"NotEmpty":      {func(r *request) { r.DataDir = old.DataDir }, `" is not empty`, true},
		"WALNotEmpty":   {func(r *request) { r.WALDir = old.WALDir }, "exists and is not empty", true},
		"NotADirectory": {func(r *request) { r.DataDir = file }, "is " + notDir, false},
		"BelowAFile":    {func(r *request) { r.DataDir = filepath.Join(file, "data") }, notDir, false},
		"DanglingLink":  {func(r *request) { r.DataDir = dangling }, "follow", false},
		"WALIsData":     {func(r *request) { r.WALDir = filepath.Join(link, "new") }, unfit, false},
		"DataInWAL":     {func(r *request) { r.WALDir = link }, unfit, false},
		"WALInSnap": {
			func(r *request) { r.WALDir = filepath.Join(r.DataDir, "member", "snap", "wal") }, unfit, false,
		},
		"WALIsMember": {func(r *request) { r.WALDir = filepath.Join(r.DataDir, "member") }, unfit, false},
		"BumpAlone":   {func(r *request) { r.BumpRevision = 5 }, "go together", false},
		"MarkAlone":   {func(r *request) { r.MarkCompacted = true }, "go together", false},
		"Overflow": {func(r *request) {
			r.BumpRevision, r.MarkCompacted = math.MaxInt64-uint64(f.hash.Revision), true
		}, "near to the largest revision", true},
		"OverflowUnsigned": {func(r *request) {
			r.BumpRevision, r.MarkCompacted = math.MaxUint64, true
		}, "near to the largest revision", true},
		"GarbageMembers": {func(r *request) { r.InitialCluster = "m1" }, "parse --initial-cluster", false},
		"SharedURL":      {func(r *request) { r.InitialCluster += ",m3=" + url("1") }, "is given for both", false},
		"SharedURLOfOne": {
			func(r *request) { r.InitialCluster += ",m1=" + url("1") }, "parse --initial-cluster", false,
		},
		"NameIsNoFolder": {func(r *request) {
			r.OutputDir, r.InitialCluster = root, "../m1="+url("1")
		}, "cannot be a folder's name", false},
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
	for _, req := range []request{g.request(), {
		Site:    restore.Site{OutputDir: filepath.Join(root, "a", "b")},
		Request: restore.Request{InitialCluster: "m1=http://10.0.0.1:2380"},
	}} {
		w, err := req.plan(t.Context(), fromFile(t, f.snapshot))
		must(t, err)
		var b bytes.Buffer
		_, err = w.WriteTo(&b)
		must(t, err)
		if !strings.Contains(b.String(), "m1") || !strings.Contains(b.String(), w.Plan.Token) {
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
			walDir := filepath.Join(t.TempDir(), "[log]") // a pattern, if it were globbed
			c := testserver.StartCluster(t, testserver.Options{Version: version, Args: []string{"--wal-dir", walDir}})
			m := c.Members[0]
			root := t.TempDir()
			must(t, os.Symlink(m.DataDir, filepath.Join(root, "link")))
			req := request{
				Site:    restore.Site{Name: "m1", Replace: true},
				Request: restore.Request{InitialCluster: "m1=http://10.0.0.1:2380"},
			}

			req.DataDir = filepath.Join(root, "link")
			refuse(t, root, f, req, "a running process holds")
			req.DataDir, req.WALDir = filepath.Join(root, "new"), walDir
			refuse(t, walDir, f, req, "a running process holds")

			// Above it, in it and below it: nothing would be left where the server looks.
			for _, dir := range []string{
				filepath.Dir(m.DataDir), filepath.Join(m.DataDir, "member"), filepath.Join(m.DataDir, "new"),
				filepath.Dir(walDir), filepath.Join(walDir, "new"),
			} {
				req.DataDir, req.WALDir = dir, ""
				refuse(t, root, f, req, "a running process holds")
				req.DataDir, req.WALDir = filepath.Join(root, "new"), dir
				refuse(t, root, f, req, "a running process holds")
			}

			// As a rollback it may run on old data that a restore without rights has put into the folder.
			data := filepath.Join(root, "data")
			old := filepath.Join(data, restore.AsidePrefix+"20261120T101500Z")
			must(t, os.Mkdir(data, 0o700))
			must(t, os.Rename(m.DataDir, old))
			for _, replace := range []bool{true, false} {
				req.DataDir, req.WALDir, req.Replace = data, "", replace
				refuse(t, root, f, req, "a running process holds "+old)
			}
			must(t, os.Rename(old, m.DataDir))

			// The folder is free, and the port is not.
			req = request{
				Site:    restore.Site{Name: "m1", DataDir: filepath.Join(root, "new")},
				Request: restore.Request{InitialCluster: "m1=" + m.PeerURL},
			}
			refuse(t, root, f, req, "a server listens on")
			req.AllowRunning = true
			restoreFile(t, f.snapshot, req)

			m.Kill()
			req.Site = restore.Site{Name: "m1", DataDir: m.DataDir, WALDir: walDir, Replace: true}
			restoreFile(t, f.snapshot, req)
		})
	}
}

func TestNewPlan_ListeningElsewhere(t *testing.T) {
	f := newest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	// Only the member's own port counts.
	restoreFile(t, f.snapshot, request{
		Site:    restore.Site{Name: "m1", DataDir: filepath.Join(t.TempDir(), "data")},
		Request: restore.Request{InitialCluster: "m1=" + testserver.FreeURL(t) + ",m2=http://" + l.Addr().String()},
	})
}

// TestExecute_TargetChanges uses the target in some way between the plan and
// its end. Nothing may be lost by that.
func TestExecute_TargetChanges(t *testing.T) {
	f := newest(t)
	fill := func(t *testing.T, g *ground) { must(t, os.WriteFile(filepath.Join(g.DataDir, "x"), nil, 0o600)) }
	for name, c := range map[string]struct {
		before string
		change func(*testing.T, *ground)
	}{
		"Appears":  {"new", func(t *testing.T, g *ground) { must(t, os.Mkdir(g.DataDir, 0o700)) }},
		"Filled":   {"empty", fill},
		"MoreInIt": {"old", fill},
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
			src := fromFile(t, f.snapshot)
			w, err := req.plan(t.Context(), src)
			must(t, err)
			if err := req.execute(t.Context(), w, src); err == nil {
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
	other := g.request()
	other.DataDir = filepath.Join(g.root, "other")
	req := g.request()
	req.Progress = func(stage backup.Stage, _, _ int64) {
		if stage != backup.StagePrepare {
			return
		}
		for _, second := range []request{g.request(), other} {
			w, err := second.plan(t.Context(), src)
			must(t, err)
			var refused *backup.RefusedError
			if err := second.execute(t.Context(), w, src); !errors.As(err, &refused) {
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
			req := request{
				Site:    restore.Site{OutputDir: filepath.Join(root, "a", "b")},
				Request: restore.Request{InitialCluster: "m1=http://10.0.0.1:1,m2=http://10.0.0.2:1"},
			}
			req.Progress = func(stage backup.Stage, _, _ int64) {
				if stage == at {
					cancel(interrupted)
				}
			}
			src := fromFile(t, f.snapshot)
			w, err := req.plan(ctx, src)
			must(t, err)
			if err := req.execute(ctx, w, src); !errors.Is(err, interrupted) {
				t.Errorf("error %v, want the cause", err)
			}
			if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
				t.Errorf("left behind: %v, %v", entries, err)
			}
		})
	}
}

// TestFinishInterrupted_OtherRequest reports that another restore was requested.
func TestFinishInterrupted_OtherRequest(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", true)
	crash := errors.New("crash")
	req := g.request()
	req.before = func(op, _ string) error {
		if op == "exchange" {
			return crash
		}
		return nil
	}
	src, again := fromFile(t, f.snapshot), g.request()
	w, err := req.plan(t.Context(), src)
	must(t, err)
	late, err := again.plan(t.Context(), src)
	must(t, err)
	if err := req.execute(t.Context(), w, src); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	refuse(t, g.root, f, g.request(), "was interrupted and must be finished first")
	// An earlier plan must not delete the half-done restore.
	err = again.execute(t.Context(), late, src)
	if err == nil || !strings.Contains(err.Error(), "must be finished first") {
		t.Errorf("a restore into an interrupted one: %v", err)
	}
	// The WAL directory alone leads to it.
	other := restore.Site{Name: "m2", DataDir: filepath.Join(g.root, "other"), WALDir: g.WALDir}
	before := contents(t, g.root)
	var interrupted *restore.InterruptedError
	_, err = restore.FinishInterrupted(t.Context(), other, restore.Request{}, src.About())
	if !errors.As(err, &interrupted) {
		t.Errorf("another restore with the same WAL directory: %v", err)
	}
	same(t, "after it was refused", contents(t, g.root), before)
	done, err := restore.FinishAny(t.Context(), other)
	must(t, err)
	if done == nil || done.Token != "token-1" || !strings.Contains(done.Source, f.snapshot) {
		t.Errorf("finished %+v", done)
	}
	if !g.isNew(t, f) {
		t.Error("it was not finished")
	}
	noLitter(t, g.root)
}

// refuse fails unless a plan is refused, for that reason, with nothing touched.
func refuse(t testing.TB, root string, f *fixture, req request, reason string) error {
	t.Helper()
	src := fromFile(t, f.snapshot)
	before := identities(t, root)
	_, err := req.plan(t.Context(), src)
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
