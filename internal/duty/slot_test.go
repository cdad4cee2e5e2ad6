package duty_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSlot_Steady holds everything that a slot asks of its store, which takes a
// snapshot and prunes one, against a golden file. It asks the members for their
// status once.
func TestSlot_Steady(t *testing.T) {
	p := newPlace(t).process()
	first, second := p.taken(), p.changed()
	p.put()
	statuses, hashes, streams := p.asked("Status"), p.asked("HashKV"), p.asked("Snapshot")
	var o duty.Outcome
	lines := p.traced(func() { o = p.slot() })
	wants(t, o, duty.Succeeded, "")
	hashes = p.asked("HashKV") - hashes
	if got := p.asked("Status") - statuses; got != 2+hashes || hashes != 1 { // after the read, and before a hash
		t.Errorf("the member was asked for its status %d times, for its hash %d times", got, hashes)
	}
	if got := p.asked("Snapshot") - streams; got != 1 {
		t.Errorf("the member was asked for its database %d times", got)
	}
	if lists := count(lines, "list "); lists > 4 {
		t.Errorf("%d lists", lists)
	}
	if markers := count(lines, "open "+backup.MarkerKey); markers != 3 { // to look, to commit, to prune
		t.Errorf("the marker was read %d times", markers)
	}
	if o.Prune == nil || o.Prune.Removed != 1 || o.Prune.Err != nil {
		t.Errorf("pruned: %+v", o.Prune)
	}
	golden(t, "steady.trace", lines, map[string]string{
		string(first.ID): "FIRST", string(second.ID): "SECOND", string(o.Snapshot): "THIRD",
	})
	// What is known is what a look finds.
	known := p.Known.Now()
	if newest := known.Newest(); newest == nil || newest.ID != o.Snapshot ||
		!known.Confirmed.Equal(o.Manifest.StartedAt) || known.Pruned.IsZero() {
		t.Errorf("known: %+v", known)
	}
	seen := p.look()
	if len(seen.Items) != 2 || len(known.Overview.Items) != 2 || seen.Newest().ID != o.Snapshot ||
		seen.Items[0].Key() != known.Overview.Items[0].Key() ||
		seen.Timelines[0].Manifest.ID != known.Overview.Timelines[0].Manifest.ID {
		t.Errorf("seen: %+v\nknown: %+v", seen, known.Overview)
	}
	p.healthy(health.OK, "")
}

// TestSlot_Skipped: what holds everything is enough, and is as good as taken now.
func TestSlot_Skipped(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	p.pass(time.Hour)
	before := p.now()
	var o duty.Outcome
	var lines []string
	if n := p.streams(func() { lines = p.traced(func() { o = p.slot() }) }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Skipped, "as in the newest verified snapshot")
	if o.Prune != nil {
		t.Errorf("pruned: %+v", o.Prune)
	}
	golden(t, "skipped.trace", lines, map[string]string{string(m.ID): "NEWEST"})
	if f := p.Known.Now(); f.Confirmed.Before(before) || f.Attempted.Before(before) {
		t.Errorf("got %+v", f)
	}
	// Somebody who asks by hand gets one all the same.
	wants(t, p.try(schedule.Manual, p.now()), duty.Succeeded, "")
	// And it must not get too old until the next slot.
	p.backup.MaxAge = time.Hour
	p.pass(time.Hour)
	wants(t, p.slot(), duty.Succeeded, "")
}

// TestSlot_NotTrusted: a snapshot that something speaks against holds nothing.
func TestSlot_NotTrusted(t *testing.T) {
	for name, spoil := range map[string]func(p *process, m *backup.Manifest){
		"DataGone":     func(p *process, m *backup.Manifest) { p.remove(m.DataKey()) },
		"DataCut":      func(p *process, m *backup.Manifest) { p.write(m.DataKey(), []byte("x")) },
		"BadManifest":  func(p *process, m *backup.Manifest) { p.damage(m.Key()) },
		"Marked":       func(p *process, m *backup.Manifest) { p.damage(m.DataKey()); p.verify.Do(t.Context(), duty.Run{}) },
		"SuspectNewer": func(p *process, m *backup.Manifest) { p.create(suspected(m, time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t).process()
			spoil(p, p.taken())
			wants(t, p.slot(), duty.Succeeded, "")
		})
	}
}

