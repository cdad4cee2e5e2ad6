package prune_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// later is the time of the prunes. By then the snapshots of the tests are old by
// their names and by the clock of the store.
func later() time.Time {
	now := time.Now().Add(48 * time.Hour)
	if least := started.AddDate(0, 0, 9); now.Before(least) {
		return least
	}
	return now
}

// pruner looks, plans and prunes as a daemon does.
type pruner struct {
	cluster *repository.Cluster
	policy  retention.Policy
	now     func() time.Time
	log     *slog.Logger
}

func newPruner(s storage.Store, p retention.Policy) *pruner {
	return &pruner{prod(s), p, later, slog.New(slog.DiscardHandler)}
}

func (p *pruner) plan(ctx context.Context) (*prune.Plan, error) {
	o, err := p.cluster.Lenient(p.policy.CountUnconfirmed).Look(ctx, prune.Vouch(p.policy), nil, p.now())
	if err != nil {
		return nil, err
	}
	return prune.NewPlan(o, p.policy, p.now())
}

func (p *pruner) run(ctx context.Context, plan *prune.Plan) (*prune.Result, error) {
	return prune.Run(ctx, p.cluster, plan, "op", p.log)
}

func plan(t *testing.T, p *pruner) *prune.Plan {
	t.Helper()
	out, err := p.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func do(t *testing.T, p *pruner) *prune.Result {
	t.Helper()
	out, err := p.run(t.Context(), plan(t, p))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// going returns what a plan removes, the newest first.
func going(p *prune.Plan) []backup.SnapshotID {
	var out []backup.SnapshotID
	for _, d := range p.Decisions {
		if !d.Keep {
			out = append(out, d.ID)
		}
	}
	return out
}

// TestPrune prunes by a policy in each kind of store: every snapshot that the plan
// removes goes completely, and nothing else goes.
func TestPrune(t *testing.T) {
	s3, _ := newS3(t)
	for name, s := range map[string]storage.Store{"Memory": mem.New(), "File": file.New(t.TempDir()), "S3": s3} {
		t.Run(name, func(t *testing.T) {
			create(t, s, backup.MarkerKey, []byte("{}"))
			all := daily(t, s, 6)
			other := addSnapshot(t, s, manifest("lab", started.AddDate(-1, 0, 0), 1))
			if err := pin(t.Context(), s, all[1], "release", "me"); err != nil {
				t.Fatal(err)
			}
			p := newPruner(s, retention.Policy{Last: 2, MinVerified: 1})
			before := keys(t, s)
			pl := plan(t, p)
			if got, want := going(pl), ids(all[3], all[2], all[0]); !slices.Equal(got, want) {
				t.Fatalf("to go: %v, want %v", got, want)
			}
			if got := pl.Decisions[4]; got.ID != all[1].ID || !slices.Equal(got.Reasons, []string{"pinned: release"}) ||
				got.Pinned != "release" {
				t.Errorf("pinned: got %+v", got)
			}
			if pl.KeptBytes() != 30 || len(pl.Litter) != 0 || len(pl.Marks) != 0 {
				t.Errorf("got plan %+v", pl)
			}
			if after := keys(t, s); !slices.Equal(before, after) {
				t.Fatalf("planning changed %v into %v", before, after)
			}
			if again := plan(t, p); !cmp.Equal(going(pl), going(again)) {
				t.Errorf("planned again: %v", going(again))
			}
			r, err := p.run(t.Context(), pl)
			if err != nil || !slices.Equal(r.Removed, ids(all[0], all[2], all[3])) || r.Bytes != 30 ||
				len(r.Skipped)+len(r.Locked)+len(r.Litter)+len(r.Marks)+r.Uploads != 0 {
				t.Fatalf("got %+v, %v", r, err)
			}
			want := slices.DeleteFunc(slices.Clone(before), func(key string) bool {
				return slices.ContainsFunc([]*backup.Manifest{all[0], all[2], all[3]}, func(e *backup.Manifest) bool {
					return key == e.Key() || strings.HasPrefix(key, "prod/data/"+string(e.ID.DataName()))
				})
			})
			if got := unmarked(t, s); !slices.Equal(got, want) {
				t.Errorf("left: %v, want %v", got, want)
			}
			if _, err := in(s).Cluster("lab").Manifest(t.Context(), item(other)); err != nil {
				t.Errorf("of another cluster: %v", err)
			}
			if r := do(t, p); len(r.Removed) != 0 {
				t.Errorf("a second prune removes %v", r.Removed)
			}
		})
	}
}

func TestPrune_Refuses(t *testing.T) {
	s := mem.New()
	daily(t, s, 2)
	if _, err := newPruner(s, retention.Policy{Last: -1}).plan(t.Context()); err == nil {
		t.Error("a policy that cannot be: no error")
	}
	if _, err := in(s).Cluster("").Look(t.Context(), 1, nil, later()); err == nil {
		t.Error("no cluster: no error")
	}
	// An overview that vouches for too few snapshots is refused.
	if _, err := prune.NewPlan(look(t, prod(s), 1, later()), retention.Policy{Last: 1, MinVerified: 2},
		later()); err == nil {
		t.Error("an overview that vouches for too few: no error")
	}
	pl := plan(t, newPruner(s, retention.Policy{Last: 1}))
	if _, err := prune.Run(t.Context(), in(s).Cluster("lab"), pl, "op", slog.New(slog.DiscardHandler)); err == nil ||
		len(keys(t, s)) != 4 {
		t.Errorf("a plan for another cluster: got %v, left %v", err, keys(t, s))
	}
}

// nearMisses are names that a person, another tool or another version might leave
// beside data and marks. None of them is ours.
var nearMisses = []string{
	"README", "prod/notes.txt", "prod/snapshots/20200101T000000Z-r5-aaaaaa.json",
	"prod/data/20200101T000000Z-aaaaaa", "prod/data/20200101T000000Z-aaaaaa.db.gz",
	"prod/data/20200101T000000Z-aaaaaa.db.zst.part", "prod/data/20200101T000000Z-r5-aaaaaa.db.zst",
	"prod/data/sub/20200101T000000Z-aaaaaa.db", "prod/data/.20200101T000000Z-aaaaaa.db",
	"prod/marks/notes.pin.json", "prod/marks/20200101T000000Z-aaaaaa.pin.json",
	"prod/marks/20200101T000000Z-r5-aaaaaa.pin", "prod/marks/20200101T000000Z-r5-aaaaaa.Pin.json",
	"prod/archive/20200101T000000Z-aaaaaa.db", "data/20200101T000000Z-aaaaaa.db",
}

// TestPrune_Foreign: in a repository full of near misses, only objects with our
// exact names are touched.
func TestPrune_Foreign(t *testing.T) {
	s := mem.New()
	create(t, s, backup.MarkerKey, []byte("{}"))
	for _, key := range nearMisses {
		create(t, s, key, []byte("not ours"))
	}
	all := daily(t, s, 3)
	litter := "prod/data/20200101T000000Z-bbbbbb.db.zst"
	create(t, s, litter, []byte("litter"))
	markLitter(t, s, "20200101T000000Z-bbbbbb", time.Now())
	elsewhere := "lab/data/20200101T000000Z-aaaaaa.db.zst"
	create(t, s, elsewhere, []byte("litter, but of another cluster"))
	r := do(t, newPruner(s, retention.Policy{Last: 1, MinVerified: 1}))
	if !slices.Equal(r.Litter, []string{litter}) || len(r.Removed) != 2 {
		t.Errorf("got %+v", r)
	}
	want := append([]string{backup.MarkerKey, elsewhere, all[2].Key(),
		"prod/data/" + string(all[2].ID.DataName()) + ".db"}, nearMisses...)
	slices.Sort(want)
	if diff := cmp.Diff(want, unmarked(t, s)); diff != "" {
		t.Errorf("left (- want, + got):\n%s", diff)
	}
}

// TestPrune_Litter: data without a manifest goes if it is old by its name and by the
// clock of the store, if two prunes a day apart saw no manifest, and if nobody has
// completed it meanwhile.
func TestPrune_Litter(t *testing.T) {
	s := mem.New()
	old, young := "prod/data/20200101T000000Z-aaaaaa.db.zst",
		"prod/data/"+later().Add(-time.Hour).UTC().Format("20060102T150405Z")+"-aaaaaa.db"
	late := manifest("prod", started.AddDate(0, 0, -9), 5)
	create(t, s, old, []byte("litter"))
	create(t, s, young, []byte("a backup in progress"))
	create(t, s, late.DataKey(), []byte("0123456789"))
	p := newPruner(s, retention.Policy{})
	p.now = func() time.Time { return time.Now().Add(23 * time.Hour) }
	if pl := plan(t, p); len(pl.Litter)+len(pl.Found) != 0 {
		t.Errorf("stored less than a day ago: %v", pl.Found)
	}
	p.now = later
	wantLitter(t, plan(t, p), nil, []string{old, late.DataKey()}, nil)
	r := do(t, p)
	if !slices.Equal(r.Marked, []string{old, late.DataKey()}) || len(r.Litter) != 0 || r.Bytes != 0 {
		t.Errorf("the first time: got %+v", r)
	}
	marks := []string{"prod/marks/20200101T000000Z-aaaaaa.litter.json",
		"prod/marks/" + string(late.ID.DataName()) + ".litter.json"}
	if m, err := backup.ParseMark(readObject(t, s, marks[0])); err != nil || m.By != "op" || m.Kind != "litter" ||
		m.Data != "20200101T000000Z-aaaaaa" {
		t.Errorf("got mark %+v, %v", m, err)
	}
	pl := plan(t, p)
	wantLitter(t, pl, []string{old, late.DataKey()}, nil, nil)
	addManifest(t, s, late) // the slowest backup of all
	r, err := p.run(t.Context(), pl)
	if err != nil || !slices.Equal(r.Litter, []string{old}) || r.Bytes != int64(len("litter")) {
		t.Errorf("got %+v, %v", r, err)
	}
	want := []string{late.DataKey(), young, late.Key(), marks[1]}
	slices.Sort(want)
	if got := keys(t, s); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	// It was no litter: the mark goes.
	if r := do(t, p); len(r.Marks) != 1 || r.Marks[0].String() != marks[1] || len(keys(t, s)) != 3 {
		t.Errorf("got %+v, left %v", r, keys(t, s))
	}
}

// TestPrune_Companions: the object with companion files goes with the data of its snapshot, and
// alone, too: it is litter where no manifest is.
func TestPrune_Companions(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 3)
	for _, m := range all[:2] {
		create(t, s, filesKey(m), []byte("files"))
	}
	lost, alone := "prod/data/20200101T000000Z-aaaaaa.files.tar.zst", "prod/data/20200101T000000Z-bbbbbb.db.zst"
	for _, key := range []string{lost, alone, strings.Replace(alone, ".db", ".files.tar", 1)} {
		create(t, s, key, []byte("litter"))
	}
	p := newPruner(s, retention.Policy{Last: 2, MinVerified: 1})
	p.now = later
	r := do(t, p)
	if !slices.Equal(r.Removed, []backup.SnapshotID{all[0].ID}) || len(r.Marked) != 3 || r.Bytes != 15 {
		t.Errorf("the first time: got %+v", r)
	}
	if r := do(t, p); len(r.Litter) != 3 {
		t.Errorf("the second time: got %+v", r)
	}
	want := []string{all[1].DataKey(), filesKey(all[1]), all[1].Key(), all[2].DataKey(), all[2].Key()}
	slices.Sort(want)
	if got := unmarked(t, s); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	if err := prune.Delete(t.Context(), prod(s), all[1].ID, "op"); err != nil {
		t.Fatal(err)
	}
	if got := unmarked(t, s); len(got) != 2 {
		t.Errorf("left: %v", got)
	}
}

func filesKey(m *backup.Manifest) string {
	return "prod/data/" + string(m.ID.DataName()) + ".files.tar"
}

// wantLitter compares what a plan removes, marks, and leaves because it was marked
// lately.
func wantLitter(t *testing.T, pl *prune.Plan, goes, found, waiting []string) {
	t.Helper()
	for n, items := range [][]repository.Item{pl.Litter, pl.Found, pl.Waiting} {
		var got []string
		for _, i := range items {
			for _, o := range i.Data {
				got = append(got, o.Key)
			}
		}
		if want := [][]string{goes, found, waiting}[n]; !slices.Equal(got, want) {
			t.Errorf("%d: litter is %v, want %v", n, got, want)
		}
	}
}

// markLitter makes a mark of litter, as another host may have made it.
func markLitter(t *testing.T, s storage.Store, data backup.DataName, at time.Time) {
	t.Helper()
	m := backup.Mark{Format: backup.MarkFormat, Kind: backup.MarkLitter, Data: data, Reason: "x", At: at}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "prod/marks/"+string(data)+".litter.json", raw)
}

