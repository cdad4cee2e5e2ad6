package history_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// TestOneHistoryIsOneTimeline: no snapshot of one cluster begins a new timeline. The
// events of a cluster, the member that is asked and the time of storing play no part.
// Clocks cannot matter: no time is part of the evidence.
func TestOneHistoryIsOneTimeline(t *testing.T) {
	seen := map[history.Relation]int{}
	for seed := range uint64(rounds.Of(300)) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s, stored, head := newServer(rng), []taken(nil), taken{}
		keys := []int{3, 40, 1000}[seed%3]
		for step := range 10 {
			s.run(rng.IntN(25), keys)
			n, healthy := s.takeAny()
			for i, old := range stored {
				if v := history.Judge(old.Evidence, n.after(old)); v.Relation == history.Contradicts {
					t.Fatalf("seed %d: snapshot %d, against %d: %s", seed, step, i, v.Reason)
				} else if healthy && v.Relation != history.Continues {
					t.Fatalf("seed %d: snapshot %d, against %d: %s: %s", seed, step, i, v.Relation, v.Reason)
				}
			}
			if step > 0 {
				p := history.Place([]history.Head{{Timeline: "a", Evidence: head.Evidence}}, n.after(head))
				if p.Timeline != "a" {
					t.Fatalf("seed %d: snapshot %d begins a timeline: %+v", seed, step, p)
				}
				seen[p.Verdict.Relation]++
			}
			stored = append(stored, n)
			if n.Revision >= head.Revision {
				head = n
			}
		}
		late := rng.IntN(len(stored))
		var heads []history.Head
		for i, old := range stored {
			if i != late {
				heads = append(heads, history.Head{Timeline: "a", Evidence: old.Evidence})
			}
		}
		if p := history.Place(unordered(heads), stored[late].Evidence); p.Timeline != "a" {
			t.Fatalf("seed %d: snapshot %d, stored late, begins a timeline: %+v", seed, late, p)
		}
	}
	if seen[history.Continues] == 0 || seen[history.Unclear] == 0 {
		t.Errorf("verdicts %v: the histories are not random enough", seen)
	}
}

// takeAny takes a snapshot of any member, and reports whether a quorum confirmed how far
// the cluster has come.
func (s *server) takeAny() (n taken, healthy bool) {
	tip := s.index()
	back := func(from uint64, most int64) uint64 {
		return from - uint64(s.rng.Int64N(min(most, int64(from-s.from))))
	}
	switch s.rng.IntN(4) {
	case 0: // of a member that lags, or a learner, which is alone
		index := back(tip, 60)
		return s.take(back(index, 3), index, false), false
	case 1: // of a member that lags, while a quorum answers
		return s.take(back(tip, 60), tip, true), true
	}
	return s.take(back(tip, 3), tip, true), true
}

// forks are all ways to another history that has the same cluster id.
var forks = map[string]func(s *server, at uint64) *server{
	"wiped":      func(s *server, _ uint64) *server { return newServer(s.rng) },
	"restored":   func(s *server, at uint64) *server { return s.restore(at, 0) },
	"bumped":     func(s *server, at uint64) *server { return s.restore(at, 1+s.rng.Int64N(100)) },
	"rolledBack": func(s *server, at uint64) *server { f := s.fork(at); f.elect(); return f },
	"forced":     func(s *server, at uint64) *server { f := s.fork(at); f.elect(); f.silent(); return f },
	"imported": func(s *server, _ uint64) *server {
		f := newServer(s.rng)
		for key, r := range s.live { // in another order
			f.write(map[string]string{key: r.value})
		}
		return f
	},
}

