package daemon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// other is another cluster of the configuration, with the same etcd.
func (h *house) other(name string) string {
	return fmt.Sprintf("  - name: %s\n    endpoints: [%s]\n    snapshot: {schedule: \"@hourly\"}\n", name, h.real.Endpoints()[0])
}

// series returns the lines of all metrics that hold text.
func (h *house) series(d *Daemon, text string) []string {
	h.t.Helper()
	families, err := d.metrics.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if line := f.GetName() + " " + m.String(); strings.Contains(line, text) {
				out = append(out, line)
			}
		}
	}
	return out
}

func (h *house) reload(d *Daemon) {
	h.t.Helper()
	d.Reload(h.t.Context())
	if ok, _ := d.loaded.state(); !ok {
		h.t.Fatal("not reloaded")
	}
}

// TestReload_Removed: of a cluster that is taken out nothing is left but what
// runs, and of one that is renamed nothing is taken over.
func TestReload_Removed(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", h.other("second"))
	d := h.daemon()
	h.run(d)
	h.await("the first backups", func() bool {
		return d.Ready() == nil && d.Clusters()[0].Snapshot != "" && d.Clusters()[1].Snapshot != ""
	})
	prod, second := d.all()[0], d.all()[1]
	if !prod.enter() { // as a backup that still runs
		t.Fatal("it was retired")
	}
	q := request{job: d.board.begin(kindVerify, "prod", "manual")}
	prod.known.expect(kindVerify, q)

	h.configure("@hourly", h.other("second"))
	h.edit("name: prod", "name: renamed")
	h.reload(d)
	h.await("the cluster under its new name", func() bool { return d.Clusters()[0].Snapshot != "" })
	if got := d.all(); len(got) != 2 || got[0].conf.Name != "renamed" || got[1] != second || got[0].known == prod.known {
		t.Errorf("got %v", got)
	}
	if got := q.job.current(); got.State != server.JobFailed || got.Error == "" {
		t.Errorf("a job that will not come: %+v", got)
	}
	if _, err := d.StartBackup("prod"); err == nil {
		t.Error("a cluster that was taken out is backed up")
	}
	if _, _, err := prod.slot(t.Context(), schedule.Manual); err != nil {
		t.Errorf("what ran is not let finish: %v", err)
	}
	prod.leave()
	if left := h.series(d, `"prod"`); len(left) != 0 {
		t.Errorf("metrics of the cluster that was taken out:\n%s", strings.Join(left, "\n"))
	}
	if len(h.series(d, `"renamed"`)) == 0 || len(h.series(d, `"second"`)) == 0 {
		t.Error("metrics are missing")
	}
}

