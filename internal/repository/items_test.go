package repository_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// lines shows each item of a cluster in one line.
func lines(t *testing.T, s storage.Store, cluster string) []string {
	t.Helper()
	var out []string
	for _, i := range list(t, in(s).Cluster(cluster)) {
		out = append(out, line(i))
	}
	return out
}

func line(i repository.Item) string {
	text := fmt.Sprintf("%s %s %s %d bytes %s", i.Cluster, i.Name, i.ID, i.StoredBytes(), i.Encoding())
	for _, is := range []struct {
		so   bool
		word string
	}{
		{i.Exists, "manifest"}, {i.Taken == backup.Suspect, "suspect"},
		{i.Taken == backup.Unconfirmed, "unconfirmed"}, {clashes(i), "clash"}, {i.Pinned(), "pinned"},
		{i.Marked(backup.MarkDamaged), "damaged"}, {dataMissing(i), "missing"},
	} {
		if is.so {
			text += " " + is.word
		}
	}
	if i.Exists {
		text += " of " + i.Timeline
	}
	return text
}

// clashes reports whether another manifest names the same data.
func clashes(i repository.Item) bool {
	var defect *backup.DefectError
	return i.Exists && errors.As(i.Defect(), &defect) && defect.Kind == backup.ManifestDamaged &&
		strings.Contains(defect.Error(), "another manifest names the same data")
}

func dataMissing(i repository.Item) bool { return i.Exists && len(i.Data) == 0 }

// nearMisses are names that a person, another tool or another version might
// leave in a repository. None of them is ours.
var nearMisses = []string{
	"README", "prod/notes.txt",
	"prod/snapshots/notes.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.suspect.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.aaaaaaaaa.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.aaaaaaaaaaa.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.aaaaaaaaa1.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.t1-aaaaaa.0.json.bak",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.t1-aaaaaa/x.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaa1.t1-aaaaaa.0.json",
	"prod/snapshots/20200101T000000Z-r05-aaaaaa.t1-aaaaaa.0.json",
	"prod/snapshots/20200230T000000Z-r5-aaaaaa.t1-aaaaaa.0.json",
	"prod/snapshots/20200101T000000Z-r5-AAAAAA.t1-aaaaaa.0.json",
	"prod/snapshots/20200101T000000Z-aaaaaa.t1-aaaaaa.0.json",
	"prod/snapshots/20200101T000000Z-r5-aaaaaa.t1-aaaaaa.0.suspects.json",
	"prod/snapshots/x20200101T000000Z-r5-aaaaaa.t1-aaaaaa.0.json",
	"prod/data/20200101T000000Z-aaaaaa", "prod/data/20200101T000000Z-aaaaaa.db.gz",
	"prod/data/20200101T000000Z-aaaaaa.db.age.zst",
	"prod/data/20200101T000000Z-aaaaaa.db.zst.part", "prod/data/20200101T000000Z-r5-aaaaaa.db.zst",
	"prod/data/20200101T000000-aaaaaa.db",
	"prod/data/20200101T000000Z-aaaaaaa.db", "prod/data/sub/20200101T000000Z-aaaaaa.db",
	"prod/data/.20200101T000000Z-aaaaaa.db", "prod/data/notes.db",
	"prod/pins/20200101T000000Z-r5-aaaaaa.json",
	"prod/marks/notes.json", "prod/marks/notes.pin.json", "prod/marks/20200101T000000Z-aaaaaa.pin.json",
	"prod/marks/20200101T000000Z-r5-aaaaaa.json", "prod/marks/20200101T000000Z-r5-aaaaaa.pin",
	"prod/marks/20200101T000000Z-r5-aaaaaa.pin.suspect.json", "prod/marks/20200101T000000Z-r5-aaaaaa.Pin.json",
	"prod/archive/20200101T000000Z-aaaaaa.db", "prod/Data/20200101T000000Z-aaaaaa.db",
	"data/20200101T000000Z-aaaaaa.db", "a b/data/20200101T000000Z-aaaaaa.db",
}

