package prune_test

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestNewPlan_Damaged: a snapshot that is known to be damaged takes no good
// one's place.
func TestNewPlan_Damaged(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 5)
	markDamaged(t, s, all[4])
	p := newPruner(s, retention.Policy{Last: 2, MinVerified: 2})
	var log strings.Builder
	p.log = slog.New(slog.NewTextHandler(&log, nil))
	pl := plan(t, p)
	if first := pl.Decisions[0]; first.ID != all[4].ID || first.State != backup.Damaged || first.Item.Defect() == nil {
		t.Errorf("got %+v", first)
	}
	// As with a suspect snapshot, it is not known since when the content has been
	// bad.
	if got := going(pl); len(got) != 0 {
		t.Errorf("to go: %v", got)
	}
	if r := do(t, p); len(r.Removed) != 0 || !strings.Contains(log.String(), "do not count as verified") ||
		!strings.Contains(log.String(), "count=1") || strings.Contains(log.String(), "cluster=") { // the log has it
		t.Errorf("got %+v, log %s", r, log.String())
	}
	// One more good one, and the good ones are counted without it.
	next := addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, 1), 60))
	if got, want := going(plan(t, p)), ids(all[2], all[1], all[0]); !slices.Equal(got, want) {
		t.Errorf("later, to go: %v, want %v", got, want)
	}
	addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, 2), 61))
	r := do(t, p)
	if left := unmarked(t, s); !slices.Equal(r.Removed, ids(all[0], all[1], all[2], all[3], all[4])) ||
		slices.Contains(left, damagedKey(all[4])) || len(left) != 4 || !slices.Contains(left, next.Key()) {
		t.Errorf("got %+v, left %v", r, left)
	}
}

// TestNewPlan_Future: a snapshot from the future stays, and takes nobody's place.
func TestNewPlan_Future(t *testing.T) {
	for _, ahead := range []time.Duration{backup.Skew + time.Second, 2 * time.Hour, 365 * 24 * time.Hour} {
		s := mem.New()
		all := daily(t, s, 4)
		now := later()
		ahead := addSnapshot(t, s, manifest("prod", now.Add(ahead), 50))
		// Only its manifest shows that the newest snapshot of the present is
		// damaged.
		create(t, s, all[3].DataKey()+".zst", []byte("0123456789"))
		if err := s.Delete(t.Context(), all[3].DataKey()); err != nil {
			t.Fatal(err)
		}
		p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
		p.now = func() time.Time { return now }
		pl := plan(t, p)
		if d := pl.Decisions[0]; d.ID != ahead.ID || !d.Keep || !strings.Contains(d.Reasons[0], "begun in the future") {
			t.Errorf("got %+v", d)
		}
		if d := pl.Decisions[1]; d.ID != all[3].ID || d.State != backup.Damaged || d.Item.Defect() == nil ||
			len(going(pl)) != 0 {
			t.Errorf("got %+v, to go: %v", d, going(pl))
		}
	}
}

// TestDecision_Row: the row of a decision has the reason of the pin.
func TestDecision_Row(t *testing.T) {
	s := mem.New()
	m := addSnapshot(t, s, manifest("prod", started, 5))
	if err := prod(s).Marks().Pin(t.Context(), item(m), "before the upgrade", "me"); err != nil {
		t.Fatal(err)
	}
	daily(t, s, 3)
	var rows []backup.PruneRow
	for _, d := range plan(t, newPruner(s, retention.Policy{Last: 1, MinVerified: 1})).Decisions {
		rows = append(rows, d.Row(later()))
	}
	for _, row := range rows {
		if row.ID == m.ID != row.Pinned || row.Pinned && (row.PinReason != "before the upgrade" || !row.Keep) ||
			len(row.Reasons) == 0 {
			t.Errorf("got %+v", row)
		}
	}
	if len(rows) != 4 {
		t.Errorf("%d rows", len(rows))
	}
	var none prune.Decision
	if got := none.Row(later()); got.Reasons == nil {
		t.Error("no reasons are null in JSON")
	}
}

