//go:build long

package snapshot_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongTaker_TwoRestores: members of one cluster that were restored from two
// snapshots with one token are healthy to etcd, and apply the same raft entries.
func TestLongTaker_TwoRestores(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			real := restoredOfTwo(t, version)
			// The others hold all that the older one does, and answer as it would.
			for what, endpoints := range map[string][]string{"all": real.Endpoints(), "the older one": real.Endpoints()[:1]} {
				m := take(t, newTaker(t, connect(t, endpoints...), mem.New()))
				if reasons := strings.Join(m.Suspect, "\n"); m.State() != backup.Suspect ||
					!strings.Contains(reasons, "have diverged: at raft index") {
					t.Errorf("%s: got %s, suspect %q, hashes %+v", what, m.State(), m.Suspect, m.MemberHashes)
				}
			}
		})
	}
}

// restoredOfTwo returns a cluster of three. One member was restored from an older
// snapshot than the others.
func restoredOfTwo(t *testing.T, version string) *testserver.Cluster {
	t.Helper()
	source := testserver.StartCluster(t, testserver.Options{Version: version})
	var files []string
	for i := range 2 {
		testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 20, Prefix: fmt.Sprint(i, "/"), Seed: uint64(i)})
		path := filepath.Join(t.TempDir(), "db")
		saver := snapshot.Saver{Source: connect(t, source.Endpoints()...)}
		if _, err := saver.Save(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	source.Members[0].Kill()
	var members []testserver.RestoredMember
	var initial []string
	for i := range 3 {
		m := testserver.RestoredMember{Name: fmt.Sprint("r", i), DataDir: filepath.Join(t.TempDir(), "data"),
			PeerURL: testserver.FreeURL(t), ClientURL: testserver.FreeURL(t)}
		members, initial = append(members, m), append(initial, m.Name+"="+m.PeerURL)
	}
	for i, m := range members {
		tool := "etcdutl"
		if version == "3.4" {
			tool = "etcdctl"
		}
		run(t, testserver.Binary(t, version, tool), "snapshot", "restore", files[min(i, 1)], "--name", m.Name,
			"--data-dir", m.DataDir, "--initial-advertise-peer-urls", m.PeerURL,
			"--initial-cluster", strings.Join(initial, ","))
	}
	return testserver.StartRestored(t, version, members)
}

// TestLongTaker_Load: a healthy cluster under load is never suspect.
func TestLongTaker_Load(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 8 {
		client := real.Client(t)
		go func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, _ = client.Put(ctx, fmt.Sprint("load/", i, "/", n%100), "value") // it fails when the test ends
			}
		}()
	}
	source := connect(t, real.Endpoints()...)
	first := survey(t, source).HighWater
	var asking sync.WaitGroup
	for n := range 400 {
		if s := survey(t, source); n%20 == 0 || cluster.Doubtful(s.Candidates) {
			asking.Go(func() {
				if got := source.Divergence(t.Context(), s.Candidates); len(got) > 0 {
					t.Errorf("a healthy cluster: %q", got)
				}
			})
		}
	}
	asking.Wait()
	if last := survey(t, source).HighWater; last < first+1000 {
		t.Errorf("that was no load: revision %d became %d", first, last)
	}
	for range 5 {
		if m := take(t, newTaker(t, source, mem.New())); !m.Verified() {
			t.Errorf("got suspect %q, unconfirmed %q, hashes %+v", m.Suspect, m.Unconfirmed, m.MemberHashes)
		}
	}
}

func survey(t *testing.T, source *cluster.Cluster) *cluster.Survey {
	t.Helper()
	s, err := source.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