// TestPrune_LitterMarks: the later of the times in a mark and of its object counts. A
// mark that cannot be right is made again.
func TestPrune_LitterMarks(t *testing.T) {
	const name = "20200101T000000Z-aaaaaa"
	data := []string{"prod/data/" + name + ".db"}
	now := later()
	for what, c := range map[string]struct {
		at                   time.Time
		goes, found, waiting []string
	}{
		"Old":       {at: now.Add(-25 * time.Hour), goes: data},
		"Ancient":   {at: now.AddDate(-5, 0, 0), goes: data}, // but it was stored two days ago
		"Young":     {at: now.Add(-23 * time.Hour), waiting: data},
		"Future":    {at: now.Add(time.Hour), found: data},
		"Damaged":   {found: data},
		"StoredNow": {at: now.AddDate(-5, 0, 0), waiting: data},
	} {
		t.Run(what, func(t *testing.T) {
			s := mem.New()
			create(t, s, data[0], []byte("litter"))
			if c.at.IsZero() {
				create(t, s, "prod/marks/"+name+".litter.json", []byte("nonsense"))
			} else {
				markLitter(t, s, name, c.at)
			}
			p := newPruner(s, retention.Policy{})
			p.now = func() time.Time { return now }
			if what == "StoredNow" {
				p.cluster = prod(&lateStore{s, now.Add(-time.Hour)})
			}
			wantLitter(t, plan(t, p), c.goes, c.found, c.waiting)
			do(t, p)
			left := keys(t, s)
			if gone := len(left) == 0; gone != (c.goes != nil) {
				t.Errorf("left %v", left)
			}
			if c.found == nil {
				return
			}
			m, err := backup.ParseMark(readObject(t, s, "prod/marks/"+name+".litter.json"))
			if err != nil || time.Since(m.At) > time.Hour || time.Since(m.At) < -time.Minute {
				t.Errorf("got mark %+v, %v", m, err)
			}
		})
	}
}

