package duty_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// ownPlace is a place with an etcd of its own, which the test may harm.
func ownPlace(t *testing.T, size int) *place {
	t.Helper()
	p := newPlace(t)
	p.etcd = testserver.StartCluster(t, testserver.Options{Size: size})
	return p
}

// beside is a place with the same store and another etcd.
func (p *place) beside(etcd *testserver.Cluster) *place {
	return &place{t: p.t, etcd: etcd, mem: p.mem, hook: p.hook, trace: p.trace, codec: p.codec}
}

// wipe removes the data of all members and starts them with their usual flags.
func (p *place) wipe() {
	p.t.Helper()
	for _, m := range p.etcd.Members {
		m.Kill()
	}
	for _, m := range p.etcd.Members {
		if err := os.RemoveAll(m.DataDir); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, m := range p.etcd.Members {
		m.Restart(p.t)
	}
	p.etcd.WaitReady(p.t)
}

// reached waits until the process reaches all members again.
func (p *process) reached() *process {
	p.t.Helper()
	testserver.Eventually(p.t, "the members to be reached", func() bool {
		survey, err := p.Etcd.Survey(p.t.Context())
		return err == nil && len(survey.Candidates) == len(p.etcd.Members)
	})
	return p
}

// set puts values, and waits until every member has them: a slot may ask any.
func (p *place) set(values ...string) {
	p.t.Helper()
	client, revision := p.etcd.Client(p.t), int64(0)
	for _, v := range values {
		put, err := client.Put(p.t.Context(), "key", v)
		if err != nil {
			p.t.Fatal(err)
		}
		revision = put.Header.Revision
	}
	for _, m := range p.etcd.Members {
		testserver.Eventually(p.t, "the member has what was put", func() bool {
			st, err := client.Status(p.t.Context(), m.ClientURL)
			return err == nil && st.Header.Revision >= revision
		})
	}
}

// questioned is a slot that must store a snapshot of a history that nobody accepted.
func (p *process) questioned(text string) *backup.Manifest {
	p.t.Helper()
	o := p.slot()
	var history *repository.HistoryError
	if o.Result != duty.Unaccepted || o.Manifest == nil || !errors.As(o.Err, &history) ||
		!errors.Is(o.Err, backup.ErrCorrupt) || !strings.Contains(o.Err.Error(), text) {
		p.t.Fatalf("got %+v", o)
	}
	return o.Manifest
}

func (p *process) cluster() *repository.Cluster {
	p.t.Helper()
	in, err := p.Open(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return in
}

func (p *process) accept(timeline string) {
	p.t.Helper()
	if _, err := acceptance.Accept(p.t.Context(), p.cluster(), timeline, "it is right", "test"); err != nil {
		p.t.Fatal(err)
	}
}

// latestIs wants latest to name the snapshot or, if it is empty, to be refused.
func (p *process) latestIs(id backup.SnapshotID) {
	p.t.Helper()
	i, err := choice.Choose(p.t.Context(), p.cluster(), choice.Latest, choice.Allow{}, p.now())
	if id == "" && !errors.As(err, new(*backup.RefusedError)) || id != "" && (err != nil || i.ID != id) {
		p.t.Errorf("latest is %v, %v, want %q", i.ID, err, id)
	}
}

// TestHistory_Wiped: a cluster that lost its data has the same id. Its snapshots are
// stored, and cost the old history nothing until somebody accepts the new one.
func TestHistory_Wiped(t *testing.T) {
	p := ownPlace(t, 3).process()
	p.set("a", "b", "c")
	first := p.taken()
	p.set("d")
	second := p.taken()
	p.latestIs(second.ID)
	p.wipe()
	empty := p.reached().questioned("has committed up to raft index")
	if empty.Timeline == second.Timeline || empty.ClusterID != second.ClusterID || empty.Keys != 0 ||
		empty.Origin == nil || empty.Origin.Snapshot != second.ID {
		t.Errorf("got %+v", empty)
	}
	p.healthy(health.Failure, "nobody has accepted")
	p.latestIs("")
	for range 3 {
		p.set("x")
		if m := p.questioned("nobody has accepted"); m.Timeline != empty.Timeline {
			t.Errorf("got %s after %s", m.Timeline, empty.Timeline)
		}
	}
	// A slot in which nothing changed is no success either.
	if o := p.slot(); o.Result != duty.Failed || !errors.Is(o.Err, backup.ErrCorrupt) {
		t.Errorf("got %+v", o)
	}
	for _, m := range []*backup.Manifest{first, second} {
		if !p.look().Holds(m.ID) {
			t.Errorf("%s was removed", m.ID)
		}
	}
	// Another process, which remembers nothing, knows it too.
	other := p.place.process()
	if o := other.slot(); !errors.Is(o.Err, backup.ErrCorrupt) {
		t.Errorf("got %+v", o)
	}
	p.accept(empty.Timeline)
	p.set("y")
	last := p.taken()
	p.healthy(health.OK, "")
	p.latestIs(last.ID)
}

// TestHistory_Refilled: the new history is as far as the old one was, or further.
func TestHistory_Refilled(t *testing.T) {
	for name, c := range map[string]struct{ before, after []string }{
		"Same":    {[]string{"old"}, []string{"new"}},
		"Further": {[]string{"a", "b"}, []string{"c", "d", "e", "f", "g", "h"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := ownPlace(t, 1).process()
			p.set(c.before...)
			m := p.taken()
			p.wipe()
			p.set(c.after...)
			if other := p.reached().questioned("nobody has accepted"); other.Timeline == m.Timeline {
				t.Errorf("both are of %s", m.Timeline)
			}
		})
	}
}

// TestHistory_Compacted: everything of the new history was written after the old one's
// revision, and the rest is compacted away. But a key was created before.
func TestHistory_Compacted(t *testing.T) {
	p := ownPlace(t, 1).process()
	p.set(strings.Split(strings.Repeat("x", 30), "")...)
	m := p.taken()
	p.wipe()
	client := p.etcd.Client(t)
	for range 10 {
		for _, op := range []clientv3.Op{clientv3.OpPut("junk", "x"), clientv3.OpDelete("junk")} {
			if _, err := client.Do(t.Context(), op); err != nil {
				t.Fatal(err)
			}
		}
	}
	p.set(strings.Split(strings.Repeat("y", 20), "")...)
	if _, err := client.Compact(t.Context(), 40, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if other := p.reached().questioned("was created at revision"); other.Revision <= m.Revision {
		t.Errorf("got revision %d after %d", other.Revision, m.Revision)
	}
}

// TestHistory_Pending: the cluster loses its data while the store is down. What waited
// is of a new history, and is no success.
func TestHistory_Pending(t *testing.T) {
	p := ownPlace(t, 1).process()
	p.set("a", "b", "c", "d", "e", "f", "g", "h")
	m := p.taken()
	p.look()
	up := p.down()
	p.wipe()
	wants(t, p.reached().slot(), duty.Failed, "waits in")
	up()
	o := p.backup.Upload(t.Context(), duty.Run{})
	wants(t, o, duty.Unaccepted, "has committed up to raft index")
	if o.Manifest != nil && (o.Manifest.Timeline == m.Timeline || o.Manifest.CommittedIndex == 0) {
		t.Errorf("got %+v", o.Manifest)
	}
	p.healthy(health.Failure, "nobody has accepted")
	if !p.look().Holds(m.ID) {
		t.Error("the old one was removed")
	}
}

// TestHistory_TwoClusters: two clusters under one name are seen by both.
func TestHistory_TwoClusters(t *testing.T) {
	here := ownPlace(t, 1)
	p := here.process()
	p.set("here")
	m := p.taken()
	there := here.beside(testserver.StartCluster(t, testserver.Options{Size: 1, Name: "staging"}))
	other := there.process()
	other.set("there")
	o := other.questioned("The cluster id was")
	p.set("here again")
	if again := p.questioned("two clusters are backed up under the name prod"); again.Timeline != m.Timeline {
		t.Errorf("got %s after %s", again.Timeline, m.Timeline)
	}
	other.set("there again")
	if again := other.questioned("two clusters are backed up under the name prod"); again.Timeline != o.Timeline {
		t.Errorf("got %s after %s", again.Timeline, o.Timeline)
	}
	for _, p := range []*process{p, other} {
		p.look()
		p.healthy(health.Failure, "two clusters")
		p.healthy(health.Failure, p.etcd.Members[0].ClientURL)
		p.latestIs("")
	}
	p.accept(m.Timeline)
	p.set("here once more")
	p.latestIs(p.taken().ID)
}

// TestHistory_Expected: a history that a restore has announced is accepted from its
// first snapshot.
func TestHistory_Expected(t *testing.T) {
	here := ownPlace(t, 1)
	p := here.process()
	p.set("a")
	p.taken()
	restored := here.beside(testserver.StartCluster(t, testserver.Options{Size: 1, Name: "restored"}))
	q := restored.process()
	survey, err := q.Etcd.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := acceptance.Expect(t.Context(), p.cluster(), survey.ClusterID, nil, "restored", "test"); err != nil {
		t.Fatal(err)
	}
	m := q.taken()
	if m.Origin == nil || m.ClusterID != survey.ClusterID {
		t.Errorf("got %+v", m)
	}
	q.healthy(health.OK, "")
	q.latestIs(m.ID)
}

// TestHistory_GoesOn: compaction, another leader, a member that was replaced and a
// restart begin no new history.
func TestHistory_GoesOn(t *testing.T) {
	p := ownPlace(t, 3).process()
	p.set("a", "b", "c")
	m := p.taken()
	client := p.etcd.Client(t)
	for name, change := range map[string]func(ctx context.Context) error{
		"compaction": func(ctx context.Context) error {
			p.set("d", "e")
			_, err := client.Compact(ctx, int64(m.Revision), clientv3.WithCompactPhysical())
			return err
		},
		"defragmentation": func(ctx context.Context) error {
			_, err := client.Defragment(ctx, p.etcd.Members[0].ClientURL)
			return err
		},
		"restart": func(context.Context) error {
			for _, m := range p.etcd.Members {
				m.Kill()
			}
			for _, m := range p.etcd.Members {
				m.Restart(t)
			}
			p.etcd.WaitReady(t)
			return nil
		},
		"deletion": func(ctx context.Context) error {
			_, err := client.Delete(ctx, "", clientv3.WithFromKey())
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := change(ctx); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		cancel()
		p.set(name)
		if next := p.reached().taken(); next.Timeline != m.Timeline || next.Origin != nil {
			t.Errorf("%s: got %s after %s, %+v", name, next.Timeline, m.Timeline, next.Origin)
		}
	}
}

// follower returns a member that does not lead.
func follower(t *testing.T, etcd *testserver.Cluster) *testserver.Member {
	t.Helper()
	for _, m := range etcd.Members {
		st, err := etcd.Client(t).Status(t.Context(), m.ClientURL)
		if err == nil && st.Leader != st.Header.MemberId {
			return m
		}
	}
	t.Fatal("no member follows")
	return nil
}