// suspected is a later snapshot of the same data that something speaks against.
func suspected(m *backup.Manifest, later time.Duration) backup.Manifest {
	out := *m
	out.StartedAt = m.StartedAt.Add(later)
	out.Suspect = []string{"a member answered another hash"}
	return out
}

// TestSlot_Suspect: what something speaks against is stored, and is an error that
// another try would only repeat.
func TestSlot_Suspect(t *testing.T) {
	at := newPlace(t)
	at.etcd = testserver.StartCluster(t, testserver.Options{}) // whose alarms are raised
	p := at.process()
	p.taken()
	p.put()
	lowered := p.alarm()
	o := p.try(schedule.Manual, p.now()) // no key can be written
	wants(t, o, duty.Suspect, "is stored, but suspect: a CORRUPT alarm is active")
	if !schedule.IsPermanent(o.Err) || !errors.Is(o.Err, backup.ErrCorrupt) || o.Snapshot != o.Manifest.ID {
		t.Errorf("got %+v", o)
	}
	p.healthy(health.Failure, "the newest snapshot, "+string(o.Snapshot)+", is suspect")
	lowered()
	p.changed()
	p.healthy(health.OK, "")
}

// alarm has the cluster say that a member is corrupt, until it is called once more.
func (p *place) alarm() (lowered func()) {
	p.t.Helper()
	client := p.etcd.Client(p.t)
	req := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_CORRUPT}
	remote := pb.NewMaintenanceClient(client.ActiveConnection())
	if _, err := remote.Alarm(p.t.Context(), req); err != nil {
		p.t.Fatal(err)
	}
	return func() {
		p.t.Helper()
		req.Action = pb.AlarmRequest_DEACTIVATE
		if _, err := remote.Alarm(p.t.Context(), req); err != nil {
			p.t.Fatal(err)
		}
	}
}

// TestSlot_Start: Started is called when a snapshot is going to be taken, and not
// before.
func TestSlot_Start(t *testing.T) {
	p := newPlace(t).process()
	started := 0
	do := func() duty.Outcome {
		return p.backup.Do(t.Context(), duty.Run{Began: p.now(), Started: func() { started++ }})
	}
	up := p.down()
	wants(t, do(), duty.Failed, "open repository: "+errDown.Error())
	if up(); started != 0 {
		t.Error("started without a store")
	}
	wants(t, do(), duty.Succeeded, "")
	wants(t, do(), duty.Skipped, "")
	if started != 1 {
		t.Errorf("started %d times", started)
	}
}

// TestSlot_PruneFails: that is no fault of the backup before it, and is reported
// until a prune succeeds.
func TestSlot_PruneFails(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.changed()
	p.refuse(storage.OpDelete, "prod/snapshots/", errDown)
	p.put()
	o := p.slot()
	wants(t, o, duty.Succeeded, "")
	if o.Prune == nil || !errors.Is(o.Prune.Err, errDown) || o.Prune.Removed != 0 {
		t.Errorf("got %+v", o.Prune)
	}
	p.healthy(health.Warning, "old snapshots cannot be removed: ")
	p.hook.Before = nil
	p.put()
	if o := p.slot(); o.Prune == nil || o.Prune.Err != nil || o.Prune.Removed != 2 {
		t.Errorf("got %+v, %+v", o, o.Prune)
	}
	p.healthy(health.OK, "")
}

// TestSlot_PruneBreaksOff: what was removed before a prune failed is known to be gone.
func TestSlot_PruneBreaksOff(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.changed()
	p.refuse(storage.OpDelete, "prod/snapshots/", errDown)
	p.changed()
	deleted := 0
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpDelete && strings.HasPrefix(key, "prod/snapshots/") {
			if deleted++; deleted > 1 {
				return errDown
			}
		}
		return nil
	}
	p.put()
	o := p.slot()
	if o.Prune == nil || !errors.Is(o.Prune.Err, errDown) || o.Prune.Removed != 1 {
		t.Fatalf("got %+v, %+v", o, o.Prune)
	}
	var known, stored []string
	for _, i := range p.Known.Now().Overview.Items {
		known = append(known, i.Key().String())
	}
	for _, key := range p.keys() {
		if strings.HasPrefix(key, "prod/snapshots/") {
			stored = append(stored, key)
		}
	}
	slices.Sort(known)
	if !slices.Equal(known, stored) {
		t.Errorf("known: %q, stored: %q", known, stored)
	}
}

