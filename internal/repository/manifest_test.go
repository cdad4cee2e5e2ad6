package repository_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func TestItems_Order(t *testing.T) {
	s := mem.New()
	// Revisions of another length, so that text order would be wrong.
	oldest := addManifest(t, s, manifest("prod", started, 1000))
	small := addManifest(t, s, manifest("prod", started.Add(time.Second), 99))
	large := addManifest(t, s, manifest("prod", started.Add(time.Second), 100))
	newest := addManifest(t, s, manifest("prod", started.Add(time.Hour), 5))
	other := addManifest(t, s, manifest("lab", started, 7))
	for _, foreign := range []string{
		backup.MarkerKey, "README", "prod/notes.txt", "prod/snapshots/notes.json",
		"prod/snapshots/20261120T101500Z-r5-aaaaaa.t1-aaaaaa.0.json.bak",
		"prod/snapshots/20261120T101500Z-r5-aaaaaa.t1-aaaaaa/x.json",
		"prod2/other/20261120T101500Z-r5-aaaaaa.t1-aaaaaa.json",
	} {
		create(t, s, foreign, []byte("not ours"))
	}
	all := list(t, prod(s))
	if got, want := idsOf(all), ids(oldest, small, large, newest); !slices.Equal(got, want) {
		t.Errorf("prod: got %v, want %v", got, want)
	}
	for n, m := range []*backup.Manifest{oldest, small, large, newest} {
		if all[n].Key() != m.ObjectKey() {
			t.Errorf("%d: got %v, want %v", n, all[n].Key(), m.Key())
		}
	}
	got, err := prod(s).Newest(t.Context(), 10, "", started.Add(2*time.Hour))
	if want := ids(newest, large, small, oldest); err != nil || !slices.Equal(idsOf(got), want) {
		t.Errorf("newest first: got %v, %v, want %v", idsOf(got), err, want)
	}
	if got := idsOf(list(t, in(s).Cluster("lab"))); !slices.Equal(got, ids(other)) {
		t.Errorf("lab: got %v", got)
	}
	if got := list(t, in(s).Cluster("pro")); len(got) != 0 {
		t.Errorf("the beginning of a cluster's name: got %v", got)
	}
	for n := range 2 { // the root, the first folder
		failing := storagetest.FailAt(s, n, storagetest.Before, errFault)
		if _, err := in(failing).Clusters(t.Context()); !errors.Is(err, errFault) {
			t.Errorf("a failing listing: got %v", err)
		}
		failing = storagetest.FailAt(s, n, storagetest.After, errFault)
		if _, err := prod(failing).Newest(t.Context(), 10, "", started.Add(2*time.Hour)); !errors.Is(err, errFault) {
			t.Errorf("a failing listing of the newest: got %v", err)
		}
	}
}

func TestManifests(t *testing.T) {
	s := mem.New()
	const n = 150 // more than are read at once
	for i := range n {
		addManifest(t, s, manifest("prod", started.Add(time.Duration(i)*time.Second), backup.Revision(i+1)))
	}
	create(t, s, "prod/snapshots/20300101T000000Z-r5-aaaaaa."+line1+".0.json", []byte("nonsense"))
	all := list(t, prod(s))
	i := 0
	for r := range prod(s).Manifests(t.Context(), all) {
		switch {
		case r.Key() != all[i].Key():
			t.Fatalf("place %d: got %v, want %v", i, r.Key(), all[i].Key())
		case i == n && !errors.Is(r.Err, backup.ErrCorrupt):
			t.Errorf("a bad manifest: got %v", r.Err)
		case i < n && (r.Err != nil || r.Manifest.ID != r.ID):
			t.Errorf("place %d: got %v", i, r.Err)
		}
		i++
	}
	if i != n+1 {
		t.Errorf("got %d snapshots", i)
	}
	for range prod(s).Manifests(t.Context(), all) {
		break // goleak tells whether it ended
	}
}