func TestItems(t *testing.T) {
	s := mem.New()
	create(t, s, backup.MarkerKey, []byte("{}"))
	for _, key := range nearMisses {
		create(t, s, key, []byte("not ours"))
	}
	for key, size := range map[string]int{
		// Of two clusters, whose order in a listing is not that of their names.
		"prod/data/20261118T000000Z-aaaaaa.db.zst":                     7,
		"prod/snapshots/20261118T000000Z-r5-aaaaaa.t1-aaaaaa.0.json":   1,
		"prod-2/data/20261118T000000Z-aaaaaa.db":                       8,
		"prod-2/snapshots/20261118T000000Z-r5-aaaaaa.t2-bbbbbb.0.json": 1,
		"prod.3/data/20261118T000000Z-aaaaaa.db":                       8,
		"z/marks/20261118T000000Z-r5-aaaaaa.pin.json":                  1,
		// Several in one second: by revision, as numbers.
		"prod/data/20261118T010000Z-bbbbbb.db.zst.age":                         9,
		"prod/snapshots/20261118T010000Z-r100-bbbbbb.t1-aaaaaa.0.suspect.json": 1,
		"prod/marks/20261118T010000Z-r100-bbbbbb.damaged.json":                 1,
		"prod/data/20261118T010000Z-cccccc.db.age":                             1,
		"prod/snapshots/20261118T010000Z-r99-cccccc.t1-aaaaaa.0.json":          1,
		"prod/marks/20261118T010000Z-r99-cccccc.pin.json":                      1,
		"prod/marks/20261118T010000Z-r99-cccccc.damaged.json":                  1,
		// Only one side is there.
		"prod/data/20261118T020000Z-dddddd.db.zst":                           4,
		"prod/snapshots/20261118T030000Z-r5-eeeeee.t1-aaaaaa.0.json":         1,
		"prod/marks/20261118T040000Z-r5-ffffff.pin.json":                     1,
		"prod/data/20261118T050000Z-gggggg.db":                               3,
		"prod/marks/20261118T050000Z-r5-gggggg.pin.json":                     1,
		"prod/data/20261118T060000Z-hhhhhh.db":                               1,
		"prod/data/20261118T060000Z-hhhhhh.db.zst":                           2,
		"prod/snapshots/20261118T060000Z-r6-hhhhhh.t1-aaaaaa.0.json":         1,
		"prod/snapshots/20261118T070000Z-r6-iiiiii.t1-aaaaaa.0.json":         1,
		"prod/snapshots/20261118T070000Z-r7-iiiiii.t2-bbbbbb.0.json":         1,
		"prod/data/20261118T070000Z-iiiiii.db":                               2,
		"prod/snapshots/20261118T080000Z-r6-jjjjjj.t1-aaaaaa.0.json":         1,
		"prod/snapshots/20261118T080000Z-r6-jjjjjj.t1-aaaaaa.0.suspect.json": 1,
	} {
		create(t, s, key, make([]byte, size))
	}
	want := []string{
		"prod 20261118T000000Z-aaaaaa 20261118T000000Z-r5-aaaaaa 7 bytes zstd manifest of t1-aaaaaa",
		"prod 20261118T010000Z-cccccc 20261118T010000Z-r99-cccccc 1 bytes age manifest pinned damaged of t1-aaaaaa",
		"prod 20261118T010000Z-bbbbbb 20261118T010000Z-r100-bbbbbb 9 bytes zstd+age manifest suspect damaged of " +
			"t1-aaaaaa",
		"prod 20261118T020000Z-dddddd  4 bytes zstd",
		"prod 20261118T030000Z-eeeeee 20261118T030000Z-r5-eeeeee 0 bytes  manifest missing of t1-aaaaaa",
		"prod 20261118T040000Z-ffffff 20261118T040000Z-r5-ffffff 0 bytes  pinned",
		"prod 20261118T050000Z-gggggg 20261118T050000Z-r5-gggggg 3 bytes none pinned",
		"prod 20261118T060000Z-hhhhhh 20261118T060000Z-r6-hhhhhh 3 bytes none,zstd manifest of t1-aaaaaa",
		"prod 20261118T070000Z-iiiiii 20261118T070000Z-r6-iiiiii 2 bytes none manifest clash of t1-aaaaaa",
		"prod 20261118T070000Z-iiiiii 20261118T070000Z-r7-iiiiii 2 bytes none manifest clash of t2-bbbbbb",
		"prod 20261118T080000Z-jjjjjj 20261118T080000Z-r6-jjjjjj 0 bytes  manifest clash missing of t1-aaaaaa",
		"prod 20261118T080000Z-jjjjjj 20261118T080000Z-r6-jjjjjj 0 bytes  manifest suspect clash missing of t1-aaaaaa",
	}
	if diff := cmp.Diff(want, lines(t, s, "prod")); diff != "" {
		t.Errorf("prod (- want, + got):\n%s", diff)
	}
	want = []string{"prod-2 20261118T000000Z-aaaaaa 20261118T000000Z-r5-aaaaaa 8 bytes none manifest of t2-bbbbbb"}
	if diff := cmp.Diff(want, lines(t, s, "prod-2")); diff != "" {
		t.Errorf("prod-2 (- want, + got):\n%s", diff)
	}
	clusters, err := in(s).Clusters(t.Context())
	if err != nil || !slices.Equal(clusters, []string{"prod", "prod-2", "prod.3", "z"}) {
		t.Errorf("clusters: got %q, %v", clusters, err)
	}
	if got := lines(t, s, "pro"); len(got) != 0 {
		t.Errorf("the beginning of a cluster's name: got %q", got)
	}
	for range prod(s).Items(t.Context()) {
		break // goleak tells whether it ended
	}
}

