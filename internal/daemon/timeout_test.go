package daemon_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
)

// guarded is a cluster of a configuration whose jobs take no longer than a limit.
func guarded(name, limit, endpoint, more string) string {
	return fmt.Sprintf(`  - name: %s
    endpoints: [%s]
    snapshot: {schedule: "@yearly", retries: 0, timeout: %s, request-timeout: 1m, stall-timeout: 1m}
%s`, name, endpoint, limit, more)
}

// TestTimeOuts: no job of a cluster can hold up its backups for ever. A verification runs
// beside them.
func TestTimeOuts(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	g := h.gated()
	h.looks = often
	etcd := h.etcd.Endpoints()[0]
	stalled := h.through()[0]
	h.endpoints = nil
	configure := func(limit, defragment string) {
		h.configure("@yearly", guarded("stored", limit, etcd, "")+guarded("read", limit, etcd, "")+
			guarded("defragmented", limit, stalled.URL, defragment))
		h.edit("/spool}", "/spool}\n  concurrency: 4")
	}
	configure("1m", "")
	d := h.daemon()
	h.run(d)
	await(t, "all backups", func() bool {
		for _, c := range d.Clusters() {
			if c.Snapshot == "" || c.Running {
				return false
			}
		}
		return true
	})
	configure("2s", "    defragment: {schedule: \"@every 1s\"}\n") // only now: none runs when the member stalls
	h.reload(d)
	stalled.Stall()
	g.hold("PUT", "stored/data/")
	g.hold("GET", "/x/read/data/")
	h.start(d.StartBackup(inMain("stored")))
	beside := h.start(d.StartVerification(inMain("stored"), server.Latest))
	h.start(d.StartVerification(inMain("read"), server.Latest))
	h.hangs(d, "stored", "backup", "manual")
	h.hangs(d, "stored", "backup", "caught up") // the upload of what was kept
	h.hangs(d, "read", "verify", "manual")
	h.hangs(d, "defragmented", "defragment", "scheduled")
	if got := h.ended(d, beside.ID); got.State != server.JobSucceeded {
		t.Errorf("the verification beside it: %+v", got)
	}
}

func (h *house) start(j server.Job, err error) server.Job {
	h.t.Helper()
	h.must(err)
	return j
}

// hangs waits until such a job has failed because its time was up.
func (h *house) hangs(d *daemon.Daemon, cluster, kind, why string) {
	h.t.Helper()
	await(h.t, cluster+": "+why+" "+kind+" to be given up", func() bool {
		for _, j := range d.Jobs() {
			if j.Cluster == cluster && j.Kind == kind && j.Reason == why && j.State == server.JobFailed {
				took := j.Ended.Sub(j.Started)
				return strings.Contains(j.Error, "time-out of 2s") || strings.Contains(j.Error, "deadline exceeded") &&
					took > time.Second
			}
		}
		return false
	})
}