// lateStore has stored its marks at another time.
type lateStore struct {
	storage.Store
	at time.Time
}

func (s *lateStore) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			if strings.Contains(o.Key, "/marks/") {
				o.ModTime = s.at
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

// TestPrune_ListingLags: a listing that does not show a manifest for once costs no
// snapshot, and the mark that it led to goes.
func TestPrune_ListingLags(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 3)
	hidden := &hiding{Store: s, key: all[0].Key()}
	p := newPruner(hidden, retention.Policy{})
	if r := do(t, p); len(r.Marked) != 1 || len(r.Litter) != 0 {
		t.Errorf("got %+v", r)
	}
	hidden.key = ""
	if r := do(t, p); len(r.Marks) != 1 || len(r.Litter) != 0 || len(keys(t, s)) != 6 {
		t.Errorf("got %+v, left %v", r, keys(t, s))
	}
	// The mark is gone: it must be seen twice again.
	hidden.key = all[0].Key()
	if r := do(t, p); len(r.Marked) != 1 || len(r.Litter) != 0 {
		t.Errorf("again: got %+v", r)
	}
}

// hiding does not list one object.
type hiding struct {
	storage.Store
	key string
}

func (s *hiding) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			if (err != nil || o.Key != s.key) && !yield(o, err) {
				return
			}
		}
	}
}