// TestItems_Fails: whichever listing fails, and whenever, nothing of that second
// is yielded, and the error comes last.
func TestItems_Fails(t *testing.T) {
	s := mem.New()
	for i := range 5 {
		m := manifest("prod", started.Add(time.Duration(i)*time.Hour), 5)
		addManifest(t, s, m)
		create(t, s, m.DataKey(), []byte("data"))
	}
	all := lines(t, s, "prod")
	for moment, when := range moments {
		for n := 0; ; n++ {
			faulty := storagetest.FailAt(s, n, when, errFault)
			var got []string
			var last error
			for i, err := range prod(faulty).Items(t.Context()) {
				if last != nil {
					t.Fatalf("%s %d: it goes on after %v", moment, n, last)
				}
				if last = err; err == nil {
					got = append(got, line(i))
				}
			}
			if !faulty.Fired() {
				if n != 3 || last != nil {
					t.Errorf("%s: %d operations, error %v", moment, n, last)
				}
				break
			}
			if !errors.Is(last, errFault) || len(got) > len(all) || !slices.Equal(got, all[:len(got)]) {
				t.Errorf("%s %d: got %q, error %v", moment, n, got, last)
			}
		}
	}
}

// TestItems_Confirms: a backup that ends between the listings does not seem to
// have lost its data.
func TestItems_Confirms(t *testing.T) {
	s := mem.New()
	m := manifest("prod", started.AddDate(0, -1, 0), 5) // a spool that waited long
	addManifest(t, s, m)
	late := &storagetest.Hook{Store: s, Before: once(storage.OpList, "prod/snapshots/", func() {
		create(t, s, m.DataKey(), []byte("data"))
	})}
	got := lines(t, late, "prod")
	if len(got) != 1 || strings.Contains(got[0], "missing") {
		t.Errorf("got %q", got)
	}
}

