package snapshot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

var started = time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)

// manifest makes a valid manifest of a snapshot that was never taken.
func manifest(cluster string, at time.Time, rev backup.Revision) *backup.Manifest {
	blob := backup.Blob{Bytes: 10, SHA256: backup.Digest{byte(rev), 1}}
	return &backup.Manifest{
		Format: backup.ManifestFormat, ID: backup.NewDataName(at).WithRevision(rev), Cluster: cluster, Timeline: "t",
		StartedAt: at, FinishedAt: at, Members: []backup.Member{{ID: 1}}, Revision: rev, Plain: blob, Stored: blob,
	}
}

func addManifest(t *testing.T, s storage.Store, m *backup.Manifest) snapshot.Entry {
	t.Helper()
	create(t, s, m.Key(), []byte(marshal(t, m)))
	return entry(m)
}

func TestEntries_Order(t *testing.T) {
	s := mem.New()
	// Revisions of another length, so that text order would be wrong.
	oldest := addManifest(t, s, manifest("prod", started, 1000))
	small := addManifest(t, s, manifest("prod", started.Add(time.Second), 99))
	large := addManifest(t, s, manifest("prod", started.Add(time.Second), 100))
	newest := addManifest(t, s, manifest("prod", started.Add(time.Hour), 5))
	other := addManifest(t, s, manifest("lab", started, 7))
	for _, foreign := range []string{
		backup.MarkerKey, "README", "prod/notes.txt", "prod/snapshots/notes.json", "prod/snapshots/20261120T101500Z-r5-aaaaaa.json.bak",
		"prod/snapshots/20261120T101500Z-r5-aaaaaa/x.json", "prod/data/20261120T101500Z-aaaaaa.db", "prod2/other/20261120T101500Z-r5-aaaaaa.json",
	} {
		create(t, s, foreign, []byte("not ours"))
	}
	if got, want := entries(t, s), []snapshot.Entry{other, newest, large, small, oldest}; !slices.Equal(got, want) {
		t.Errorf("all: got %v, want %v", got, want)
	}
	got, err := snapshot.Entries(t.Context(), s, "prod")
	if want := []snapshot.Entry{newest, large, small, oldest}; err != nil || !slices.Equal(got, want) {
		t.Errorf("prod: got %v, %v, want %v", got, err, want)
	}
	if got, err := snapshot.Entries(t.Context(), s, "pro"); err != nil || len(got) != 0 {
		t.Errorf("the beginning of a cluster's name: got %v, %v", got, err)
	}
	if _, err := snapshot.Entries(t.Context(), storagetest.FailAt(s, 0, storagetest.After, errFault), ""); !errors.Is(err, errFault) {
		t.Errorf("a failing listing: got %v", err)
	}
}

func TestList(t *testing.T) {
	s := mem.New()
	const n = 150 // more than are read at once
	for i := range n {
		addManifest(t, s, manifest("prod", started.Add(time.Duration(i)*time.Second), backup.Revision(i+1)))
	}
	bad, _ := backup.ParseSnapshotID("20200101T000000Z-r5-aaaaaa")
	create(t, s, snapshot.Entry{Cluster: "prod", ID: bad}.Key(), []byte("nonsense"))
	all := entries(t, s)
	i := 0
	for l := range snapshot.List(t.Context(), s, all) {
		switch {
		case l.Entry != all[i]:
			t.Fatalf("place %d: got %v, want %v", i, l.Entry, all[i])
		case i == n && !errors.Is(l.Err, backup.ErrCorrupt):
			t.Errorf("a bad manifest: got %v", l.Err)
		case i < n && (l.Err != nil || l.Manifest.ID != l.ID):
			t.Errorf("place %d: got %v", i, l.Err)
		}
		i++
	}
	if i != n+1 {
		t.Errorf("got %d snapshots", i)
	}
	for range snapshot.List(t.Context(), s, all) {
		break // goleak tells whether it ended
	}
}