// TestNewPlan_Timelines: the rules and the snapshots that must stay are those of each
// timeline, and of an older one, too, only those count that are good.
func TestNewPlan_Timelines(t *testing.T) {
	s := mem.New()
	older := daily(t, s, 4)
	broken := manifest("prod", started.AddDate(0, 0, -10), 50) // the furthest, by a clock that was behind
	create(t, s, broken.DataKey(), []byte("0123456789"))
	create(t, s, broken.Key(), []byte("nonsense"))
	var newer []*backup.Manifest
	for i := range 3 {
		m := manifest("prod", started.AddDate(0, 0, i+1), backup.Revision(i+1))
		m.Timeline = "t2-bbbbbb"
		newer = append(newer, addSnapshot(t, s, m))
	}
	if _, err := acceptance.Accept(t.Context(), prod(s), "t2-bbbbbb", "it was restored", "op"); err != nil {
		t.Fatal(err)
	}
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
	pl := plan(t, p)
	// The damaged one is ahead of all verified ones of its timeline.
	if got, want := going(pl), ids(newer[1], newer[0]); !slices.Equal(got, want) {
		t.Errorf("to go: %v, want %v", got, want)
	}
	for _, key := range []string{broken.Key(), broken.DataKey()} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	pl = plan(t, p)
	if got, want := going(pl), ids(newer[1], newer[0], older[2], older[1], older[0]); !slices.Equal(got, want) {
		t.Errorf("later, to go: %v, want %v", got, want)
	}
	// The one that must stay of the older timeline is gone by now.
	if err := s.Delete(t.Context(), older[3].Key()); err != nil {
		t.Fatal(err)
	}
	if r, err := p.run(t.Context(), pl); !errors.As(err, new(*repository.NotFoundError)) || len(r.Removed) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestNewPlan_Frozen: while a later timeline is not accepted, nothing goes from the
// older one, and the run does what the plan says.
func TestNewPlan_Frozen(t *testing.T) {
	s := mem.New()
	older := daily(t, s, 3)
	later := addSnapshot(t, s, manifest("prod", started, 1))
	if err := s.Delete(t.Context(), later.Key()); err != nil {
		t.Fatal(err)
	}
	later.Timeline, later.NewestTimeline = "t2-bbbbbb", line1
	later.Origin = &backup.Origin{Timeline: line1, Snapshot: older[2].ID, Reason: "its data was lost"}
	addManifest(t, s, later)
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
	p.now = func() time.Time { return started.Add(time.Hour) }
	pl := plan(t, p)
	if got := going(pl); len(got) != 0 || !strings.Contains(strings.Join(pl.Decisions[3].Reasons, "; "),
		"frozen: the later timeline t2-bbbbbb is not accepted") {
		t.Errorf("to go: %v, reasons %q", got, pl.Decisions[3].Reasons)
	}
	if r := do(t, p); len(r.Removed) != 0 {
		t.Errorf("removed %v", r.Removed)
	}
	if _, err := acceptance.Accept(t.Context(), prod(s), "t2-bbbbbb", "it was restored", "op"); err != nil {
		t.Fatal(err)
	}
	if r := do(t, p); !slices.Equal(r.Removed, ids(older[0], older[1])) {
		t.Errorf("removed %v", r.Removed)
	}
}

// TestNewPlan_Unconfirmed: unconfirmed snapshots count only where nothing is ever
// compared, and then only if they are good.
func TestNewPlan_Unconfirmed(t *testing.T) {
	s := mem.New()
	var all []*backup.Manifest
	for i := range 4 {
		m := manifest("prod", started.AddDate(0, 0, i-4), backup.Revision(i+1))
		m.Unconfirmed, m.CommittedIndex = []string{"nobody was asked"}, 1
		if i == 3 { // its data is cut
			create(t, s, m.DataKey(), []byte("012345678"))
			all = append(all, addManifest(t, s, m))
			continue
		}
		all = append(all, addSnapshot(t, s, m))
	}
	if got := going(plan(t, newPruner(s, retention.Policy{Last: 1, MinVerified: 1}))); len(got) != 0 {
		t.Errorf("to go: %v", got)
	}
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1, CountUnconfirmed: true})
	if got := going(plan(t, p)); len(got) != 0 {
		t.Errorf("while the newest is damaged, to go: %v", got)
	}
	if err := s.Delete(t.Context(), all[3].Key()); err != nil {
		t.Fatal(err)
	}
	if got, want := going(plan(t, p)), ids(all[1], all[0]); !slices.Equal(got, want) {
		t.Errorf("to go: %v, want %v", got, want)
	}
}

// TestNewPlan_Lasting: of suspect snapshots with the same content, as their manifests tell,
// the newest and the oldest stay. Of which members they are is read once.
func TestNewPlan_Lasting(t *testing.T) {
	s := storagetest.Trace(mem.New())
	addSnapshot(t, s, manifest("prod", started, 1))
	var all []*backup.Manifest
	for i := range 5 {
		m := suspectManifest(started.Add(time.Duration(i+1)*time.Minute), 2)
		m.Source.ID, m.HashKV.Hash, m.RaftIndex = 1, 7, 9
		if i == 2 {
			m.Source.ID = 2 // which holds something else
		}
		all = append(all, addSnapshot(t, s, m))
	}
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
	first, err := p.cluster.Look(t.Context(), 1, nil, p.now())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := going(plan(t, p)), ids(all[3], all[1]); !slices.Equal(got, want) {
		t.Errorf("to go: %v, want %v", got, want)
	}
	before := len(s.Lines())
	again, err := p.cluster.Look(t.Context(), 1, first, p.now())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range s.Lines()[before:] {
		if strings.Contains(line, ".suspect") && strings.HasPrefix(line, "open") {
			t.Errorf("read once more: %s", line)
		}
	}
	for _, o := range []*repository.Overview{first, again} {
		if n := len(o.Items); n != 6 || o.Items[0].Source != 0 || o.Items[1].Source != 1 || o.Items[1].Content.Hash != 7 {
			t.Errorf("got %d, %+v", n, o.Items)
		}
	}
	if r := do(t, p); !slices.Equal(r.Removed, ids(all[1], all[3])) {
		t.Errorf("removed %v", r.Removed)
	}
	if got := going(plan(t, p)); len(got) != 0 {
		t.Errorf("the second time: %v", got)
	}
}