// TestItems_Random compares it with a naive join of random repositories.
func TestItems_Random(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 14))
	for range rounds.Of(300) {
		s := mem.New()
		type about struct {
			manifests, pins []string
			data            int64
		}
		naive := map[string]*about{}
		for range rnd.IntN(40) {
			second := fmt.Sprintf("20261118T0000%02dZ", rnd.IntN(6))
			random := strings.Repeat(string(rune('a'+rnd.IntN(3))), 6)
			rev := rnd.IntN(3) * 49
			id, name := fmt.Sprintf("%s-r%d-%s", second, rev, random), second+"-"+random
			if naive[name] == nil {
				naive[name] = &about{}
			}
			n := naive[name]
			key := ""
			switch rnd.IntN(4) {
			case 0:
				key = "c/snapshots/" + id + []string{".t1-aaaaaa.0.json", ".t1-aaaaaa.0.suspect.json",
					".t2-bbbbbb.0.json"}[rnd.IntN(3)]
			case 1:
				key = "c/marks/" + id + ".pin.json"
			default:
				key = "c/data/" + name + []string{".db", ".db.zst"}[rnd.IntN(2)]
			}
			if s.Create(t.Context(), key, strings.NewReader("x")) != nil {
				continue // there already
			}
			switch {
			case strings.Contains(key, "/snapshots/"):
				n.manifests = append(n.manifests, strings.TrimPrefix(key, "c/snapshots/"))
			case strings.Contains(key, "/marks/"):
				n.pins = append(n.pins, id)
			default:
				n.data++
			}
		}
		got := map[string]*about{}
		last := ""
		for i, err := range in(s).Cluster("c").Items(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			if second := string(i.Name)[:16]; second < last {
				t.Fatalf("%s after %s", second, last)
			} else {
				last = second
			}
			g := got[string(i.Name)]
			if g == nil {
				g = &about{}
				got[string(i.Name)] = g
			}
			g.data = max(g.data, i.StoredBytes()) // a pin of nothing may be beside it
			if i.Exists {
				g.manifests = append(g.manifests, strings.TrimPrefix(i.Key().String(), "c/snapshots/"))
			}
			if i.Pinned() && !slices.Contains(g.pins, string(i.ID)) {
				g.pins = append(g.pins, string(i.ID))
			}
			if clashes(i) != (len(naive[string(i.Name)].manifests) > 1 && i.Exists) {
				t.Fatalf("%s: clash is %v", i.ID, clashes(i))
			}
		}
		for _, m := range []map[string]*about{naive, got} {
			maps.DeleteFunc(m, func(_ string, a *about) bool {
				return len(a.manifests)+len(a.pins) == 0 && a.data == 0
			})
			for _, a := range m {
				slices.Sort(a.manifests)
				slices.Sort(a.pins)
			}
		}
		if diff := cmp.Diff(naive, got, cmp.AllowUnexported(about{})); diff != "" {
			t.Fatalf("(- naive, + got):\n%s", diff)
		}
	}
}

// endless is a store of n snapshots that exist only as names.
type endless struct {
	storage.Store
	n int
}

func (e endless) List(_ context.Context, prefix, _ string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for i := range e.n {
			m := nth(i)
			key := map[string]string{"prod/snapshots/": m.Key(), "prod/data/": m.DataKey()}[prefix]
			if key == "" || !yield(storage.Object{Key: key, Size: 10}, nil) {
				return
			}
		}
	}
}

// nth makes the name of one of many snapshots, one each hour.
func nth(i int) *backup.Manifest {
	second := started.Add(time.Duration(i-200_000) * time.Hour).Format("20060102T150405Z")
	id := backup.SnapshotID(fmt.Sprintf("%s-r%d-aaaaaa", second, i+1))
	return &backup.Manifest{ID: id, Timeline: line1, Encoding: backup.Encoding{Compression: "zstd"},
		Capture: backup.Capture{
			Cluster: "prod",
		}}
}

// TestItems_ConstantMemory: the memory of a listing does not grow with the
// repository.
func TestItems_ConstantMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, n := heap(), uint64(0), 0
	for i, err := range prod(endless{n: 100_000}).Items(t.Context()) {
		if err != nil || dataMissing(i) || !i.Exists {
			t.Fatalf("got %+v, %v", i, err)
		}
		if n++; n%20_000 == 0 {
			most = max(most, heap())
		}
	}
	if n != 100_000 {
		t.Errorf("got %d snapshots", n)
	}
	if most > before+4<<20 {
		t.Errorf("%d bytes more are held", most-before)
	}
}

// BenchmarkItems_S3 lists 10,000 snapshots of one cluster over a real S3 server,
// and reports how much memory that took at most.
func BenchmarkItems_S3(b *testing.B) {
	const n = 10_000
	s, server := newS3(b)
	// Written behind the server's back, which is much quicker.
	for _, folder := range []string{"snapshots", "data"} {
		if err := os.MkdirAll(filepath.Join(server.Dir(), "prod", folder), 0o700); err != nil {
			b.Fatal(err)
		}
	}
	for i := range n {
		m := nth(i)
		for _, key := range []string{m.Key(), m.DataKey()} {
			if err := os.WriteFile(filepath.Join(server.Dir(), key), []byte("0123456789"), 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	most := uint64(0)
	var m runtime.MemStats
	for b.Loop() {
		count := 0
		for i, err := range prod(s).Items(b.Context()) {
			if err != nil || dataMissing(i) {
				b.Fatalf("got %+v, %v", i, err)
			}
			if count++; count%1000 == 0 {
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapInuse)
			}
		}
		if count != n {
			b.Fatalf("got %d snapshots", count)
		}
	}
	b.ReportMetric(float64(most)/(1<<20), "MiB-heap")
}