// TestPrune_Removed: a removal is announced by a mark, which stays for 30 days. What an
// interrupted removal leaves goes in the next prune, unless the manifest is there after
// all.
func TestPrune_Removed(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 3)
	removed := func(m *backup.Manifest) string { return "prod/marks/" + string(m.ID) + ".removed.json" }
	interrupted := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpDelete && strings.HasPrefix(key, "prod/data/") {
			return errFault
		}
		return nil
	}}
	p := newPruner(interrupted, retention.Policy{Last: 1, MinVerified: 1})
	if _, err := p.run(t.Context(), plan(t, p)); !errors.Is(err, errFault) {
		t.Fatalf("got %v", err)
	}
	m, err := backup.ParseMark(readObject(t, s, removed(all[0])))
	if err != nil || m.By != "op" || m.Reason != "retention: no rule keeps it" || m.Manifest != all[0].Key() {
		t.Errorf("got mark %+v, %v", m, err)
	}
	p.cluster = prod(s)
	pl := plan(t, p)
	wantLitter(t, pl, []string{all[0].DataKey()}, nil, nil)
	if r := do(t, p); !slices.Equal(r.Litter, []string{all[0].DataKey()}) || !slices.Equal(r.Removed, ids(all[1])) {
		t.Errorf("got %+v", r)
	}
	want := []string{all[2].DataKey(), removed(all[0]), removed(all[1]), all[2].Key()}
	if got := keys(t, s); !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	p.now = func() time.Time { return time.Now().AddDate(0, 0, 29) }
	if r := do(t, p); len(r.Marks) != 0 {
		t.Errorf("after 29 days: got %+v", r)
	}
	p.now = func() time.Time { return time.Now().AddDate(0, 0, 31) }
	if r := do(t, p); len(r.Marks) != 2 || len(keys(t, s)) != 2 {
		t.Errorf("after 31 days: got %+v, left %v", r, keys(t, s))
	}
	// A mark of a removal that did not happen is no statement about what exists.
	mark := backup.Mark{
		Kind: backup.MarkRemoved, ID: all[2].ID, Manifest: all[2].Key(), Reason: "x",
	}
	if err := prod(s).Marks().Note(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	hidden := newPruner(&hiding{Store: s, key: all[2].Key()}, retention.Policy{})
	wantLitter(t, plan(t, hidden), []string{all[2].DataKey()}, nil, nil)
	if r := do(t, hidden); len(r.Litter) != 0 || len(keys(t, s)) != 3 { // the store is asked for it
		t.Errorf("got %+v, left %v", r, keys(t, s))
	}
	if r := do(t, newPruner(s, retention.Policy{})); len(r.Marks) != 1 || len(keys(t, s)) != 2 {
		t.Errorf("got %+v, left %v", r, keys(t, s))
	}
}

