package duty_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
)

// pending returns a process in whose spool a snapshot waits for the repository.
func (p *place) pending() *process {
	p.t.Helper()
	s := p.process()
	s.taken()
	up := s.down()
	s.put()
	wants(p.t, s.slot(), duty.Failed, "waits in")
	up()
	return s
}

// forget makes it a new process without a record, which knows id from repository-id.
func (p *process) forget(id string) {
	p.Subject.Known = duty.NewKnowledge(p.now(), id)
}

// TestAstray_Evidence: a process without a record knows by what waits in its spool which
// repository there was. It makes no other, and adopts none.
func TestAstray_Evidence(t *testing.T) {
	for name, at := range map[string]func(*place){
		"Absent":  func(*place) {},
		"Another": func(p *place) { p.write(backup.MarkerKey, otherMarker(p.t)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t).pending()
			id, mount := p.id(), p.unmount()
			at(p.place)
			left, wanted := p.keys(), id
			if name == "Another" {
				wanted = "another repository (" + p.id() + ") is at the address of repository " + id
			}
			p.forget("")
			p.MayCreate = true
			path := p.allWaiting()[0]
			if _, err := p.Look(t.Context(), p.backup.Policy); err == nil || !strings.Contains(err.Error(), wanted) {
				t.Errorf("got %v", err)
			}
			wants(t, p.slot(), duty.Failed, wanted)
			p.healthy(health.Failure, "there is no such repository: ")
			p.healthy(health.Failure, wanted)
			var hint *backup.HintError
			if h := p.backup.Health(p.now()); !errors.As(h.Err, &hint) ||
				!strings.Contains(hint.Hint, "wait for repository "+id) || !strings.Contains(hint.Hint, "correct repository-id") ||
				!strings.Contains(hint.Hint, "mv "+strings.TrimSuffix(path, "spool")+"* ") {
				t.Errorf("got %+v", h)
			}
			if got := p.keys(); !slices.Equal(got, left) || len(p.backup.Waiting()) != 2 {
				t.Errorf("the store holds %q, before %q; %d wait", got, left, len(p.backup.Waiting()))
			}
			mount()
			if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Succeeded || len(p.backup.Waiting()) != 0 {
				t.Errorf("got %+v", o)
			}
			wants(t, p.slot(), duty.Skipped, "")
			p.healthy(health.OK, "")
		})
	}
}

// allWaiting are the paths of what waits, for any repository.
func (p *process) allWaiting() (paths []string) {
	p.t.Helper()
	all, err := p.Subject.Spool.Waiting()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, w := range all {
		paths = append(paths, w.Path)
	}
	return paths
}

// TestAstray_Chosen: another repository was chosen on purpose. The cluster is protected
// there, and it is not hidden that something waits for the old one. It is not lost.
func TestAstray_Chosen(t *testing.T) {
	p := newPlace(t).pending()
	id, marker := p.id(), p.read(backup.MarkerKey)
	p.write(backup.MarkerKey, otherMarker(t))
	chosen, left := p.id(), p.allWaiting()
	p.forget(chosen)
	p.changed()
	p.healthy(health.Warning, "pending snapshots wait for repository "+id+", and repository "+chosen+" is in use")
	if h := p.backup.Health(p.now()); !strings.Contains(h.Hint, "mv "+strings.TrimSuffix(left[0], "spool")+"* ") {
		t.Errorf("got %+v", h)
	}
	record := p.Record()
	p.write(backup.MarkerKey, marker)
	p.forget("")
	p.Recall(&record) // of the other one
	wants(t, p.slot(), duty.Failed, "another repository ("+id+") is at the address of repository "+chosen)
	for _, path := range left {
		if !slices.Contains(p.allWaiting(), path) {
			t.Errorf("%s is gone", path)
		}
	}
	p.forget(id) // by repository-id
	o := p.backup.Upload(t.Context(), duty.Run{})
	if o.Result != duty.Succeeded || slices.Contains(p.allWaiting(), left[0]) {
		t.Errorf("got %+v", o)
	}
}