// TestAnotherHistoryIsAnotherTimeline: a cluster that went another way begins a new
// timeline if live keys differ, although its cluster id is the same. In every third
// history the sketch is the only evidence.
func TestAnotherHistoryIsAnotherTimeline(t *testing.T) {
	for name, fork := range forks {
		t.Run(name, func(t *testing.T) {
			found, alone, agree := 0, 0, 0
			want := rounds.Of(75) // in six forks
			for seed := uint64(0); found < want || alone < want/3; seed++ {
				if seed > 100*uint64(want) {
					t.Fatalf("only %d of %d histories differ in their live keys", found, seed)
				}
				rng := rand.New(rand.NewPCG(seed, 2))
				s, keys := newServer(rng), 5+rng.IntN(200)
				s.run(20+rng.IntN(200), keys)
				at := s.index() - rng.Uint64N(min(s.index(), 60))
				other := fork(s, max(at, 1))
				previous := s.take(s.index(), s.index(), true)
				other.run(rng.IntN(300), keys)
				next, _ := other.takeAny()
				e := next.after(previous)
				differ := conflict(previous, next)
				sketchAlone := seed%3 == 0
				if sketchAlone {
					previous.Evidence, e = onlySketch(previous.Evidence), onlySketch(e)
				}
				p := history.Place([]history.Head{{Timeline: "a", Evidence: previous.Evidence}}, e)
				switch {
				case differ && (p.Timeline != "" || p.Verdict.Relation != history.Contradicts):
					t.Fatalf("seed %d: other live keys, but %s: %s", seed, p.Verdict.Relation, p.Verdict.Reason)
				case differ && sketchAlone && !strings.Contains(p.Verdict.Reason, "contradicts the one at revision"):
					t.Fatalf("seed %d: found by another reason: %s", seed, p.Verdict.Reason)
				case !differ && sketchAlone && p.Timeline == "":
					t.Fatalf("seed %d: no live key differs, but %s: %s", seed, p.Verdict.Relation, p.Verdict.Reason)
				case differ && sketchAlone:
					alone++
				case !differ:
					agree++
				}
				if differ {
					found++
				}
			}
			t.Logf("%d histories differ, %d of them by the sketch alone; %d do not differ", found, alone, agree)
		})
	}
}

// onlySketch removes all other evidence: the places in the log are possible for any
// two snapshots.
func onlySketch(e history.Evidence) history.Evidence {
	index := 1000 + 3*uint64(e.Revision)
	return history.Evidence{
		ClusterID: e.ClusterID, Revision: e.Revision, Index: index, Term: 5, Sketch: e.Sketch,
		HighWater: history.Mark{Revision: e.Revision, Index: index, Term: 5},
		HashKV:    backup.HashKV{Hash: uint32(e.Revision), Revision: e.Revision, CompactRevision: -1},
	}
}

// TestPlace_Interleaved: two clusters that use one name in turn keep their timelines.
func TestPlace_Interleaved(t *testing.T) {
	found := 0
	for seed := range uint64(rounds.Of(50)) {
		rng := rand.New(rand.NewPCG(seed, 3))
		a := newServer(rng)
		a.run(100, 50)
		b := a.restore(a.index()-rng.Uint64N(50), 0)
		a.run(50, 50)
		b.run(100, 50)
		clusters := map[string]*server{"a": a, "b": b}
		last := map[string]taken{}
		for step := range 12 {
			name, other := "a", "b"
			if step%2 == 1 {
				name, other = other, name
			}
			s := clusters[name]
			s.run(rng.IntN(20), 50)
			n := s.take(s.index(), s.index(), true)
			if step > 1 {
				previous := last[other] // the newest timeline
				p := history.Place([]history.Head{
					{Timeline: other, Evidence: previous.Evidence}, {Timeline: name, Evidence: last[name].Evidence},
				}, n.after(previous))
				if differ := conflict(previous, n); differ && p.Timeline != name {
					t.Fatalf("seed %d: snapshot %d of %s: %+v", seed, step, name, p)
				} else if differ {
					found++
				}
			}
			last[name] = n
		}
	}
	if found == 0 {
		t.Error("the live keys of the clusters never differ")
	}
}