// TestPrune_OtherVersion: data is no litter if its manifest has a name that only
// another version of backupd knows. The plan says so, too.
func TestPrune_OtherVersion(t *testing.T) {
	s := mem.New()
	m := addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, -3), 1))
	if err := s.Delete(t.Context(), m.Key()); err != nil {
		t.Fatal(err)
	}
	create(t, s, damagedKey(m), []byte("x"))
	markLitter(t, s, m.ID.DataName(), later().AddDate(0, 0, -2))
	other := "prod/snapshots/" + string(m.ID) + ".v2.manifest"
	create(t, s, other, []byte("{}"))
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
	wantLitter(t, plan(t, p), nil, nil, nil)
	if r := do(t, p); len(r.Marks) != 1 || len(r.Litter)+len(r.Marked) != 0 || len(keys(t, s)) != 3 {
		t.Errorf("removed %+v, left %q", r, keys(t, s))
	}
	for _, key := range []string{other, damagedKey(m)} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if r := do(t, p); !slices.Equal(r.Marked, []string{m.DataKey()}) {
		t.Errorf("got %+v", r)
	}
	if r := do(t, p); !slices.Equal(r.Litter, []string{m.DataKey()}) || len(keys(t, s)) != 0 {
		t.Errorf("removed %q, left %q", r.Litter, keys(t, s))
	}
}

// TestPrune_Leftovers: marks of snapshots that are gone, and unfinished uploads.
func TestPrune_Leftovers(t *testing.T) {
	s := mem.New()
	gone, lost := manifest("prod", started, 5), manifest("prod", started, 5)
	gone.ID = "20200101T000000Z-r5-aaaaaa"
	lost.ID = "20200101T000000Z-r5-bbbbbb"                 // its data is there
	back := manifest("prod", started.AddDate(0, 0, -9), 5) // and comes back meanwhile
	lostData := "prod/data/20200101T000000Z-bbbbbb.db"
	for _, key := range []string{pinKey(gone), damagedKey(gone), pinKey(lost), damagedKey(lost), lostData,
		pinKey(back)} {
		create(t, s, key, []byte("x"))
	}
	uploads := &staleUploads{Store: s}
	p := newPruner(storage.WithObserver(uploads, func(storage.Event) {}), retention.Policy{Last: 1})
	pl := plan(t, p)
	if len(pl.Marks) != 3 || len(pl.Litter) != 0 || !slices.Equal(pl.Orphans, ids(lost)) {
		t.Fatalf("got %+v", pl)
	}
	addManifest(t, s, back)
	var log strings.Builder
	p.log = slog.New(slog.NewTextHandler(&log, nil))
	r, err := p.run(t.Context(), pl)
	if err != nil || r.Uploads != 3 || uploads.olderThan != 24*time.Hour {
		t.Errorf("got %+v, %v", r, err)
	}
	if len(r.Marks) != 2 || r.Marks[0].String() != damagedKey(gone) || r.Marks[1].String() != pinKey(gone) {
		t.Errorf("got marks %v", r.Marks)
	}
	if !strings.Contains(log.String(), "lost its manifest") || !strings.Contains(log.String(), string(lost.ID)) {
		t.Errorf("the log does not name the orphan: %s", log.String())
	}
	want := []string{lostData, pinKey(lost), damagedKey(lost), pinKey(back), back.Key()}
	slices.Sort(want)
	if got := keys(t, s); !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
	uploads.err = fmt.Errorf("list multipart uploads: %w", fs.ErrPermission)
	do(t, p) // which is no error
	uploads.err = errFault
	if _, err := p.run(t.Context(), plan(t, p)); !errors.Is(err, errFault) {
		t.Errorf("got %v", err)
	}
}

