package repository_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// crowd is a store of very many small objects, and counts what is listed.
type crowd struct {
	*mem.Store
	keys         []string // sorted
	lists, shown int
}

// newCrowd holds the keys, and many other objects.
func newCrowd(keys []string, others int) *crowd {
	c := &crowd{Store: mem.New(), keys: slices.Clone(keys)}
	for i := range others / 4 {
		c.keys = append(c.keys, fmt.Sprintf("another/objects/%06d", i), fmt.Sprintf("prod/archive/%06d", i),
			fmt.Sprintf("prod/data.old/%06d", i), fmt.Sprintf("zoo/objects/%06d", i))
	}
	for i := range 100 {
		c.keys = append(c.keys, fmt.Sprintf("prod/data/x%06d", i), fmt.Sprintf("prod/snapshots/x%06d", i))
	}
	slices.Sort(c.keys)
	return c
}

func (c *crowd) List(_ context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		c.lists++
		from := max(prefix, after)
		n := sort.SearchStrings(c.keys, from)
		if n < len(c.keys) && c.keys[n] == after {
			n++
		}
		for ; n < len(c.keys) && strings.HasPrefix(c.keys[n], prefix); n++ {
			c.shown++
			if !yield(storage.Object{Key: c.keys[n], Size: 10}, nil) {
				return
			}
		}
	}
}

// objectsOf names the manifest and the data of each snapshot.
func objectsOf(all []backup.SnapshotID) []string {
	var out []string
	for _, id := range all {
		m := &backup.Manifest{ID: id, Timeline: line1, Capture: backup.Capture{Cluster: "prod"}}
		out = append(out, m.Key(), m.DataKey())
	}
	return out
}

// crowds are ten thousand snapshots each, in different densities.
func crowds(now time.Time) map[string][]backup.SnapshotID {
	const n = 10_000
	make := func(at func(i int) time.Time) []backup.SnapshotID {
		var out []backup.SnapshotID
		for i := range n {
			random := []byte("aaaaaa")
			for k, rest := 5, i; rest > 0; k, rest = k-1, rest/26 {
				random[k] += byte(rest % 26)
			}
			out = append(out, backup.SnapshotID(fmt.Sprintf("%s-r%d-%s", backup.TimeOf(at(i)), n-i, random)))
		}
		return out
	}
	every := func(d time.Duration) func(int) time.Time {
		return func(i int) time.Time { return now.Add(-time.Duration(i) * d) }
	}
	return map[string][]backup.SnapshotID{
		"Minute": make(every(time.Minute)), "Hour": make(every(time.Hour)), "Day": make(every(24 * time.Hour)),
		"GapOfAYear": make(func(i int) time.Time {
			if i < 7 {
				return now.Add(-time.Duration(i) * time.Hour)
			}
			return now.AddDate(-1, 0, 0).Add(-time.Duration(i) * time.Hour)
		}),
		"NothingForAYear": make(func(i int) time.Time {
			return now.AddDate(-1, 0, 0).Add(-time.Duration(i) * time.Hour)
		}),
		"ManyInOneSecond": make(func(i int) time.Time { return now.Add(-time.Duration(i/7) * 10 * time.Minute) }),
		"Future": make(func(i int) time.Time {
			if i < 30 {
				return now.Add(time.Duration(i+1) * 24 * time.Hour)
			}
			return now.Add(-time.Duration(i) * time.Hour)
		}),
		"FarFuture": make(func(i int) time.Time {
			if i < 3 {
				return now.AddDate(7000, 0, i)
			}
			return now.Add(-time.Duration(i) * time.Hour)
		}),
	}
}