func TestOpen(t *testing.T) {
	s := mem.New()
	m := manifest("prod", started, 5)
	e := addManifest(t, s, m)
	if got, err := snapshot.Open(t.Context(), s, e); err != nil || got.ID != m.ID {
		t.Errorf("got %v, %v", got, err)
	}
	missing := snapshot.Entry{Cluster: "prod", ID: "20261120T101500Z-r5-zzzzzz"}
	var none *snapshot.NotFoundError
	if _, err := snapshot.Open(t.Context(), s, missing); !errors.As(err, &none) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
	// The manifest of another snapshot, or of another cluster, under this name.
	for name, other := range map[string]snapshot.Entry{"OtherID": missing, "OtherCluster": {Cluster: "lab", ID: m.ID}} {
		create(t, s, other.Key(), []byte(marshal(t, m)))
		var defect *snapshot.DefectError
		if _, err := snapshot.Open(t.Context(), s, other); !errors.As(err, &defect) || defect.Kind != snapshot.Swapped || !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestResolve(t *testing.T) {
	s := mem.New()
	if _, err := snapshot.Resolve(t.Context(), s, "", snapshot.Latest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty repository: got %v", err)
	}
	first := addManifest(t, s, manifest("prod", started, 5))
	second := addManifest(t, s, manifest("prod", started.Add(24*time.Hour), 6))
	resolve := func(cluster, ref string) (snapshot.Entry, error) {
		return snapshot.Resolve(t.Context(), s, cluster, ref)
	}
	check := func(what string, want snapshot.Entry, cluster, ref string) {
		t.Helper()
		if got, err := resolve(cluster, ref); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", what, got, err, want)
		}
	}
	check("nothing said", second, "", "")
	check("latest", second, "", "latest")
	check("whole id", first, "prod", string(first.ID))
	check("prefix", first, "", "20261120")

	if _, err := resolve("", "2026112"); err == nil || !strings.Contains(err.Error(), "beginning of 2") {
		t.Errorf("ambiguous: got %v", err)
	}
	for _, ref := range []string{"2027", "prod", string(first.ID) + "x"} {
		if _, err := resolve("", ref); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", ref, err)
		}
	}
	lab := addManifest(t, s, manifest("lab", started.Add(48*time.Hour), 7))
	if _, err := resolve("", "latest"); err == nil || !strings.Contains(err.Error(), "lab, prod") {
		t.Errorf("two clusters: got %v", err)
	}
	check("of one cluster", second, "prod", "latest")
	check("of the other", lab, "lab", "")
	check("id tells the cluster", lab, "", string(lab.ID))
	if _, err := resolve("none", "latest"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none") {
		t.Errorf("unknown cluster: got %v", err)
	}
}

func TestOrphans(t *testing.T) {
	s := mem.New()
	whole := manifest("prod", started, 5)
	addManifest(t, s, whole)
	create(t, s, whole.DataKey(), []byte("data"))
	var want []string
	for i, cluster := range []string{"lab", "prod"} {
		key := fmt.Sprintf("%s/data/2026111%dT101500Z-abcdef.db.zst", cluster, 8+i)
		create(t, s, key, []byte("data"))
		want = append(want, key)
	}
	create(t, s, "prod/data/notes.txt", []byte("not ours"))
	// They were stored just now, though begun long ago.
	for later, fresh := range map[time.Duration]bool{time.Hour: true, 25 * time.Hour: false} {
		got, err := snapshot.Orphans(t.Context(), s, "", time.Now().Add(later))
		if err != nil || len(got) != 2 || got[0].Key != want[0] || got[1].Key != want[1] || got[0].Fresh() != fresh || got[1].Fresh() != fresh {
			t.Errorf("%v later: got %v, %v", later, got, err)
		}
	}
	got, err := snapshot.Orphans(t.Context(), s, "prod", started.Add(-12*time.Hour))
	if err != nil || len(got) != 1 || got[0].Key != want[1] || !got[0].Fresh() {
		t.Errorf("of prod, a day earlier: got %v, %v", got, err)
	}
}

func TestDelete_Damaged(t *testing.T) {
	s := mem.New()
	create(t, s, backup.MarkerKey, nil)
	for name, m := range map[string]*backup.Manifest{"DamagedManifest": manifest("prod", started, 5), "NoManifest": manifest("prod", started, 6)} {
		create(t, s, m.DataKey(), []byte("data"))
		if name == "DamagedManifest" {
			create(t, s, m.Key(), []byte("nonsense"))
		}
		if err := snapshot.Delete(t.Context(), s, entry(m)); err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	wantKeys(t, s)
}
