package duty_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// own gives the place an etcd of its own.
func (p *place) own(version string) *clientv3.Client {
	p.t.Helper()
	p.etcd = testserver.StartCluster(p.t, testserver.Options{Version: version})
	client := p.etcd.Client(p.t)
	put(p.t, client, "OLD")
	p.settled()
	return client
}

func put(t *testing.T, client *clientv3.Client, value string) {
	t.Helper()
	if _, err := client.Put(t.Context(), "k", value); err != nil {
		t.Fatal(err)
	}
}

// settled waits until a new cluster does nothing more by itself.
func (p *place) settled() {
	p.t.Helper()
	client, last, since := p.etcd.Client(p.t), uint64(0), time.Now()
	testserver.Eventually(p.t, "the raft index stands still", func() bool {
		st, err := client.Status(p.t.Context(), p.etcd.Members[0].ClientURL)
		if err != nil || st.RaftAppliedIndex != last {
			since = time.Now()
		}
		if err == nil {
			last = st.RaftAppliedIndex
		}
		return time.Since(since) > 2*time.Second
	})
}

// applied returns the raft index that the cluster has applied, or 0.
func (p *place) applied() uint64 {
	st, err := p.etcd.Client(p.t).Status(p.t.Context(), p.etcd.Members[0].ClientURL)
	if err != nil {
		return 0
	}
	return st.RaftAppliedIndex
}

// nextSecond waits until the id of another snapshot sorts after those of the ones
// before, which may have the same revision.
func nextSecond(t *testing.T) {
	t.Helper()
	began := time.Now().Truncate(time.Second)
	testserver.Eventually(t, "another second", func() bool { return time.Now().Truncate(time.Second).After(began) })
}

// TestSlot_OtherChanges: what no revision tells is a change, too.
func TestSlot_OtherChanges(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			at := newPlace(t)
			client := at.own(version)
			p := at.process()
			p.taken()
			for _, change := range []struct {
				name string
				do   func() error
			}{
				{"User", func() error { _, err := client.UserAdd(t.Context(), "somebody", "secret"); return err }},
				{"Role", func() error { _, err := client.RoleAdd(t.Context(), "reader"); return err }},
				{"Lease", func() error { _, err := client.Grant(t.Context(), 3600); return err }},
				{"Alarms", func() error {
					_, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(),
						&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 1, Alarm: pb.AlarmType_NOSPACE})
					return err
				}},
				{"Members", func() error {
					_, err := client.MemberAddAsLearner(t.Context(), []string{testserver.FreeURL(t)})
					return err
				}},
			} {
				// The snapshot itself changes nothing.
				wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
				nextSecond(t)
				known := p.Known.Now()
				before := known.Newest()
				index := at.applied()
				if err := change.do(); err != nil {
					t.Fatalf("%s: %v", change.name, err)
				}
				// etcd answers before it counts the change as applied.
				testserver.Eventually(t, "the change is applied", func() bool { return at.applied() > index })
				o := p.slot()
				if wants(t, o, duty.Succeeded, ""); o.Manifest != nil && o.Manifest.Revision != before.Revision {
					t.Errorf("%s: the revision moved", change.name)
				}
			}
		})
	}
}

// TestSlot_Wiped: a cluster that was wiped and filled again may be as far as the old
// one was, by its id, revision, raft index and term.
func TestSlot_Wiped(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			at := newPlace(t)
			at.own(version)
			p := at.process()
			old := p.taken()
			member := at.etcd.Members[0]
			member.Terminate()
			if err := os.RemoveAll(member.DataDir); err != nil {
				t.Fatal(err)
			}
			member.Restart(t)
			at.etcd.WaitReady(t)
			put(t, at.etcd.Client(t), "NEW")
			at.settled()
			o := p.slot()
			wants(t, o, duty.Unaccepted, "the HashKV of the records up to revision")
			if m := o.Manifest; m == nil || m.ClusterID != old.ClusterID || m.Revision != old.Revision ||
				m.SourceIndex != old.SourceIndex || m.SourceTerm != old.SourceTerm || m.HashKV.Hash == old.HashKV.Hash {
				t.Errorf("got %+v, after %+v", m, old)
			}
		})
	}
}

