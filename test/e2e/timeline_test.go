package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestTimeline walks an operator through the loss of a cluster that has come back
// empty: no command takes the empty one for the lost one, and a wanted restore costs
// nothing.
func TestTimeline(t *testing.T) {
	etcd := testserver.StartCluster(t, testserver.Options{Size: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h := newHost(t, "BACKUPD_REPO=file://"+filepath.Join(t.TempDir(), "repo"), "BACKUPD_CLUSTER=prod",
		"ETCDCTL_ENDPOINTS="+strings.Join(etcd.Endpoints(), ","))
	h.want(t, 0, "backupd init")
	put(ctx, t, etcd.Client(t), "lost")
	h.want(t, 0, "backupd backup")
	lost := decode[snapshot](t, first(h.want(t, 0, "backupd show latest -w json"))).Manifest

	// All data directories are gone, and etcd starts with its usual flags.
	m := etcd.Members[0]
	m.Kill()
	if err := os.RemoveAll(m.DataDir); err != nil {
		t.Fatal(err)
	}
	m.Restart(t)
	etcd.WaitReady(t)
	for range 3 {
		out, stderr := h.want(t, 4, "backupd backup")
		if !strings.Contains(out, "0 keys") || !strings.Contains(stderr, "nobody has accepted") {
			t.Errorf("got %s%s", out, stderr)
		}
	}
	h.want(t, 0, "backupd prune --keep-last 2 --min-verified 2")
	if out, _ := h.want(t, 0, "backupd list"); !strings.Contains(out, lost.ID) {
		t.Errorf("%s was pruned:\n%s", lost.ID, out)
	}
	out, stderr := h.want(t, 0, "backupd list --timeline "+lost.Timeline)
	if strings.Count(out, "prod ") != 1 || !strings.Contains(stderr, "it began because: ") {
		t.Errorf("got %s%s", out, stderr)
	}
	old := decode[snapshot](t, first(h.want(t, 0, "backupd show latest --timeline "+lost.Timeline+" -w json"))).Manifest
	if old.ID != lost.ID {
		t.Errorf("got %s", old.ID)
	}
	if out, _ := h.want(t, 0, "backupd verify latest --timeline "+lost.Timeline); !strings.Contains(out, lost.ID) {
		t.Errorf("got %s", out)
	}
	h.want(t, 5, "backupd show latest --timeline t77-aaaaaa")
	h.want(t, 64, "backupd show "+lost.ID+" --timeline "+lost.Timeline)
	if out, _ := h.want(t, 4, "backupd timeline list"); strings.Count(out, "in question") != 2 {
		t.Errorf("got %s", out)
	}

	// latest is refused, with a command for either history.
	_, stderr = h.want(t, 6, "backupd restore latest --name m1 --data-dir data --allow-running")
	empty := hinted(t, stderr, "to restore the one with 0 keys, revision 1 of .*")
	if _, stderr := h.want(t, 0, empty+" --dry-run"); strings.Contains(stderr, lost.ID) {
		t.Errorf("got %s", stderr)
	}
	out, _ = h.want(t, 0, hinted(t, stderr, "to restore the one with 1 key, revision 2 of .*")+" -w json")
	p := decode[plan](t, out)
	m.Kill()

	// The restore has told the repository: the restored cluster is accepted at once.
	restored := etcd.StartRestored(t, []testserver.RestoredMember{{Name: "m1", DataDir: filepath.Join(h.dir, "data"),
		PeerURL: p.Members[0].PeerURLs[0], ClientURL: m.ClientURL}})
	put(ctx, t, restored.Client(t), "after")
	h.want(t, 0, "backupd backup")
	now := decode[snapshot](t, first(h.want(t, 0, "backupd show latest -w json"))).Manifest
	if now.ID == lost.ID || now.Revision <= lost.Revision {
		t.Errorf("latest is %+v", now)
	}
	if out, _ := h.want(t, 0, "backupd timeline list"); strings.Count(out, "ended") != 2 ||
		strings.Count(out, "present") != 1 || !strings.Contains(out, "restored from snapshot "+lost.ID) {
		t.Errorf("got %s", out)
	}
	// An operator may decide otherwise, and back again.
	_, stderr = h.want(t, 64, "backupd timeline accept")
	if !strings.Contains(stderr, "expects one timeline") {
		t.Errorf("got %s", stderr)
	}
	h.want(t, 64, "backupd timeline accept "+now.Timeline)
	h.want(t, 5, "backupd timeline accept t77-aaaaaa --reason nobody")
	h.want(t, 0, "backupd timeline accept "+lost.Timeline+" --reason 'the restore was an exercise'")
	if got := decode[snapshot](t, first(h.want(t, 0, "backupd show latest -w json"))).Manifest; got.ID != lost.ID {
		t.Errorf("latest is %s, want %s", got.ID, lost.ID)
	}
	h.want(t, 4, "backupd backup")
	h.want(t, 0, "backupd timeline accept "+now.Timeline+" --reason 'it was no exercise'")
	h.want(t, 0, "backupd backup")
}

func first(a, _ string) string { return a }
