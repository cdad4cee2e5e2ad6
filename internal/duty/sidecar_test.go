package duty_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// sidecars are a process beside each of three members. worker is the one whose
// turn it is.
func sidecars(t *testing.T) (worker *process, others []*process) {
	t.Helper()
	p := newPlace(t)
	p.etcd = shared.Cluster(t, 3)
	survey, err := testserver.Connect(t, cluster.Config{Endpoints: p.etcd.Endpoints()}).Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := survey.Endpoint(cluster.Worker(survey, 0))
	for _, ep := range p.etcd.Endpoints() {
		s := p.process()
		s.Subject.LocalEndpoint = ep
		if ep == at {
			worker = s
		} else {
			others = append(others, s)
		}
	}
	if worker == nil || len(others) != 2 {
		t.Fatalf("the worker is at %s", at)
	}
	if others[1].LocalEndpoint == survey.Endpoint(cluster.Worker(survey, 1)) { // in the order of their turns
		slices.Reverse(others)
	}
	return worker, others
}

// TestSidecars: one works, and the others confirm what they see of it. A run that
// is passed says nothing by itself.
func TestSidecars(t *testing.T) {
	worker, others := sidecars(t)
	for _, s := range others {
		var o duty.Outcome
		if n := s.streams(func() { o = s.slot() }); n != 0 {
			t.Errorf("%d streams", n)
		}
		wants(t, o, duty.Passed, "this slot belongs to the daemon beside member ")
		if report, _ := s.backup.Ended(o, o.Err); report {
			t.Error("reported although nobody knows of a snapshot")
		}
		s.healthy(health.Warning, "there is no verified snapshot yet")
	}
	if len(worker.keys()) != 1 { // the marker
		t.Errorf("the store holds %q", worker.keys())
	}
	m := worker.taken()
	worker.pass(time.Minute)
	for _, s := range others {
		before := s.now()
		o := s.slot()
		wants(t, o, duty.Passed, "this slot belongs to the daemon beside member ")
		if f := s.Known.Now(); f.Confirmed.Before(before) {
			t.Errorf("confirmed at %v", f.Confirmed)
		}
		if report, id := s.backup.Ended(o, o.Err); !report || id != m.ID {
			t.Errorf("reported: %v, of %s", report, id)
		}
		s.healthy(health.OK, "")
	}
	// The worker is away: that nobody works is not hidden by those who pass.
	worker.put()
	worker.pass(130 * time.Minute)
	second, third := others[0], others[1]
	o := third.slot()
	wants(t, o, duty.Passed, "")
	if report, _ := third.backup.Ended(o, o.Err); report {
		t.Error("reported although the worker is away")
	}
	third.healthy(health.Failure, "the last verified snapshot is ")
	if err := duty.Passing(&third.backup, o); err == nil || !strings.Contains(err.Error(), "that one does not work") {
		t.Errorf("it may pass for a success: %v", err)
	}
	// Somebody who asks one of them gets a snapshot.
	wants(t, third.try(schedule.Manual, time.Now().Round(0)), duty.Succeeded, "")
	o = second.slot()
	wants(t, o, duty.Passed, "")
	if err := duty.Passing(&second.backup, o); err != nil {
		t.Errorf("the cluster is protected: %v", err)
	}
}

// TestSidecars_TakeOver: where the daemon is away whose turn it is, the next one takes
// over, in the order of the members, and gives the work back.
func TestSidecars_TakeOver(t *testing.T) {
	worker, others := sidecars(t)
	second, third := others[0], others[1]
	if o := third.slot(); duty.Passing(&third.backup, o) == nil {
		t.Errorf("nobody has ever protected the cluster, and it may pass for a success: %+v", o)
	}
	worker.taken()
	worker.put()
	late := func(want bool, of ...*process) {
		t.Helper()
		for _, s := range of {
			s.look()
			if got := duty.Late(&s.backup); got != want {
				t.Errorf("member at %s: late %v", s.LocalEndpoint, got)
			}
		}
	}
	worker.pass(80 * time.Minute)
	late(false, others...)
	wants(t, third.slot(), duty.Passed, "")
	wants(t, second.slot(), duty.Passed, "")
	worker.pass(15 * time.Minute) // an hour and a half, and no slot
	late(true, others...)
	wants(t, third.slot(), duty.Passed, "")
	late(false, third) // it has looked
	m := second.taken()
	late(false, others...)
	wants(t, worker.slot(), duty.Skipped, "")
	if f := worker.Known.Now(); f.Newest().ID != m.ID {
		t.Errorf("the first one knows %s", f.Newest().ID)
	}
	// Two are away.
	second.put()
	second.pass(56 * time.Minute) // 151 minutes since the snapshot, which is of the true time
	wants(t, second.slot(), duty.Passed, "")
	third.taken()
}

