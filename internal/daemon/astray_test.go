package daemon_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestAstray: a snapshot waits, its repository has vanished, and the record is lost. The
// daemon, which may make repositories, makes none in the empty mount point, is not
// well, and counts what waits under the name of the repository.
func TestAstray(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.edit(`/repository"}`, `/repository", create-if-missing: true}`)
	d := h.daemon()
	stop := h.run(d)
	h.ok(d)
	h.empty()
	h.put("a")
	h.backup(d, server.JobFailed)
	stop()
	records, err := filepath.Glob(filepath.Join(h.dir, "spool", "*.record.json"))
	if err != nil || len(records) == 0 || len(h.pending()) != 1 {
		t.Fatalf("records %q, %v, pending %v", records, err, h.pending())
	}
	for _, path := range records {
		h.must(os.Remove(path))
	}
	id := h.pending()[0].Repository
	d = h.daemon()
	const metric = "backupd_pending_uploads{"
	if got := series(t, d, metric); !slices.Equal(got, []string{metric + `cluster="prod",repository="main"} 1`}) {
		t.Errorf("before the first look: %q", got)
	}
	h.run(d)
	h.troubled(d, server.ClusterFailure, "repository "+id+" is not at its address")
	if got := h.files(); len(got) != 0 {
		t.Errorf("the mount point holds %q", got)
	}
	h.back()
	await(t, "what waits to be stored", func() bool { return len(h.pending()) == 0 })
	h.ok(d)
}

// TestOnce_Unread: a process whose turn it is not does not end with success if it cannot
// see in the repository that the cluster is protected.
func TestOnce_Unread(t *testing.T) {
	h := newHouse(t)
	h.etcd = shared.Cluster(t, 3)
	survey, err := testserver.Connect(t, cluster.Config{Endpoints: h.etcd.Endpoints()}).Survey(t.Context())
	h.must(err)
	h.sidecar(survey.Endpoint(cluster.Worker(survey, 0)))
	h.taken()
	h.sidecar(survey.Endpoint(cluster.Worker(survey, 1)))
	if _, out := h.once(); out.Result != duty.Passed || out.Err != nil {
		t.Fatalf("got %+v", out)
	}
	h.empty()
	var absent *repository.AbsentError
	if _, out := h.once(); out.Result != duty.Passed || !errors.As(out.Err, &absent) {
		t.Errorf("got %+v", out)
	}
	h.must(os.Remove(h.folder()))
	h.must(os.WriteFile(h.folder(), nil, 0o600))
	if _, out := h.once(); out.Result != duty.Passed || out.Err == nil || errors.As(out.Err, &absent) {
		t.Errorf("got %+v", out)
	}
}