// TestSlot_Asked: a slot is skipped only if every answer says that nothing has
// changed. The member of this test gives no snapshot.
func TestSlot_Asked(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	asked := 0
	for name, lie := range map[string]func(*pb.StatusResponse, *pb.HashKVResponse){
		"":         func(*pb.StatusResponse, *pb.HashKVResponse) {},
		"Cluster":  func(st *pb.StatusResponse, _ *pb.HashKVResponse) { st.Header.ClusterId++ },
		"Revision": func(st *pb.StatusResponse, _ *pb.HashKVResponse) { st.Header.Revision++ },
		"Index":    func(st *pb.StatusResponse, _ *pb.HashKVResponse) { st.RaftAppliedIndex++ },
		"Term":     func(st *pb.StatusResponse, _ *pb.HashKVResponse) { st.RaftTerm++ },
		"Alarm": func(st *pb.StatusResponse, _ *pb.HashKVResponse) {
			st.Errors = []string{"memberID:9 alarm:CORRUPT "}
		},
		"NoLeader": func(st *pb.StatusResponse, _ *pb.HashKVResponse) { st.Leader = 0 },
		"Lagging": func(st *pb.StatusResponse, _ *pb.HashKVResponse) {
			if asked++; asked > 1 { // a linearizable read made it catch up
				st.Header.Revision++
				st.RaftIndex++
			}
		},
		"Hash":    func(_ *pb.StatusResponse, h *pb.HashKVResponse) { h.Hash++ },
		"NoHash":  func(_ *pb.StatusResponse, h *pb.HashKVResponse) { h.Hash = 0 },
		"Compact": func(_ *pb.StatusResponse, h *pb.HashKVResponse) { h.CompactRevision++ },
		"Learner": func(st *pb.StatusResponse, _ *pb.HashKVResponse) { st.IsLearner = true },
	} {
		t.Run(fmt.Sprintf("[%s]", name), func(t *testing.T) {
			p.Etcd = p.answering(m, lie)
			if name == "" {
				wants(t, p.slot(), duty.Skipped, "as in the newest verified snapshot")
			} else {
				wants(t, p.slot(), duty.Failed, "no member can serve")
			}
		})
	}
}

// TestSlot_Unconfirmed: a snapshot that no member was compared with is a success and
// protects nobody, unless the configuration does not want the comparison.
func TestSlot_Unconfirmed(t *testing.T) {
	at := newPlace(t)
	client := at.own("")
	p := at.process()
	verified := p.taken()
	put(t, client, "NEWER")
	p.backup.Hashes = compare.Off
	for range 2 { // a slot is not skipped because of it
		nextSecond(t)
		o := p.slot()
		wants(t, o, duty.Unconfirmed, "the comparison with the members is switched off")
		p.healthy(health.Warning, "the newest snapshot, "+string(o.Snapshot)+", is unconfirmed: the comparison")
		if f := p.Known.Now(); !f.Confirmed.Equal(verified.StartedAt) || f.Newest().ID != verified.ID {
			t.Errorf("got %+v", f)
		}
	}
	// A new process sees the same in the repository.
	other := at.process()
	other.look()
	if f := other.Known.Now(); !f.Confirmed.Equal(verified.StartedAt) || f.Newest().ID != verified.ID {
		t.Errorf("got %+v", f)
	}
	other.healthy(health.Warning, ", is unconfirmed: the comparison")

	p.Lenient = true
	before := p.asked("HashKV")
	wants(t, p.slot(), duty.Skipped, "as in the newest unconfirmed snapshot")
	if n := p.asked("HashKV") - before; n != 0 {
		t.Errorf("a member was asked for %d hashes", n)
	}
	put(t, client, "NEWEST")
	o := p.slot()
	wants(t, o, duty.Unconfirmed, "")
	p.healthy(health.OK, "")
	if f := p.Known.Now(); !f.Confirmed.Equal(o.Manifest.StartedAt) || f.Newest().ID != o.Snapshot {
		t.Errorf("got %+v", f)
	}
	// With the comparison back on, it counts no longer.
	p.Lenient, p.backup.Hashes = false, compare.One
	p.look()
	if f := p.Known.Now(); f.Newest() == nil || f.Newest().ID == o.Snapshot {
		t.Errorf("got %+v", f)
	}
	nextSecond(t)
	wants(t, p.slot(), duty.Succeeded, "")
	p.healthy(health.OK, "")
}

// TestSlot_UnconfirmedHistory: that a snapshot is unconfirmed does not hide that nobody
// has accepted its history.
func TestSlot_UnconfirmedHistory(t *testing.T) {
	p := newPlace(t).process()
	other := *p.taken()
	other.Timeline, other.StartedAt = "t9-zzzzzz", other.StartedAt.Add(time.Second)
	p.create(other)
	p.put()
	p.backup.Hashes = compare.Off
	if o := p.slot(); o.Result != duty.Unaccepted || o.Err == nil || o.Manifest.State() != backup.Unconfirmed {
		t.Errorf("got %+v", o)
	}
}
