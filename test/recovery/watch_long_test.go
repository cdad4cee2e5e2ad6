//go:build long

package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// lost is how many revisions are written after the snapshot.
const lost = 50

// watchLimit is how long a watcher may take to find the restored servers.
const watchLimit = 3 * time.Minute

// TestLongWatchers_FromTheFuture: a client that watched all the time, and has seen revisions
// that are lost, is told by the default bump that it must read anew. Without a bump it
// misses as many writes as were lost, without an error: so the bump is needed.
func TestLongWatchers_FromTheFuture(t *testing.T) {
	program := filepath.Join(t.TempDir(), "backupd")
	if out, err := exec.Command("go", "build", "-o", program, "../../cmd/backupd").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Run("Bump", func(t *testing.T) { watchThrough(t, program, version, "auto") })
			t.Run("NoBump", func(t *testing.T) { watchThrough(t, program, version, "0") })
		})
	}
}

func watchThrough(t *testing.T, program, version, bump string) {
	source := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
	cl := source.Client(t)
	testserver.Fill(t, cl, testserver.FillOptions{Keys: 100, Seed: 4})
	backupd := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("backupd %q: %v\n%s", args, err, out)
		}
	}
	repo := "--repo=file://" + filepath.Join(t.TempDir(), "repo")
	backupd("init", repo)
	backupd("backup", repo, "--cluster=prod", "--spool-min-free=0B", "--endpoints="+strings.Join(source.Endpoints(), ","))

	ctx, cancel := context.WithTimeout(t.Context(), watchLimit)
	defer cancel()
	watcher := source.Client(t) // it is connected all the time
	events := watcher.Watch(ctx, "live/", clientv3.WithPrefix())
	known := int64(0)
	for i := range lost {
		resp, err := cl.Put(ctx, fmt.Sprintf("live/lost%d", i), "x")
		if err != nil {
			t.Fatal(err)
		}
		known = resp.Header.Revision
	}
	for last := int64(0); last < known; {
		r := <-events
		if r.Err() != nil || len(r.Events) == 0 {
			t.Fatalf("before the disaster: %+v, %v", r, r.Err())
		}
		last = r.Events[len(r.Events)-1].Kv.ModRevision
	}
	restored := rebuild(t, source, func(out string) {
		backupd("restore", repo, "--cluster=prod", "latest", "--all-members", "--output-dir="+out, "--bump-revision="+bump)
	})

	if bump != "0" {
		r := <-events
		if !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision <= known {
			t.Errorf("a watcher from revision %d gets %v, compacted at %d", known, r.Err(), r.CompactRevision)
		}
		return
	}
	// It hangs until as much was written as was lost, and never hears of that.
	missed, first, writer := 0, "", restored.Client(t)
	for i := 0; first == "" && i < 2*lost; i++ {
		resp, err := writer.Put(ctx, fmt.Sprintf("live/new%d", i), "x")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Header.Revision <= known {
			missed++
			continue
		}
		r := <-events
		if r.Err() != nil || len(r.Events) == 0 {
			t.Fatalf("the watcher gets %+v, %v", r, r.Err())
		}
		first = string(r.Events[0].Kv.Key)
	}
	if missed != lost || first != fmt.Sprintf("live/new%d", lost) {
		t.Errorf("without a bump the first event after %d writes is of %q: does it not hang, is the bump not needed?",
			missed, first)
	}
}

// rebuild destroys a cluster, restores it into a folder, and starts it at the same addresses.
func rebuild(t *testing.T, source *testserver.Cluster, restore func(dir string)) *testserver.Cluster {
	t.Helper()
	var run []testserver.RestoredMember
	out := filepath.Join(t.TempDir(), "restored")
	for _, m := range source.Members {
		m.Kill()
		run = append(run, testserver.RestoredMember{
			Name: m.Name, DataDir: filepath.Join(out, m.Name), PeerURL: m.PeerURL, ClientURL: m.ClientURL,
		})
	}
	restore(out)
	return source.StartRestored(t, run)
}
