package repository_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func TestFind(t *testing.T) {
	s := mem.New()
	find := func(cluster, ref string) (*repository.Cluster, repository.Item, error) {
		return choice.Find(t.Context(), in(s), cluster, ref)
	}
	if _, _, err := find("", choice.Latest); !errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "holds none") {
		t.Errorf("empty repository: got %v", err)
	}
	first := addSnapshot(t, s, manifest("prod", started, 5))
	second := addSnapshot(t, s, manifest("prod", started.Add(24*time.Hour), 6))
	check := func(what string, want *backup.Manifest, cluster, ref string) {
		t.Helper()
		c, got, err := find(cluster, ref)
		if err != nil || got.Key() != want.ObjectKey() || c.Name() != want.Cluster || len(got.Data) != 1 {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, want.Key())
		}
		if got, err := choice.FindIn(t.Context(), c, ref); err != nil || got.Key() != want.ObjectKey() {
			t.Errorf("%s, in its cluster: got %v, %v, want %v", what, got, err, want.Key())
		}
	}
	check("latest", second, "", "latest")
	check("whole id", first, "prod", string(first.ID))
	check("prefix", first, "", "20261120")

	if _, _, err := find("", "2026112"); err == nil || !strings.Contains(err.Error(), "beginning of 2") {
		t.Errorf("ambiguous: got %v", err)
	}
	for _, ref := range []string{"2027", "prod", string(first.ID) + "x", string(first.ID) + "." + line1,
		"../snapshots"} {
		if _, _, err := find("", ref); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", ref, err)
		}
	}
	lab := addSnapshot(t, s, manifest("lab", started.Add(48*time.Hour), 7))
	create(t, s, "litter/data/20200101T000000Z-bbbbbb.db", []byte("litter"))
	// Nothing is guessed: those that can be meant are named, the newest first.
	refused := func(ref, text string, others ...*backup.Manifest) {
		t.Helper()
		var several *choice.Error
		var refusal *backup.RefusedError
		_, _, err := find("", ref)
		if !errors.As(err, &several) || !errors.As(err, &refusal) || !strings.Contains(err.Error(), text) ||
			!slices.Equal(idsOf(several.Others), ids(others...)) {
			t.Errorf("%s: got %v, %+v", ref, err, several)
		}
	}
	refused("latest", "2 clusters, each with a latest snapshot: name one with --cluster (lab, prod)", lab, second)
	refused("2026112", "beginning of 3", lab, second, first)
	check("of one cluster", second, "prod", "latest")
	check("of the other", lab, "lab", "latest")
	check("id tells the cluster", lab, "", string(lab.ID))
	check("prefix tells the cluster", lab, "", "20261122")
	for _, cluster := range []string{"none", "litter"} {
		_, _, err := find(cluster, "latest")
		if !errors.As(err, new(*repository.NotFoundError)) ||
			!strings.Contains(err.Error(), "none of cluster "+cluster) {
			t.Errorf("cluster without snapshots: got %v", err)
		}
	}
	if _, _, err := find("../prod", "latest"); err == nil || !strings.Contains(err.Error(), "cluster name") {
		t.Errorf("no cluster's name: got %v", err)
	}
}

// TestFind_Empty: an empty reference names no snapshot, although every id begins
// with it.
func TestFind_Empty(t *testing.T) {
	for _, n := range []int{0, 1} {
		s := mem.New()
		daily(t, s, n)
		_, _, one := choice.Find(t.Context(), in(s), "prod", "")
		_, _, all := choice.Find(t.Context(), in(s), "", "")
		_, found := choice.FindIn(t.Context(), prod(s), "")
		_, chosen := choice.Choose(t.Context(), prod(s), "", choice.Allow{Suspect: true}, started)
		for what, err := range map[string]error{"One": one, "All": all, "Find": found, "Choose": chosen} {
			if err == nil || !strings.Contains(err.Error(), "is empty") || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d snapshots, %s: got %v", n, what, err)
			}
		}
	}
}

// TestFind_Rivals: a cluster whose latest snapshot is not known is refused. It is
// not passed over in favour of a cluster with nothing but litter.
func TestFind_Rivals(t *testing.T) {
	s := mem.New()
	addSnapshot(t, s, manifestOf(line1, started, 5))
	addSnapshot(t, s, manifestOf(line2, started.Add(2*time.Hour), 3))
	for _, litter := range []string{"", "a-litter/data/20200101T000000Z-bbbbbb.db",
		"z-litter/data/20200101T000000Z-bbbbbb.db"} {
		if litter != "" {
			create(t, s, litter, []byte("litter"))
		}
		var several *choice.Error
		if _, i, err := choice.Find(t.Context(), in(s), "", choice.Latest); !errors.As(err, &several) {
			t.Errorf("beside %q: got %+v, %v", litter, i, err)
		}
	}
	addSnapshot(t, s, manifest("other", started, 5))
	if _, _, err := choice.Find(t.Context(), in(s), "", choice.Latest); err == nil ||
		!strings.Contains(err.Error(), "(other, prod)") {
		t.Errorf("two clusters: got %v", err)
	}
}

