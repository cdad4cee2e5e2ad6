package duty_test

import (
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// oneSided is a process that reaches only one of three members, and the two others.
func oneSided(t *testing.T, version string) (p *process, others []*testserver.Member, etcd *testserver.Cluster) {
	t.Helper()
	at := newPlace(t)
	etcd = testserver.StartCluster(t, testserver.Options{Size: 3, Version: version})
	p = at.beside(&testserver.Cluster{Version: etcd.Version, Members: etcd.Members[2:]}).process()
	p.Etcd = testserver.Connect(t, cluster.Config{Endpoints: p.etcd.Endpoints(), RequestTimeout: 2 * time.Second})
	return p, etcd.Members[:2], etcd
}

// noSuccess is a slot that stores a snapshot that no quorum confirmed. It must neither
// pass for a success nor count as protection.
func (p *process) noSuccess(confirmed time.Time) duty.Outcome {
	p.t.Helper()
	const why = "no quorum confirmed how far the cluster has come"
	o := p.slot()
	if o.Result != duty.Unconfirmed || o.Manifest == nil || o.Err == nil || schedule.IsPermanent(o.Err) ||
		!strings.Contains(o.Err.Error(), why) || o.Manifest.State() != backup.Unconfirmed || o.Manifest.Current() {
		p.t.Fatalf("got %+v", o)
	}
	if report, id := p.backup.Ended(o, o.Err); !report || id != "" {
		p.t.Errorf("the end was reported: %v, with snapshot %s", report, id)
	}
	p.healthy(health.Warning, why)
	if f := p.Known.Now(); !f.Confirmed.Equal(confirmed) || f.Failing.IsZero() {
		p.t.Errorf("confirmed at %v, want %v; failing since %v", f.Confirmed, confirmed, f.Failing)
	}
	return o
}

// TestSlot_NoQuorum: a member that is cut off from the majority says that nothing has
// changed, and believes it. It is not believed, whether it has noticed or not, and with
// the comparison switched off neither.
func TestSlot_NoQuorum(t *testing.T) {
	for _, version := range []string{"3.5", "3.7"} {
		t.Run(version, func(t *testing.T) {
			p, others, etcd := oneSided(t, version)
			put(t, etcd.Client(t), "OLD")
			p.settled()
			verified := p.taken()
			wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
			confirmed := p.Known.Now().Confirmed

			for _, m := range others {
				m.Kill()
			}
			nextSecond(t)
			first := p.noSuccess(confirmed) // it has not noticed
			if n := len(first.Manifest.MemberHashes); n != 3 {
				t.Errorf("%d members were asked for their hashes", n)
			}
			again := p.streams(func() {
				o := p.try(schedule.Scheduled, first.Manifest.StartedAt) // a retry of the same run
				wants(t, o, duty.Failed, "there is still no quorum since snapshot "+string(first.Snapshot))
			})
			if again != 0 {
				t.Errorf("a retry asked for %d databases", again)
			}
			testserver.Eventually(t, "the member sees no leader", func() bool {
				s, err := p.Etcd.Survey(t.Context())
				return err == nil && s.Candidates[0].NoLeader
			})
			nextSecond(t)
			p.noSuccess(confirmed)

			p.Lenient, p.backup.Hashes = true, compare.Off
			nextSecond(t)
			p.noSuccess(confirmed)
			p.look()
			if f := p.Known.Now(); !f.Confirmed.Equal(confirmed) || f.Newest().ID != verified.ID {
				t.Errorf("confirmed at %v by %s", f.Confirmed, f.Newest().ID)
			}
			restarted := p.place.process() // it knows only what is stored
			restarted.Lenient = true
			restarted.look()
			restarted.healthy(health.Warning, "no quorum confirmed how far the cluster has come")
			if f := restarted.Known.Now(); !f.Confirmed.Equal(verified.StartedAt) {
				t.Errorf("confirmed at %v", f.Confirmed)
			}

			p.Lenient, p.backup.Hashes = false, compare.One
			for _, m := range others {
				m.Restart(t)
			}
			etcd.WaitReady(t)
			nextSecond(t)
			m := p.taken()
			if report, id := p.backup.Ended(duty.Outcome{Result: duty.Succeeded}, nil); !report || id != m.ID {
				t.Errorf("the recovery was reported: %v, with %s", report, id)
			}
			p.healthy(health.OK, "")
		})
	}
}