// TestSlot_Fails: a try that fails is seen at once, also while others follow, and
// until one succeeds.
func TestSlot_Fails(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.backup.Codec = func() (codec.Options, error) { return codec.Options{}, errDown }
	wants(t, p.slot(), duty.Failed, errDown.Error())
	p.healthy(health.Warning, "the last backup failed: "+errDown.Error())
	p.backup.Codec = func() (codec.Options, error) { return p.codec, nil }
	wants(t, p.slot(), duty.Skipped, "")
	p.healthy(health.OK, "")
}

// TestSlot_NoEtcd: without a member there is no snapshot, and no repository is made,
// even if one may be.
func TestSlot_NoEtcd(t *testing.T) {
	p := newEmptyPlace(t).process()
	p.MayCreate = true
	p.Etcd = testserver.Connect(t, cluster.Config{Endpoints: []string{testserver.FreeURL(t)}})
	wants(t, p.slot(), duty.Failed, "no member can serve")
	if keys := p.keys(); len(keys) != 0 {
		t.Errorf("the store holds %q", keys)
	}
}

// TestSlot_Interrupted: a run that is stopped says nothing about the repository.
func TestSlot_Interrupted(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	before := p.Known.Now()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the process stops")
	p.hook.Before = func(_ context.Context, op storage.Op, _ string) error {
		if op == storage.OpList {
			cancel(stop)
		}
		return ctx.Err()
	}
	if o := p.backup.Do(ctx, duty.Run{Began: p.now()}); o.Result != duty.Failed || !errors.Is(o.Err, stop) {
		t.Errorf("got %+v", o)
	}
	if f := p.Known.Now(); f.ReadErr != nil || !f.Read.Equal(before.Read) {
		t.Errorf("got %+v", f)
	}
}

// TestSlot_GoneMeanwhile: a snapshot that somebody removes while a slot finds that
// it holds everything protects nobody.
func TestSlot_GoneMeanwhile(t *testing.T) {
	p := newPlace(t).process()
	older := p.taken()
	p.pass(time.Minute)
	m := p.changed()
	p.Etcd = p.answering(m, func(*pb.StatusResponse, *pb.HashKVResponse) {
		p.remove(m.Key(), m.DataKey())
		p.look()
	})
	// It takes another one, which this member does not give.
	wants(t, p.slot(), duty.Failed, "no member can serve")
	p.look()
	if f := p.Known.Now(); !f.Confirmed.Equal(older.StartedAt) {
		t.Errorf("confirmed at %v, the only snapshot is of %v", f.Confirmed, older.StartedAt)
	}
}

// answering is a cluster that has come no further than m. Its only member does
// something before it says so, which may change its answers to Status and HashKV. It
// streams no database.
func (p *process) answering(
	m *backup.Manifest, do func(*pb.StatusResponse, *pb.HashKVResponse),
) *cluster.Cluster {
	answers := func() (*pb.StatusResponse, *pb.HashKVResponse) {
		header := &pb.ResponseHeader{ClusterId: uint64(m.ClusterID), MemberId: 1, Revision: int64(m.Revision)}
		st := &pb.StatusResponse{Header: header, Version: "3.7.3", DbSize: 1, Leader: 1, RaftTerm: m.SourceTerm,
			RaftIndex: m.SourceIndex, RaftAppliedIndex: m.SourceIndex}
		hash := &pb.HashKVResponse{Header: header, Hash: m.HashKV.Hash, HashRevision: int64(m.Revision),
			CompactRevision: int64(m.HashKV.CompactRevision)}
		do(st, hash)
		return st, hash
	}
	return testserver.Connect(p.t, cluster.Config{Endpoints: []string{
		testserver.StartFakeMember(p.t, testserver.FakeMember{
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
				st, _ := answers()
				return st, nil
			},
			HashKV: func(context.Context, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
				_, hash := answers()
				if hash.Hash == 0 {
					return nil, status.Error(codes.Unimplemented, "no hash")
				}
				return hash, nil
			},
		})}})
}