// TestFind_DeletedMeanwhile: a snapshot that was deleted between two listings is
// not found, although its data is still there.
func TestFind_DeletedMeanwhile(t *testing.T) {
	for _, ref := range []string{choice.Latest, "2026"} {
		s := mem.New()
		m := addSnapshot(t, s, manifest("prod", started, 5))
		hooked := &storagetest.Hook{Store: s, Before: once(storage.OpList, "prod/data/", func() {
			if err := s.Delete(t.Context(), m.Key()); err != nil {
				t.Fatal(err)
			}
		})}
		i, err := choice.Choose(t.Context(), prod(hooked), ref, choice.Allow{}, started)
		if !errors.As(err, new(*repository.NotFoundError)) {
			t.Errorf("%s: got %+v, %v", ref, i, err)
		}
	}
}

// TestFind_Fails: no failure of the store is taken for the absence of snapshots.
func TestFind_Fails(t *testing.T) {
	s := mem.New()
	daily(t, s, 2)
	for name, do := range map[string]func(storage.Store) error{
		"Latest": func(s storage.Store) error {
			_, _, err := choice.Find(t.Context(), in(s), "", choice.Latest)
			return err
		},
		"Prefix": func(s storage.Store) error {
			_, _, err := choice.Find(t.Context(), in(s), "", "20261119")
			return err
		},
		"Choose": func(s storage.Store) error {
			_, err := choice.Choose(t.Context(), prod(s), choice.Latest, choice.Allow{}, started)
			return err
		},
	} {
		for n := 0; ; n++ {
			faulty := storagetest.FailAt(s, n, storagetest.Before, errFault)
			err := do(faulty)
			if !faulty.Fired() {
				if err != nil || n < 4 {
					t.Errorf("%s: %d operations, %v", name, n, err)
				}
				break
			}
			if !errors.Is(err, errFault) {
				t.Errorf("%s: operation %d: got %v", name, n, err)
			}
		}
	}
}

func TestChoose(t *testing.T) {
	s := mem.New()
	now := started.AddDate(0, 0, 1)
	old := addSnapshot(t, s, manifestOf(line1, started.Add(-time.Hour), 100))
	good := addSnapshot(t, s, manifestOf(line2, started, 5))
	doubtful := suspectManifest(started.Add(time.Hour), 6)
	doubtful.Timeline = line2
	addSnapshot(t, s, doubtful)
	if _, err := acceptance.Accept(t.Context(), prod(s), line2, "restored", "op"); err != nil {
		t.Fatal(err)
	}
	choose := func(ref string, a choice.Allow) (repository.Item, error) {
		return choice.Choose(t.Context(), prod(s), ref, a, now)
	}
	for _, c := range []struct {
		ref  string
		a    choice.Allow
		want *backup.Manifest
	}{
		{string(old.ID), choice.Allow{}, old}, {string(good.ID), choice.Allow{}, good},
		{string(doubtful.ID), choice.Allow{Suspect: true}, doubtful},
		{choice.Latest, choice.Allow{Suspect: true}, doubtful},
	} {
		if i, err := choose(c.ref, c.a); err != nil || i.ID != c.want.ID {
			t.Errorf("%s: got %v, %v, want %v", c.ref, i.ID, err, c.want.ID)
		}
	}
	var several *choice.Error
	var refused *backup.RefusedError
	_, err := choose(string(doubtful.ID), choice.Allow{})
	if !errors.As(err, &several) || several.Suspect.ID != doubtful.ID || len(several.Others) != 0 ||
		!errors.As(err, &refused) || refused.Override != "--allow-suspect" ||
		!strings.Contains(err.Error(), "a member holds other data") {
		t.Errorf("suspect by its id: got %v", err)
	}
	// The furthest of the same history, not of the earlier one.
	_, err = choose(choice.Latest, choice.Allow{})
	if !errors.As(err, &several) || several.Suspect.ID != doubtful.ID || len(several.Others) != 1 ||
		several.Others[0].ID != good.ID {
		t.Errorf("suspect latest: got %v, %+v", err, several)
	}
	if err := s.Delete(t.Context(), good.DataKey()); err != nil {
		t.Fatal(err)
	}
	if _, err := choose(choice.Latest, choice.Allow{}); !errors.As(err, &several) || len(several.Others) != 0 {
		t.Errorf("suspect latest, none is good: got %v, %+v", err, several)
	}
	var defect *backup.DefectError
	if _, err := choose(string(good.ID), choice.Allow{Suspect: true}); !errors.Is(err, backup.ErrCorrupt) ||
		!errors.As(err, &defect) || defect.Kind != backup.DataMissing {
		t.Errorf("without data: got %v", err)
	}
}

// TestChoose_Clash: an id with two manifests, which only a copy can make, is found
// and is damaged.
func TestChoose_Clash(t *testing.T) {
	s := mem.New()
	m := addSnapshot(t, s, manifest("prod", started, 5))
	twin := *m
	twin.Timeline = line2
	create(t, s, twin.Key(), marshal(t, m))
	var defect *backup.DefectError
	_, err := choice.Choose(t.Context(), prod(s), string(m.ID), choice.Allow{Suspect: true}, started)
	if !errors.As(err, &defect) || defect.Kind != backup.ManifestDamaged || !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