// TestPrune_MarkedLitter: data whose manifest is gone is litter, even with a mark
// that says that the snapshot was damaged. The mark goes after it.
func TestPrune_MarkedLitter(t *testing.T) {
	s := mem.New()
	m := addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, -9), 5))
	create(t, s, damagedKey(m), []byte("x"))
	if err := s.Delete(t.Context(), m.Key()); err != nil {
		t.Fatal(err)
	}
	p := newPruner(s, retention.Policy{Last: 1})
	if r := do(t, p); !slices.Equal(r.Marked, []string{m.DataKey()}) || len(r.Litter)+len(r.Marks) != 0 {
		t.Errorf("got %+v", r)
	}
	if r := do(t, p); !slices.Equal(r.Litter, []string{m.DataKey()}) || len(r.Marks) != 0 {
		t.Errorf("a day later: got %+v", r)
	}
	if r := do(t, p); len(r.Litter) != 0 || len(r.Marks) != 1 || len(keys(t, s)) != 0 {
		t.Errorf("again: got %+v, left %v", r, keys(t, s))
	}
}

// TestPrune_Floor: a plan that counts on a snapshot which is gone removes
// nothing.
func TestPrune_Floor(t *testing.T) {
	for n, refused := range map[int]bool{5: true, 4: true, 3: false, 0: false} {
		s := mem.New()
		all := daily(t, s, 6)
		p := newPruner(s, retention.Policy{Last: 1, MinVerified: 2})
		pl := plan(t, p)
		if err := s.Delete(t.Context(), all[n].Key()); err != nil {
			t.Fatal(err)
		}
		before := keys(t, s)
		traced := storagetest.Trace(s)
		r, err := prune.Run(t.Context(), prod(traced), pl, "op", p.log)
		if !refused {
			if err != nil || len(r.Removed) != 3 || len(r.Skipped) != 1 {
				t.Errorf("%d: got %+v, %v", n, r, err)
			}
			continue
		}
		if !errors.As(err, new(*repository.NotFoundError)) || !strings.Contains(err.Error(), string(all[n].ID)) ||
			strings.Contains(traced.String(), "delete ") || !slices.Equal(keys(t, s), before) {
			t.Errorf("%d: got %+v, %v\n%s", n, r, err, traced)
		}
	}
}

// TestPrune_Latest: the latest snapshot stays although it was begun under a clock
// that was behind: a restore would take it.
func TestPrune_Latest(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 4)
	late := addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, -9), 100))
	p := newPruner(s, retention.Policy{Last: 2, MinVerified: 2})
	pl := plan(t, p)
	if got := going(pl); !slices.Equal(got, ids(all[2], all[1], all[0])) {
		t.Errorf("would remove %v", got)
	}
	for _, d := range pl.Decisions {
		if reasons := strings.Join(d.Reasons, "; "); d.ID == late.ID && !strings.Contains(reasons, "newest verified 1 of 2") {
			t.Errorf("reasons %q", reasons)
		}
	}
	do(t, p)
	i, err := choice.Choose(t.Context(), prod(s), choice.Latest, choice.Allow{}, later())
	if err != nil || i.ID != late.ID {
		t.Errorf("latest is %v, %v", i.ID, err)
	}
}

type staleUploads struct {
	storage.Store
	olderThan time.Duration
	err       error
}

func (s *staleUploads) AbortStaleUploads(_ context.Context, olderThan time.Duration) (int, error) {
	s.olderThan = olderThan
	return 3, s.err
}