// TestSidecars_Unread: a slot that is passed while the repository cannot be read, is gone
// or another one is no success, and none is told: the protection is only remembered.
func TestSidecars_Unread(t *testing.T) {
	worker, others := sidecars(t)
	worker.taken()
	s := others[0]
	wants(t, s.slot(), duty.Passed, "")
	unread := func(what string) error {
		t.Helper()
		o := s.slot()
		wants(t, o, duty.Passed, "this slot belongs to the daemon beside member ")
		if report, _ := s.backup.Ended(o, o.Err); report {
			t.Errorf("%s: a success is reported", what)
		}
		err := duty.Passing(&s.backup, o)
		if err == nil || !strings.Contains(err.Error(), ", and the repository cannot be read: ") {
			t.Errorf("%s: it may pass for a success: %v", what, err)
		}
		return err
	}
	up := s.down()
	if err := unread("down"); !errors.Is(err, errDown) {
		t.Errorf("got %v", err)
	}
	up()
	var absent *repository.AbsentError
	mount := s.unmount()
	if err := unread("gone"); !errors.As(err, &absent) || absent.Found != "" {
		t.Errorf("got %v", err)
	}
	s.write(backup.MarkerKey, otherMarker(t))
	if err := unread("another"); !errors.As(err, &absent) || absent.Found != s.id() {
		t.Errorf("got %v", err)
	}
	mount()
	o := s.slot()
	if err := duty.Passing(&s.backup, o); err != nil {
		t.Errorf("the cluster is protected: %v", err)
	}
}

// TestSidecars_Late: what waits in a sidecar's own spool is stored by it, whoever
// works.
func TestSidecars_Late(t *testing.T) {
	worker, others := sidecars(t)
	worker.taken()
	s := others[0]
	s.look()
	up := s.down()
	s.put()
	wants(t, s.try(schedule.Manual, time.Now().Round(0)), duty.Failed, "waits in")
	up()
	o := s.slot()
	wants(t, o, duty.Passed, "this slot belongs to the daemon beside member ")
	if len(o.Late) != 1 || o.Prune == nil || len(s.backup.Waiting()) != 0 {
		t.Errorf("got %+v", o)
	}
}

// TestSidecars_Nobody: a process that does not find its member says so, and does
// not pass. The cluster is protected all the same.
func TestSidecars_Nobody(t *testing.T) {
	worker, _ := sidecars(t)
	worker.taken()
	worker.pass(3 * time.Hour)
	worker.Subject.LocalEndpoint = testserver.FreeURL(t)
	wants(t, worker.slot(), duty.Failed, "ask the member beside this daemon who it is: ")
	worker.healthy(health.Warning, "the last backup failed: ask the member beside ")
	defrag := duty.Defragment{Subject: worker.Subject, Threshold: 0.99}
	if o := defrag.Do(t.Context(), duty.Run{}); o.Result != duty.Failed || !strings.Contains(o.Err.Error(), "who it is") {
		t.Errorf("got %+v", o)
	}
}

// TestSidecars_Defragment: one sidecar defragments all members.
func TestSidecars_Defragment(t *testing.T) {
	worker, others := sidecars(t)
	do := func(s *process, why schedule.Reason) duty.Outcome {
		d := duty.Defragment{Subject: s.Subject, Threshold: 0.99} // nothing is worth it
		return d.Do(t.Context(), duty.Run{Why: why})
	}
	if o := do(worker, schedule.Scheduled); o.Result != duty.Succeeded || o.Err != nil {
		t.Errorf("got %+v", o)
	}
	if o := do(others[0], schedule.Scheduled); o.Result != duty.Passed || o.Reason == "" {
		t.Errorf("got %+v", o)
	}
	if o := do(others[0], schedule.Manual); o.Result != duty.Succeeded {
		t.Errorf("got %+v", o)
	}
	alone := *others[0].Subject
	alone.LocalEndpoint = ""
	alone.Etcd = testserver.Connect(t, cluster.Config{Endpoints: []string{testserver.FreeURL(t)}})
	d := duty.Defragment{Subject: &alone, Threshold: 0.99}
	if o := d.Do(t.Context(), duty.Run{}); o.Result != duty.Failed || o.Err == nil {
		t.Errorf("got %+v", o)
	}
}

// TestSidecars_FailedMeanwhile: a snapshot from before a failure does not end it, however
// young it is: perhaps the other sidecar fails as well.
func TestSidecars_FailedMeanwhile(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	if report, _ := p.backup.Ended(duty.Outcome{Result: duty.Failed}, errDown); !report {
		t.Error("a failure is not reported")
	}
	passed := duty.Outcome{Result: duty.Passed}
	if report, _ := p.backup.Ended(passed, nil); report {
		t.Error("the end of the failure is reported, and no snapshot shows it")
	}
	m := p.changed()
	if report, id := p.backup.Ended(passed, nil); !report || id != m.ID {
		t.Errorf("a snapshot is there: reported %v, %s", report, id)
	}
}