// TestNewest_Cost: the newest twenty of ten thousand snapshots cost a few pages,
// beside a hundred thousand other objects.
func TestNewest_Cost(t *testing.T) {
	now := started
	for name, all := range crowds(now) {
		t.Run(name, func(t *testing.T) {
			slices.SortFunc(all, func(a, b backup.SnapshotID) int { return backup.CompareIDs(b, a) })
			c := newCrowd(objectsOf(all), 100_000)
			for _, page := range []struct {
				before backup.SnapshotID
				want   []backup.SnapshotID
			}{{"", all[:20]}, {all[19], all[20:40]}, {all[29], all[30:50]}, {all[5000], all[5001:5021]}} {
				c.lists, c.shown = 0, 0
				got, err := prod(c).Newest(t.Context(), 20, page.before, now)
				if err != nil || !slices.Equal(idsOf(got), page.want) {
					t.Fatalf("before %q: got %v, %v, want %v", page.before, idsOf(got), err, page.want)
				}
				if c.lists > 12 || c.shown > 4000 {
					t.Errorf("before %q: %d listings showed %d objects", page.before, c.lists, c.shown)
				}
				for _, i := range got {
					if len(i.Data) != 1 {
						t.Fatalf("%s: got %+v", i.ID, i)
					}
				}
			}
			if got, err := prod(c).Newest(t.Context(), 20, all[len(all)-3], now); err != nil ||
				!slices.Equal(idsOf(got), all[len(all)-2:]) {
				t.Errorf("the last page: got %v, %v", idsOf(got), err)
			}
			if got, err := prod(c).Newest(t.Context(), 20, all[len(all)-1], now); err != nil || len(got) != 0 {
				t.Errorf("after the last page: got %v, %v", idsOf(got), err)
			}
			if got, err := prod(c).Newest(t.Context(), 0, "", now); err != nil || len(got) != 0 {
				t.Errorf("none: got %v, %v", idsOf(got), err)
			}
		})
	}
}

// TestNewest_Pages: page by page everything is shown, once.
func TestNewest_Pages(t *testing.T) {
	now := started
	for name, all := range crowds(now) {
		t.Run(name, func(t *testing.T) {
			slices.SortFunc(all, func(a, b backup.SnapshotID) int { return backup.CompareIDs(b, a) })
			all = slices.Concat(all[:200], all[9000:9050])
			s := newCrowd(append(objectsOf(all), "prod/data/20200101T000000Z-bbbbbb.db",
				"prod/marks/20200101T000000Z-r5-cccccc.pin.json"), 0)
			for _, n := range []int{1, 3, 7, 100, 1000} {
				var got []backup.SnapshotID
				for before := backup.SnapshotID(""); ; before = got[len(got)-1] {
					page, err := prod(s).Newest(t.Context(), n, before, now)
					if err != nil || len(page) > n || len(got) > len(all) {
						t.Fatalf("got %d, %v", len(page), err)
					}
					if len(page) == 0 {
						break
					}
					got = append(got, idsOf(page)...)
				}
				if !slices.Equal(got, all) {
					t.Errorf("pages of %d: got %d snapshots, want %d", n, len(got), len(all))
				}
			}
		})
	}
}

// TestClusters_Cost: clusters are found by skipping from one to the next.
func TestClusters_Cost(t *testing.T) {
	var want, all []string
	for i := range 20 {
		name := fmt.Sprintf("c%02d", i)
		want = append(want, name)
		for n := range 500 {
			all = append(all, fmt.Sprintf("%s/snapshots/20200101T000000Z-r%d-aaaaaa.%s.0.json", name, n, line1))
		}
	}
	// Names of which one is the beginning of the other.
	for _, name := range []string{"a", "a-b", "a.b", "a0", "aa"} {
		want = append(want, name)
		all = append(all, name+"/data/20200101T000000Z-aaaaaa.db", name+"/zzz")
	}
	all = append(all, backup.MarkerKey, "b a/data/20200101T000000Z-aaaaaa.db", "zz")
	slices.Sort(want)
	c := newCrowd(all, 100_000)
	// prod and two others have no object of ours: three listings show that of
	// each.
	got, err := in(c).Clusters(t.Context())
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if c.lists > 3*len(want)+30 || c.shown > 30_000 {
		t.Errorf("%d listings showed %d objects", c.lists, c.shown)
	}
	c = newCrowd(all, 100_000)
	c.keys = slices.DeleteFunc(c.keys, func(key string) bool { return strings.HasPrefix(key, "prod/") })
	c.lists, c.shown = 0, 0
	if _, err := in(c).Clusters(t.Context()); err != nil || c.shown > 300 {
		t.Errorf("%d listings showed %d objects, %v", c.lists, c.shown, err)
	}
}
