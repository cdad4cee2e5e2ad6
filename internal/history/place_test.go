package history_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/history"
)

// small is the evidence of a database with one key.
func small(rev backup.Revision, key backup.SketchEntry) history.Evidence {
	s := backup.Sketch{Limit: backup.NoLimit}
	if key.Mod > 0 {
		s.Sample = []backup.SketchEntry{key}
		s.Recent = s.Sample
	}
	index := 10 * uint64(rev)
	return history.Evidence{
		ClusterID: 1, Revision: rev, Index: index, Term: 2, Sketch: s, Committed: index,
		HighWater: history.Mark{Revision: rev, Index: index, Term: 2},
		HashKV:    backup.HashKV{Hash: uint32(key.Digest), Revision: rev, CompactRevision: -1},
	}
}

// TestPlace: which timeline is chosen.
func TestPlace(t *testing.T) {
	x, y, none := backup.SketchEntry{Key: 1, Mod: 2, Digest: 3}, backup.SketchEntry{Key: 4, Mod: 2, Digest: 6},
		backup.SketchEntry{}
	head := func(timeline string, e history.Evidence) history.Head {
		return history.Head{Timeline: timeline, Evidence: e}
	}
	alone := small(20, x)
	alone.Committed = 0
	for name, c := range map[string]struct {
		heads  []history.Head
		next   history.Evidence
		want   string
		reason string
	}{
		"first":       {nil, small(20, x), "", "It is the first snapshot of the cluster."},
		"goes on":     {[]history.Head{head("a", small(10, x))}, small(20, x), "a", "agree"},
		"forked":      {[]history.Head{head("a", small(10, y))}, small(20, x), "", "did not have it so"},
		"two of them": {[]history.Head{head("b", small(10, x)), head("a", small(10, x))}, small(20, x), "b", "agree"},
		"the older one, with a shared key": {[]history.Head{head("b", small(10, none)), head("a", small(10, x))},
			small(20, x), "a", "agree"},
		"nothing shared": {[]history.Head{head("b", small(1, none)), head("a", small(1, none))}, small(20, x), "b",
			"no key that both know"},
		"alone, with a shared key": {[]history.Head{head("b", small(30, x)), head("a", small(1, none))}, alone, "b",
			"no quorum confirmed it"},
		"alone, nothing shared": {[]history.Head{head("b", small(30, none)), head("a", small(1, none))}, small(20, none), "a",
			"no key that both know"},
		"new, told of the newest": {[]history.Head{head("b", small(30, x)), head("a", small(10, y))}, small(20, x), "",
			"A quorum has committed up to raft index 200"},
	} {
		p := history.Place(c.heads, c.next)
		if p.Timeline != c.want || !strings.Contains(p.Verdict.Reason, c.reason) || len(p.Against) != len(c.heads) {
			t.Errorf("%s: got %+v, want %q, %q", name, p, c.want, c.reason)
		}
		for i, a := range p.Against {
			if want := history.Judge(c.heads[i].Evidence, c.next); a.Timeline != c.heads[i].Timeline || a.Verdict != want {
				t.Errorf("%s: verdict %+v about %s, want %+v", name, a, c.heads[i].Timeline, want)
			}
		}
	}
}

// TestPlaceLate: a late snapshot must fit to all of a timeline, and what a quorum
// confirmed long ago is no evidence.
func TestPlaceLate(t *testing.T) {
	x, y := backup.SketchEntry{Key: 1, Mod: 2, Digest: 3}, backup.SketchEntry{Key: 4, Mod: 12, Digest: 6}
	later := small(30, x)
	heads := []history.Head{{Timeline: "a", Evidence: small(10, x)}, {Timeline: "a", Evidence: later}}
	if p := history.Place(unordered(heads), small(20, x)); p.Timeline != "a" || p.Verdict.Relation != history.Continues {
		t.Errorf("between two: %+v", p)
	}
	if p := history.Place(heads, small(20, x)); p.Timeline != "" {
		t.Errorf("not late: %+v", p)
	}
	heads[1].Evidence = small(30, y)
	heads = append(heads, history.Head{Timeline: "b", Evidence: small(40, x)})
	if p := history.Place(unordered(heads), small(20, x)); p.Timeline != "b" || len(p.Against) != 3 {
		t.Errorf("fits to one of two: %+v", p)
	}
	if p := history.Place(unordered(heads[:2]), small(20, x)); p.Timeline != "" ||
		!strings.Contains(p.Verdict.Reason, "revision 30") {
		t.Errorf("fits to the first only: %+v", p)
	}
}