// TestReload_Running: what runs while the configuration changes is not lost, nor
// done in vain, nor does it answer for another.
func TestReload_Running(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	before := d.all()[0]
	job := before.jobs()[0] // as the scheduler has it when the reload comes
	if !before.enter() {
		t.Fatal("it was retired")
	}
	h.configure("@daily", "")
	h.reload(d)
	after := d.all()[0]
	if after == before || after.enter() != true || before.enter() {
		t.Fatal("it was not replaced")
	}
	after.leave()
	id, err := h.slot(before, schedule.Scheduled)
	if err != nil {
		t.Fatal(err)
	}
	before.leave()
	if c := d.Clusters()[0]; c.Snapshot != id || c.State != server.ClusterOK {
		t.Errorf("what was stored under the old configuration is not known: %+v", c)
	}
	h.put("a")
	if err := job.Run(t.Context(), schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	if c := d.Clusters()[0]; c.Snapshot == id {
		t.Error("a slot at the moment of the reload was done in vain")
	}
	h.configure("@daily", h.other("second"))
	h.edit("name: prod", "name: third")
	h.reload(d)
	if err := job.Run(t.Context(), schedule.Scheduled); err == nil {
		t.Error("the backup of a cluster that was taken out succeeded")
	}
	job.Done(err) // must do nothing
}

// TestReload_Patience: a reload does not make old snapshots young, and a new
// schedule has time to begin.
func TestReload_Patience(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	if _, err := h.slot(d.all()[0], schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	judge := func(after time.Duration) string { return d.all()[0].judge(time.Now().Add(after)).state }
	h.configure("@hourly", "    labels: {a: b}")
	h.reload(d)
	if judge(time.Hour) != server.ClusterOK || judge(3*time.Hour) != server.ClusterFailure {
		t.Errorf("after a change that is not of the schedule: %s, %s", judge(time.Hour), judge(3*time.Hour))
	}
	d.all()[0].known.change(func(s *standing) { s.confirmed = s.confirmed.Add(-24 * time.Hour) })
	if judge(0) != server.ClusterFailure {
		t.Errorf("a day without a backup: %s", judge(0))
	}
	h.configure("@every 2h", "")
	h.reload(d)
	if judge(0) != server.ClusterOK || judge(5*time.Hour) != server.ClusterFailure {
		t.Errorf("after a change of the schedule: %s, %s", judge(0), judge(5*time.Hour))
	}
}

// TestReload_Together: a signal and a changed file come at once, to and fro.
func TestReload_Together(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	h.run(d)
	h.await("the first backup", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	var both sync.WaitGroup
	for _, schedule := range []string{"@hourly", "@daily", "@weekly", "@monthly"} {
		h.configure(schedule, "")
		text, err := os.ReadFile(h.path)
		if err != nil {
			t.Fatal(err)
		}
		both.Go(func() {
			for range 200 {
				err := os.WriteFile(h.path+schedule, text, 0o600)
				if err = errors.Join(err, os.Rename(h.path+schedule, h.path)); err != nil {
					t.Error(err)
				}
				d.Reload(t.Context())
				g, err := d.enter("prod")
				if err != nil {
					t.Errorf("nobody guards the cluster: %v", err)
					return
				}
				g.leave()
			}
		})
	}
	both.Wait()
	h.reload(d)
	h.put("a")
	j, err := d.StartBackup("prod")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.ended(d, j.ID); got.State != server.JobSucceeded {
		t.Errorf("got %+v", got)
	}
}

// TestReload_Refused: of a configuration that is refused nothing is left.
func TestReload_Refused(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	for name, edit := range map[string]func(){
		"a file is missing":                     func() { h.edit("/spool}", "/spool}\n  notifications: [{webhook: {url-file: "+h.dir+"/none}}]") },
		"a file that only a restart would read": func() { h.edit(`{listen: "off"}`, `{listen: "off", read-tokens-file: `+h.dir+"/none}") },
		"no such program":                       func() { h.edit("/spool}", "/spool}\n  notifications: [{command: [/no/such/program]}]") },
	} {
		t.Run(name, func(t *testing.T) {
			h.configure("@hourly", h.other("second"))
			edit()
			before := d.all()[0]
			d.Reload(t.Context())
			if ok, _ := d.loaded.state(); ok || len(d.all()) != 1 || d.all()[0] != before || !before.enter() {
				t.Error("it is in use")
			} else {
				before.leave()
			}
			if left := h.series(d, `"second"`); len(left) != 0 {
				t.Errorf("metrics of what is not in use:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// TestReload_LeftBehind: what waits for a cluster that is guarded no more is
// seen, and so are only the repositories in use.
func TestReload_LeftBehind(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	store := breakable(g)
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	store.down.Store(true)
	h.put("a")
	g.backupDone(false, nil)
	if _, err := h.slot(g, schedule.Scheduled); err == nil {
		t.Fatal("stored")
	}
	h.edit("name: prod", "name: renamed")
	h.edit("main:", "moved:")
	h.reload(d)
	if got := h.series(d, `"prod"`); len(got) != 1 || !strings.Contains(got[0], "backupd_pending_uploads") {
		t.Errorf("got %v", got)
	}
	if got := h.series(d, `"main"`); len(got) != 0 {
		t.Errorf("metrics of a repository that is used no more: %v", got)
	}
	if n := testutil.CollectAndCount(&gauges{d}, "backupd_pending_uploads"); n != 2 {
		t.Errorf("%d clusters", n)
	}
}
