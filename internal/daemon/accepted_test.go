package daemon_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestAccepted: a backup that was asked for ends, though another cluster has the only
// turn. As soon as its end is told the next is accepted.
func TestAccepted(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	g := h.gated()
	h.configure("@yearly", guarded("bb", "10m", h.etcd.Endpoints()[0], "")+
		strings.Replace(guarded("aa", "10m", testserver.FreeURL(t), ""), "retries: 0", "retries: 3", 1))
	h.edit("/spool}", "/spool}\n  concurrency: 1")
	d := h.daemon()
	h.run(d)
	failed := func(j server.Job) bool { return j.Cluster == "aa" && j.State == server.JobFailed }
	await(t, "the backups of the start", func() bool {
		return d.Clusters()[0].Snapshot != "" && d.Clusters()[1].Snapshot != "" && !d.Clusters()[0].Running &&
			!d.Clusters()[1].Running
	})
	h.job(d, "the first try of aa", failed) // and it pauses
	upload := g.hold("PUT", "bb/data/")
	h.start(d.StartBackup(inMain("bb")))
	upload.reached()
	for range 10 {
		j := h.start(d.StartBackup(inMain("aa")))
		if got := h.ended(d, j.ID); got.State != server.JobFailed || got.Error == "" {
			t.Errorf("got %+v", got)
		}
	}
	upload.release()
}

// TestAccepted_Next: who waits for the end of a job is accepted with the next, and a
// job that is refused is seen by nobody.
func TestAccepted_Next(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	r := h.subscribe(d)
	want := map[string]bool{}
	for range 20 {
		j := h.start(d.StartVerification(inMain("prod"), server.Latest))
		want[j.ID] = true
		refused, err := d.StartVerification(inMain("prod"), server.Latest)
		if err == nil { // the first one was quick
			want[refused.ID] = true
			j = refused
		} else if !errors.Is(err, server.ErrConflict) {
			t.Fatal(err)
		}
		await(t, "the end to be told", func() bool {
			told := r.of(j.ID)
			return len(told) > 0 && told[len(told)-1].State != server.JobRunning
		})
	}
	for _, j := range r.jobs() {
		if j.Kind == "verify" && j.Reason == "manual" && !want[j.ID] && j.ID != r.jobs()[0].ID {
			t.Errorf("told of a job that was refused: %+v", j)
		}
	}
	r.end()
	<-r.ended
}