func TestManifest(t *testing.T) {
	s := mem.New()
	m := addManifest(t, s, manifest("prod", started, 5))
	if got, err := prod(s).Manifest(t.Context(), item(m)); err != nil || got.ID != m.ID {
		t.Errorf("got %v, %v", got, err)
	}
	missing := item(m)
	missing.ID = "20261120T101500Z-r5-zzzzzz"
	var none *repository.NotFoundError
	_, err := prod(s).Manifest(t.Context(), missing)
	if !errors.As(err, &none) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	// The manifest of another snapshot, or of another cluster, under this name.
	lab := item(m)
	lab.Cluster = "lab"
	for name, other := range map[string]repository.Item{"OtherID": missing, "OtherCluster": lab} {
		create(t, s, other.Key().String(), marshal(t, m))
		var defect *backup.DefectError
		_, err := in(s).Cluster(other.Cluster).Manifest(t.Context(), other)
		if !errors.As(err, &defect) || defect.Kind != backup.Swapped || !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// Listings go by the rest of the name.
	for name, other := range map[string]repository.Item{
		"OtherTimeline": {Cluster: "prod", ID: m.ID, Timeline: line2, Taken: backup.Verified},
		"Suspect":       {Cluster: "prod", ID: m.ID, Timeline: line1, Taken: backup.Suspect},
		"Index":         {Cluster: "prod", ID: m.ID, Timeline: line1, Taken: backup.Verified, Index: 7},
	} {
		create(t, s, other.Key().String(), marshal(t, m))
		var defect *backup.DefectError
		_, err := prod(s).Manifest(t.Context(), other)
		if !errors.As(err, &defect) || defect.Kind != backup.ManifestDamaged || !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestItem_Litter: data that no manifest names is litter once it is old in every
// respect.
func TestItem_Litter(t *testing.T) {
	s := mem.New()
	whole := addManifest(t, s, manifest("prod", started, 5))
	create(t, s, whole.DataKey(), []byte("data"))
	var want []string
	for i, cluster := range []string{"lab", "prod"} {
		key := fmt.Sprintf("%s/data/2020111%dT101500Z-abcdef.db.zst", cluster, 8+i)
		create(t, s, key, []byte("data"))
		want = append(want, key)
	}
	create(t, s, "prod/data/notes.txt", []byte("not ours"))
	litter := func(cluster string, now time.Time) (rest, old []string) {
		for _, i := range list(t, in(s).Cluster(cluster)) {
			if !i.Exists {
				rest = append(rest, i.Data[0].Key)
			}
			for _, o := range i.Litter(now) {
				old = append(old, o.Key)
			}
		}
		return rest, old
	}
	for n, cluster := range []string{"lab", "prod"} {
		// They were stored just now, though begun long ago.
		for later, isOld := range map[time.Duration]bool{time.Hour: false, 25 * time.Hour: true} {
			rest, old := litter(cluster, time.Now().Add(later))
			if !slices.Equal(rest, want[n:n+1]) || isOld != (len(old) == 1) {
				t.Errorf("%s, %v later: got %v, of which litter %v", cluster, later, rest, old)
			}
		}
	}
	begun := time.Date(2020, 11, 19, 10, 15, 0, 0, time.UTC)
	if rest, old := litter("prod", begun.Add(12*time.Hour)); !slices.Equal(rest, want[1:]) || len(old) != 0 {
		t.Errorf("of prod, half a day after it was begun: got %v, of which litter %v", rest, old)
	}
}

func TestDelete_Damaged(t *testing.T) {
	s := mem.New()
	create(t, s, backup.MarkerKey, nil)
	for name, m := range map[string]*backup.Manifest{
		"DamagedManifest": manifest("prod", started, 5), "NoManifest": manifest("prod", started, 6),
	} {
		create(t, s, m.DataKey(), []byte("data"))
		if name == "DamagedManifest" {
			create(t, s, m.Key(), []byte("nonsense"))
		}
		if err := prune.Delete(t.Context(), prod(s), m.ID, "op"); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if left := unmarked(t, s); !slices.Equal(left, []string{backup.MarkerKey}) {
		t.Errorf("left: %v", left)
	}
}

// TestDelete_Marks: they go last, so that a pin still holds the rest of a
// deletion that was interrupted.
func TestDelete_Marks(t *testing.T) {
	build := func() (storage.Store, *backup.Manifest) {
		s := mem.New()
		m := addSnapshot(t, s, manifest("prod", started, 5))
		i := find(t, prod(s), m.ID)
		if err := prod(s).Marks().Pin(t.Context(), i, "reason", ""); err != nil {
			t.Fatal(err)
		}
		defect := &backup.DefectError{Kind: backup.Changed, Err: backup.Corruptf("flipped")}
		if err := prod(s).Marks().Record(t.Context(), i, defect, ""); err != nil {
			t.Fatal(err)
		}
		return s, m
	}
	s, m := build()
	traced := storagetest.Trace(s)
	if err := prune.Delete(t.Context(), prod(traced), m.ID, "op"); err != nil || len(keys(t, s)) != 1 {
		t.Errorf("got %v, left %v", err, keys(t, s))
	}
	if mark, err := prod(s).Marks().Find(t.Context(), m.ID, backup.MarkRemoved); err != nil || mark.By != "op" ||
		mark.Manifest != m.Key() {
		t.Errorf("got mark %+v, %v", mark, err)
	}
	golden(t, "delete_marks.trace", traced.String())
	for n := 0; ; n++ {
		s, m := build()
		faulty := storagetest.FailAt(s, n, storagetest.Before, errFault)
		err := prune.Delete(t.Context(), prod(faulty), m.ID, "op")
		left := keys(t, s)
		if len(unmarked(t, s)) > 1 && !slices.Contains(left, pinKey(m)) ||
			!slices.Contains(left, m.Key()) && len(left) == len(unmarked(t, s)) {
			t.Errorf("operation %d: left %v", n, left)
		}
		if !faulty.Fired() {
			return
		}
		if !errors.Is(err, errFault) {
			t.Errorf("operation %d: got %v", n, err)
		}
		if err := prune.Delete(t.Context(), prod(s), m.ID, "op"); err != nil && !errors.Is(err, fs.ErrNotExist) ||
			len(unmarked(t, s)) != 0 {
			t.Errorf("operation %d: again: got %v, left %v", n, err, keys(t, s))
		}
	}
}
