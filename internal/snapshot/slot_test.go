package snapshot_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSlot compares the requests of one steady slot to the store with a golden
// file: a snapshot is taken and an old one is pruned.
func TestSlot(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	policy := retention.Policy{Last: 2, MinVerified: 1}
	s := mem.New()
	taker := newTaker(t, source, s)
	var all []*backup.Manifest
	for range 2 {
		all = append(all, take(t, taker))
	}
	repo, err := repository.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	testserver.Eventually(t, "another second", func() bool {
		return time.Now().Truncate(time.Second).After(all[1].StartedAt)
	})

	traced := storagetest.Trace(s)
	if repo, err = repository.Open(t.Context(), traced, repo.ID()); err != nil {
		t.Fatal(err)
	}
	prod := repo.Cluster("prod")
	now := time.Now()
	o, err := prod.Look(t.Context(), prune.Vouch(policy), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	survey, err := source.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := taker.Taker.Take(t.Context(), survey, snapshot.Target{Cluster: prod, Timelines: o.Timelines})
	if err != nil {
		t.Fatal(err)
	}
	now = time.Now()
	plan, err := prune.NewPlan(o.With(m, now), policy, now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := prune.Run(t.Context(), prod, plan, "op", slog.New(slog.DiscardHandler))
	if err != nil || len(r.Removed) != 1 || r.Removed[0] == m.ID {
		t.Fatalf("got %+v, %v", r, err)
	}
	golden(t, "slot.trace", traced.String())
	lists, markers := 0, 0
	for _, line := range traced.Lines() {
		if strings.HasPrefix(line, "list ") {
			lists++
		}
		if strings.HasSuffix(line, " "+backup.MarkerKey) {
			markers++
		}
	}
	if lists > 3 || markers != 2 { // to open, to commit
		t.Errorf("%d listings, %d looks at the marker", lists, markers)
	}
	all = slices.DeleteFunc(append(all, m), func(m *backup.Manifest) bool { return m.ID == r.Removed[0] })
	wantKeys(t, s, all...)
	if m.Timeline != all[0].Timeline {
		t.Errorf("got timeline %s after %s", m.Timeline, all[0].Timeline)
	}
}

// TestTaker_Take_Down: while the repository is down a snapshot is received and
// waits for it. The store is asked for nothing.
func TestTaker_Take_Down(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	survey, err := connect(t, f.urls...).Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, folder := mem.New(), t.TempDir()
	repo, err := repository.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	taker := keeper(t, f.urls[0], s, folder)
	down := snapshot.Target{Cluster: repository.At(failingStore(t), repo.ID()).Cluster("prod"), Down: errFault}
	var kept *snapshot.PendingError
	m, err := taker.Taker.Take(t.Context(), survey, down)
	if m != nil || !errors.As(err, &kept) || !errors.Is(err, errFault) || kept.Pending.Repository != repo.ID() ||
		f.streams.Load() != 1 {
		t.Fatalf("got %v, %v, %d streams", m, err, f.streams.Load())
	}
	taker.Spool.Keep = false
	if _, err := taker.Taker.Take(t.Context(), survey, down); !errors.Is(err, errFault) || errors.As(err, &kept) ||
		f.streams.Load() != 1 {
		t.Errorf("where nothing is kept: got %v, %d streams", err, f.streams.Load())
	}
	wantStored(t, s, folder, 1)
}

// TestVerifier_Record: a choice heeds the result of a verification.
func TestVerifier_Record(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
	raw := readObject(t, s, m.DataKey())
	prod := in(s).Cluster("prod")
	put := func(raw []byte) {
		if err := s.Delete(t.Context(), m.DataKey()); err != nil {
			t.Fatal(err)
		}
		create(t, s, m.DataKey(), raw)
	}
	verify := func(depth snapshot.Depth) error {
		v := newVerifier(s, "prod", t.TempDir())
		v.Depth = depth
		i, err := prod.Item(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, result := v.Verify(t.Context(), i)
		if _, err := v.Record(t.Context(), i, result, "test"); err != nil {
			t.Error(err)
		}
		return result
	}
	want := func(what string, kind backup.DefectKind) {
		t.Helper()
		var defect *backup.DefectError
		_, err := choice.Choose(t.Context(), prod, string(m.ID), choice.Allow{}, time.Now())
		if kind == "" && err != nil || kind != "" && (!errors.As(err, &defect) || defect.Kind != kind) {
			t.Errorf("%s: got %v, want %q", what, err, kind)
		}
	}
	for _, depth := range []snapshot.Depth{snapshot.Full, snapshot.StoredOnly} {
		changed := slices.Clone(raw)
		changed[len(changed)/2] ^= 1
		put(changed)
		if err := verify(depth); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
		want("changed", backup.Changed)
		put(raw)
		want("put right, but not verified yet", backup.Changed)
		if err := verify(depth); err != nil {
			t.Error(err)
		}
		want("put right", "")
	}
	// Stored bytes that are right do not disprove a content that differed, nor a
	// mark that cannot be read.
	i, err := prod.Item(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	content := &backup.DefectError{Kind: backup.Content, Key: m.DataKey(), Err: backup.Corruptf("keys differ")}
	for name, mark := range map[string]func(){
		"Content": func() {
			if err := prod.Marks().Record(t.Context(), i, content, ""); err != nil {
				t.Fatal(err)
			}
		},
		"Nonsense": func() { create(t, s, "prod/marks/"+string(m.ID)+".damaged.json", []byte("nonsense")) },
	} {
		mark()
		kind := backup.Changed
		if name == "Content" {
			kind = backup.Content
		}
		if err := verify(snapshot.StoredOnly); err != nil {
			t.Error(err)
		}
		want(name+", stored bytes are right", kind)
		if err := verify(snapshot.Full); err != nil {
			t.Error(err)
		}
		want(name+", all is right", "")
	}
}

// TestVerifier_PrunedMeanwhile: a snapshot that was removed since it was listed
// is not damaged.
func TestVerifier_PrunedMeanwhile(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
	prod := in(s).Cluster("prod")
	i, err := prod.Item(t.Context(), m.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := prune.Delete(t.Context(), prod, m.ID, "op"); err != nil {
		t.Fatal(err)
	}
	v := newVerifier(s, "prod", t.TempDir())
	_, err = v.Verify(t.Context(), i)
	if !errors.As(err, new(*repository.NotFoundError)) || errors.As(err, new(*backup.DefectError)) {
		t.Errorf("got %v", err)
	}
	if _, err := v.Record(t.Context(), i, err, ""); err != nil {
		t.Error(err)
	}
	wantKeys(t, s)
}

// TestVerifier_PrunedBehind: nor is one that is removed while it is verified. One
// that has lost its data alone is.
func TestVerifier_PrunedBehind(t *testing.T) {
	db := realDatabase(t)
	for name, remove := range map[string]func(s storage.Store, m *backup.Manifest) error{
		"Whole": func(s storage.Store, m *backup.Manifest) error {
			return prune.Delete(t.Context(), in(s).Cluster("prod"), m.ID, "op")
		},
		"DataAlone": func(s storage.Store, m *backup.Manifest) error { return s.Delete(t.Context(), m.DataKey()) },
	} {
		s := mem.New()
		m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
		v := newVerifier(&storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, _ string) error {
			if op == storage.OpStat { // the manifest was read
				return remove(s, m)
			}
			return nil
		}}, "prod", t.TempDir())
		_, err := v.Verify(t.Context(), item(m))
		var defect *backup.DefectError
		gone := errors.As(err, new(*repository.NotFoundError))
		if damaged := errors.As(err, &defect) && defect.Kind == backup.DataMissing; gone != (name == "Whole") ||
			damaged == gone {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestVerifier_Spool: what is pending does not give way to a verification, whose copy counts
// as well.
func TestVerifier_Spool(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	s, folder := storage.Store(mem.New()), t.TempDir()
	m := take(t, newTaker(t, connect(t, url), s))
	for range 2 {
		outage(t, keeper(t, url, s, folder))
	}
	v := newVerifier(s, "prod", folder)
	v.Spool.Keep, v.Spool.Limit = true, 2*int64(len(db.raw))
	if _, err := v.Verify(t.Context(), item(m)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	v.Spool.Limit *= 2
	if _, err := v.Verify(t.Context(), item(m)); err != nil {
		t.Error(err)
	}
	if p := pending(t, folder); len(p) != 2 {
		t.Errorf("%d are left", len(p))
	}
	wantStored(t, s, folder, 2)
}
