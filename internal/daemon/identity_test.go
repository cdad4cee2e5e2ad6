package daemon_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

const createdMetric = `backupd_repository_created_total{repository="main"} `

// empty makes the repository's folder an empty mount point.
func (h *house) empty() {
	h.t.Helper()
	h.away()
	h.must(os.Mkdir(h.folder(), 0o700))
}

// files lists the repository's folder.
func (h *house) files() []string {
	h.t.Helper()
	entries, err := os.ReadDir(h.folder())
	h.must(err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestIdentity_None: a daemon makes no repository in an empty mount point. It reports a
// failure at once, and goes on as soon as the disk is mounted.
func TestIdentity_None(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.empty()
	d := h.daemon()
	h.run(d)
	h.troubled(d, server.ClusterFailure, "there is no such repository: not a backupd repository")
	h.backup(d, server.JobFailed)
	if _, err := d.Snapshots(t.Context(), inMain("prod"), "", 1); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if got := h.files(); len(got) != 0 {
		t.Errorf("the mount point holds %q", got)
	}
	h.back()
	h.backup(d, server.JobSucceeded)
	h.ok(d)
	if got := series(t, d, createdMetric); !slices.Equal(got, []string{createdMetric + "0"}) {
		t.Errorf("got %q", got)
	}
}

// TestIdentity_MayCreate: with create-if-missing a repository is made, but not its
// folder, and this is counted.
func TestIdentity_MayCreate(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.edit(`/repository"}`, `/repository", create-if-missing: true}`)
	h.away()
	d := h.daemon()
	h.run(d)
	h.backup(d, server.JobFailed)
	if _, err := os.Stat(h.folder()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	h.must(os.Mkdir(h.folder(), 0o700))
	h.backup(d, server.JobSucceeded)
	h.ok(d)
	if got := series(t, d, createdMetric); !slices.Equal(got, []string{createdMetric + "1"}) {
		t.Errorf("got %q", got)
	}
}

// TestIdentity_Pinned: with repository-id a snapshot waits in the spool, although the
// repository was never there while this process runs.
func TestIdentity_Pinned(t *testing.T) {
	h := newHouse(t)
	repo, err := repository.Open(t.Context(), h.store("main"), "")
	h.must(err)
	h.edit(`/repository"}`, `/repository", repository-id: `+repo.ID()+`}`)
	h.empty()
	_, out := h.once()
	var absent *repository.AbsentError
	var kept *snapshot.PendingError
	if !errors.As(out.Err, &absent) || absent.Known != repo.ID() || !errors.As(out.Err, &kept) {
		t.Fatalf("got %v", out.Err)
	}
	if got := h.files(); len(got) != 0 {
		t.Errorf("the mount point holds %q", got)
	}
	h.back()
	_, out = h.once()
	if out.Err != nil || out.Manifest == nil || !out.Manifest.StartedAt.Equal(kept.Pending.Capture.StartedAt) {
		t.Errorf("got %+v", out)
	}
}