// TestPrune_CountsOnGoodOnes: only snapshots that can be restored, as far as a
// look shows, count among those that must always stay.
func TestPrune_CountsOnGoodOnes(t *testing.T) {
	newer := func(s storage.Store, how string) {
		m := manifest("prod", started.AddDate(0, 0, 1), 50)
		switch how {
		case "Good":
			addSnapshot(t, s, m)
		case "Suspect":
			addSnapshot(t, s, suspectManifest(m.StartedAt, 50))
		case "DataMissing":
			addManifest(t, s, m)
		case "DataCut":
			create(t, s, m.DataKey(), []byte("012345678"))
			addManifest(t, s, m)
		case "OtherEncoding":
			create(t, s, m.DataKey()+".zst", []byte("0123456789"))
			addManifest(t, s, m)
		case "Nonsense":
			create(t, s, m.DataKey(), []byte("0123456789"))
			create(t, s, m.Key(), []byte("nonsense"))
		case "OtherFormat":
			create(t, s, m.DataKey(), []byte("0123456789"))
			create(t, s, m.Key(), []byte(`{"format": "backupd/snapshot/v9"}`))
		case "Renamed": // a suspect one that somebody wants to be verified
			bad := suspectManifest(m.StartedAt, 50)
			create(t, s, bad.DataKey(), []byte("0123456789"))
			create(t, s, strings.Replace(bad.Key(), ".suspect", "", 1), marshal(t, bad))
		case "Copied":
			e := addSnapshot(t, s, m)
			create(t, s, strings.Replace(e.Key(), "-r50-", "-r51-", 1), marshal(t, m))
		case "Future":
			addSnapshot(t, s, manifest("prod", later().Add(time.Hour), 50))
		}
	}
	for how, want := range map[string]int{
		"Good": 4, "Suspect": 0, "DataMissing": 0, "DataCut": 0, "OtherEncoding": 0, "Nonsense": 0, "OtherFormat": 0,
		"Renamed": 0, "Copied": 0, "Future": 3,
	} {
		t.Run(how, func(t *testing.T) {
			s := mem.New()
			all := daily(t, s, 5)
			newer(s, how)
			pl := plan(t, newPruner(s, retention.Policy{Last: 1, MinVerified: 2}))
			if how == "Good" || how == "Future" {
				if len(going(pl)) != want || pl.Decisions[0].Item.Defect() != nil {
					t.Errorf("got %+v", pl.Decisions)
				}
				return
			}
			if len(going(pl)) != want {
				t.Errorf("to go: %v", going(pl))
			}
			state := backup.Damaged
			if how == "Suspect" {
				state = backup.Suspect
			}
			if first := pl.Decisions[0]; first.State != state || (first.Item.Defect() == nil) != (how == "Suspect") ||
				!strings.HasPrefix(first.Reasons[0], string(state)+": 0 of 2 ") {
				t.Errorf("got %+v", first)
			}
			// Two more good ones, and all is well again.
			for i := range 2 {
				addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, 2+i), 60))
			}
			pl = plan(t, newPruner(s, retention.Policy{Last: 1, MinVerified: 2}))
			if !slices.Contains(going(pl), all[4].ID) {
				t.Errorf("later, to go: %v", going(pl))
			}
		})
	}
}

// TestPrune_Clash: data that two manifests refer to stays.
func TestPrune_Clash(t *testing.T) {
	s := mem.New()
	old := manifest("prod", started.AddDate(-1, 0, 0), 1)
	e := addSnapshot(t, s, old)
	create(t, s, strings.Replace(e.Key(), ".json", ".suspect.json", 1), marshal(t, old))
	daily(t, s, 4)
	p := newPruner(s, retention.Policy{Last: 2, MinVerified: 1})
	pl := plan(t, p)
	for _, d := range pl.Decisions[4:] {
		if !d.Keep || d.ID != e.ID || d.Reasons[0] != "another manifest names the same data" {
			t.Errorf("got %+v", d)
		}
	}
	if r := do(t, p); len(pl.Decisions) != 6 || len(r.Removed) != 2 {
		t.Errorf("got %+v of %d", r, len(pl.Decisions))
	}
	// To delete it by hand removes it completely.
	if err := prune.Delete(t.Context(), prod(s), e.ID, "op"); err != nil ||
		slices.ContainsFunc(unmarked(t, s), func(k string) bool { return strings.Contains(k, string(e.ID)[:16]) }) {
		t.Errorf("got %v, left %v", err, keys(t, s))
	}
}