// sketchPair returns the sketches of n keys, and of the same keys when some more are
// written later.
func sketchPair(seed string, n, more int) (previous, next history.Evidence, keys []record) {
	var records []record
	for i := range n + more {
		main := int64(i + 2)
		records = append(records, record{main: main, key: fmt.Sprint(seed, i), value: "v", create: main, version: 1})
	}
	evidence := func(n int) history.Evidence {
		e := history.Evidence{ClusterID: 1, Revision: backup.Revision(n + 1), Sketch: sketchOf(records[:n])}
		e.HighWater.Revision = e.Revision
		e.HashKV = backup.HashKV{Revision: e.Revision, CompactRevision: -1}
		return e
	}
	return evidence(n), evidence(n + more), records[:n]
}

// without returns the evidence as if the given keys had another content.
func without(e history.Evidence, keys []record) history.Evidence {
	other := map[uint64]bool{}
	for _, s := range sketchOf(keys).Recent {
		other[s.Key] = true
	}
	for _, list := range []*[]backup.SketchEntry{&e.Sketch.Sample, &e.Sketch.Recent} {
		*list = slices.Clone(*list)
		for i := range *list {
			if other[(*list)[i].Key] {
				(*list)[i].Digest ^= 1
			}
		}
	}
	return e
}

// TestFormula measures how often a fork is missed, if the sketch is the only
// evidence, against the formula in docs/design.md.
func TestFormula(t *testing.T) {
	const sets, draws, sample = 5, 400, 256
	for _, c := range []struct{ previous, more, conflicts int }{
		{500, 300, 1}, {2000, 300, 1}, {2000, 300, 5}, {2000, 2000, 5}, {8000, 300, 20}, {20_000, 1000, 50},
	} {
		rng := rand.New(rand.NewPCG(7, uint64(c.previous)))
		missed := 0
		for set := range sets {
			previous, next, keys := sketchPair(fmt.Sprint("set-", set, "-"), c.previous, c.more)
			for range draws {
				var chosen []record // of the keys that no Recent holds
				for _, i := range rng.Perm(c.previous - sample)[:c.conflicts] {
					chosen = append(chosen, keys[i])
				}
				if history.Judge(previous, without(next, chosen)).Relation != history.Contradicts {
					missed++
				}
			}
		}
		p := math.Pow(1-min(1, sample/float64(c.previous+c.more)), float64(c.conflicts))
		got, tolerance := float64(missed)/(sets*draws), 0.01+4*math.Sqrt(p*(1-p)/(sets*draws))
		t.Logf("%+v: %.3f missed, formula %.3f", c, got, p)
		if math.Abs(got-p) > tolerance {
			t.Errorf("%+v: %.3f of the forks are missed, the formula says %.3f", c, got, p)
		}
	}
}

// TestFormula_Recent: a fork near the head is always found while fewer than 256 keys
// were written since.
func TestFormula_Recent(t *testing.T) {
	previous, next, keys := sketchPair("key-", 20_000, 200)
	n := len(keys)
	for back := 1; back <= 400; back++ {
		v := history.Judge(previous, without(next, keys[n-back:n-back+1]))
		sampled := slices.ContainsFunc(previous.Sketch.Sample, func(e backup.SketchEntry) bool {
			return e.Key == sketchOf(keys[n-back : n-back+1]).Recent[0].Key
		})
		if found := v.Relation == history.Contradicts; found != (back <= 256-200 || sampled) {
			t.Errorf("the key that was written %d before the end: found %v, in the sample %v", back, found, sampled)
		}
	}
}

// unordered are heads of which nobody knows whether they were taken before.
func unordered(heads []history.Head) []history.Head {
	out := slices.Clone(heads)
	for i := range out {
		out[i].Unordered = true
	}
	return out
}