// TestJudge: each rule alone.
func TestJudge(t *testing.T) {
	key := func(hash uint64, mod backup.Revision) backup.SketchEntry {
		return backup.SketchEntry{Key: hash, Mod: mod, Digest: uint64(mod)}
	}
	made := func(hash uint64, mod, create backup.Revision) backup.SketchEntry {
		return backup.SketchEntry{Key: hash, Mod: mod, Create: create, Digest: uint64(mod)}
	}
	list := func(e ...backup.SketchEntry) []backup.SketchEntry { return e }
	whole := backup.Sketch{Limit: backup.NoLimit, Sample: list(made(1, 50, 40)), Recent: list(made(1, 50, 40))}
	all := backup.Sketch{Limit: backup.NoLimit, Sample: list(key(1, 50)), Recent: list(key(1, 50))}
	part := backup.Sketch{Limit: 10, Sample: list(key(1, 50)), From: 90, Recent: list(key(7, 95))}
	at := func(rev backup.Revision, index, term uint64, s backup.Sketch) history.Evidence {
		return history.Evidence{
			ClusterID: 1, Revision: rev, Index: index, Term: term, Sketch: s, Committed: index,
			HighWater: history.Mark{Revision: rev, Index: index, Term: term},
			HashKV:    backup.HashKV{Hash: uint32(rev), Revision: rev, CompactRevision: 5},
		}
	}
	with := func(e history.Evidence, change func(e *history.Evidence)) history.Evidence { change(&e); return e }
	before := at(100, 1000, 5, all)
	older := func(e *history.Evidence) { e.Committed = 0 }
	for name, c := range map[string]struct {
		previous, next history.Evidence
		want           history.Relation
		shared         int
		reason         string
	}{
		"goes on":   {before, at(110, 1020, 5, all), history.Continues, 1, "agree"},
		"unchanged": {before, before, history.Continues, 2, "agree"},
		"cluster id": {before, with(before, func(e *history.Evidence) { e.ClusterID = 2 }), history.Contradicts, 0,
			"The cluster id was 1 and is 2 now."},
		"hash": {before, with(at(110, 1020, 5, all), func(e *history.Evidence) {
			e.HashBefore = &backup.HashKV{Hash: 1, Revision: 100, CompactRevision: 5}
		}), history.Contradicts, 0, "was 100 and is 1"},
		"hash of another compaction": {before, with(at(110, 1020, 5, all), func(e *history.Evidence) {
			e.HashBefore = &backup.HashKV{Hash: 1, Revision: 100, CompactRevision: 6}
		}), history.Continues, 1, "agree"},
		"equal hash": {before, with(at(110, 1020, 5, all), func(e *history.Evidence) { e.HashBefore = &before.HashKV }),
			history.Continues, 2, "agree"},
		"hash at the same revision": {before, with(before, func(e *history.Evidence) { e.HashKV.Hash = 3 }),
			history.Contradicts, 0, "was 100 and is 3"},
		"no key at all": {at(1, 10, 2, backup.Sketch{Limit: backup.NoLimit}),
			at(1, 12, 2, backup.Sketch{Limit: backup.NoLimit}), history.Continues, 0, "no key that both know"},
		"key of the sample": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 10, Sample: list(key(2, 60)),
			From: 110, Recent: list(key(20, 109))}), history.Contradicts, 0, "(hash 2) that was last written at revision 60"},
		"key outside of the sample": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 20,
			Sample: list(key(10, 60)), From: 110, Recent: list(key(20, 109))}), history.Continues, 0, "no key that both know"},
		"overwritten key that was not there": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 10,
			Sample: list(made(2, 105, 60)), From: 110, Recent: list(key(20, 109))}), history.Contradicts, 0,
			"(hash 2) was created at revision 60"},
		"overwritten key that was created otherwise": {at(100, 1000, 5, whole), at(110, 1020, 5, backup.Sketch{
			Limit: backup.NoLimit, Sample: list(made(1, 105, 41)), Recent: list(made(1, 105, 41))}), history.Contradicts, 0,
			"(hash 1) was created at revision 41"},
		"overwritten key": {at(100, 1000, 5, whole), at(110, 1020, 5, backup.Sketch{
			Limit: backup.NoLimit, Sample: list(made(1, 105, 40)), Recent: list(made(1, 105, 40))}), history.Continues, 1,
			"agree in all"},
		"overwritten key outside of the sample": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 20,
			Sample: list(made(10, 105, 60)), From: 110, Recent: list(key(20, 109))}), history.Continues, 0,
			"no key that both know"},
		"overwritten key of the recent": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 1, From: 80,
			Recent: list(made(20, 105, 91))}), history.Contradicts, 0, "(hash 14) was created at revision 91"},
		"key that was made again": {at(100, 1000, 5, whole), at(110, 1020, 5, backup.Sketch{
			Limit: backup.NoLimit, Sample: list(made(1, 108, 105)), Recent: list(made(1, 108, 105))}), history.Continues, 0,
			"no key that both know"},
		"key of the recent": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 1, From: 80,
			Recent: list(key(20, 90))}), history.Contradicts, 0, "last written at revision 90"},
		"key before the recent": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 1, From: 80,
			Recent: list(key(20, 89))}), history.Continues, 0, "no key that both know"},
		"key written since": {at(100, 1000, 5, part), at(110, 1020, 5, backup.Sketch{Limit: 10,
			Sample: list(key(2, 101))}), history.Continues, 0, "no key that both know"},
		"no key left at the same revision": {with(before, func(e *history.Evidence) { e.HashKV.Hash = 0 }),
			with(at(100, 1000, 5, backup.Sketch{Limit: backup.NoLimit}),
				func(e *history.Evidence) { e.HashKV.CompactRevision = 7 }), history.Contradicts, 0, "at revision 100"},
		"no sketch": {with(before, func(e *history.Evidence) { e.Sketch = backup.Sketch{} }), at(110, 1020, 5, all),
			history.Continues, 0, "no key that both know"},
		"older member": {before, with(at(90, 900, 5, all), func(e *history.Evidence) {
			e.HighWater, e.Committed = before.HighWater, 1000
		}), history.Continues, 1, "agree"},
		"older member of another history": {before, with(at(90, 900, 5, part), func(e *history.Evidence) {
			e.HighWater, e.Committed, e.Sketch = before.HighWater, 1000, backup.Sketch{Limit: backup.NoLimit}
		}), history.Contradicts, 0, "contradicts the one at revision 90: it has a key (hash 1)"},
		"index twice": {before, at(101, 1000, 5, all), history.Contradicts, 1,
			"cannot be revision 100 and revision 101"},
		"revision falls":    {before, at(99, 1001, 5, all), history.Contradicts, 1, "is the earlier revision 99"},
		"too fast":          {before, at(121, 1020, 5, all), history.Contradicts, 1, "cannot have grown from 100 to 121"},
		"as fast as can be": {before, at(120, 1020, 5, all), history.Continues, 1, "agree"},
		"no index": {before, with(at(500, 0, 0, all), func(e *history.Evidence) {
			e.HighWater, e.Committed = history.Mark{Revision: 500, Index: 2000, Term: 5}, 2000
		}), history.Continues, 1, "agree"},
		"term falls":       {before, at(110, 1020, 4, all), history.Contradicts, 1, "is of the earlier term 4"},
		"term of an index": {before, at(100, 1000, 6, all), history.Continues, 2, "agree"},
		"committed behind": {before, at(90, 900, 5, all), history.Contradicts, 1, "committed up to raft index 900"},
		"confirmed revision behind": {before, with(at(90, 900, 5, all), func(e *history.Evidence) {
			e.Committed, e.HighWater = 1000, history.Mark{Revision: 99, Index: 1000, Term: 5}
		}), history.Contradicts, 1, "newest revision is 99"},
		"confirmed term behind": {with(before, func(e *history.Evidence) { e.HighWater.Term = 7 }), at(110, 1020, 6, all),
			history.Contradicts, 1, "confirmed raft term 6"},
		"behind, nobody confirmed": {before, with(at(90, 900, 5, all), older), history.Unclear, 1, "revision 90 and raft" +
			" index 900, before: 100 and 1000"},
		"ahead, nobody confirmed": {before, with(at(110, 1020, 5, all), older), history.Continues, 1, "agree"},
	} {
		v := history.Judge(c.previous, c.next)
		if v.Relation != c.want || v.Shared != c.shared || !strings.Contains(v.Reason, c.reason) {
			t.Errorf("%s: got %s, %d, %q, want %s, %d, %q", name, v.Relation, v.Shared, v.Reason, c.want, c.shared, c.reason)
		}
	}
	got := fmt.Sprint(history.Continues, history.Unclear, history.Contradicts, history.Relation(7))
	if got != "continues unclear contradicts relation 7" {
		t.Errorf("got %q", got)
	}
}
