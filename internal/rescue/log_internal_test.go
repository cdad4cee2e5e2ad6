package rescue

import (
	"testing"

	"pgregory.net/rapid"
)

// history is a log that a cluster has committed, and what some members have of it.
type history struct {
	terms []uint64 // of the committed entries, from 1 on
	all   []known
}

// draw makes members as raft leaves them: a committed prefix, and then perhaps entries of a leader
// that nobody else followed. Each knows of a part of what is committed; old entries may be gone
// from its log, as far as its database has them.
func draw(t *rapid.T) history {
	var h history
	term := uint64(1)
	for range rapid.IntRange(1, 30).Draw(t, "committed") {
		term += uint64(rapid.IntRange(0, 3).Draw(t, "step") / 3)
		h.terms = append(h.terms, term)
	}
	for m := range rapid.IntRange(1, 3).Draw(t, "members") {
		has := rapid.IntRange(1, len(h.terms)).Draw(t, "has")
		applied := rapid.IntRange(1, has).Draw(t, "applied")
		from := rapid.IntRange(1, applied+1).Draw(t, "from")
		l := &raftLog{Commit: uint64(rapid.IntRange(0, has).Draw(t, "knows"))}
		for i := from; i <= has; i++ {
			l.add(uint64(i), h.terms[i-1])
		}
		extra := rapid.IntRange(0, 4).Draw(t, "extra")
		if from > has {
			extra = 0
		}
		for i := range extra { // of a term that is its own
			l.add(uint64(has+i+1), 1000+uint64(m))
		}
		h.all = append(h.all, known{l, position{uint64(applied), h.terms[applied-1]}})
	}
	return h
}

// TestReach: no log is taken further than what is committed, none less far than it shows itself,
// and one that has all that is known to be committed is taken that far.
func TestReach(t *testing.T) {
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		h := draw(t)
		to, newest := reach(h.all), newestCommit(h.all)
		for i, k := range h.all {
			for at := k.database.Index + 1; at <= to[i]; at++ {
				if at > uint64(len(h.terms)) || k.term(at) != h.terms[at-1] {
					t.Fatalf("member %d is taken to %d, and its entry %d is not committed", i, to[i], at)
				}
			}
			if to[i] < k.database.Index || to[i] < min(k.Commit, k.Last) && k.first() <= k.database.Index+1 {
				t.Errorf("member %d is taken to %d only", i, to[i])
			}
			if to[i] > k.committed() {
				taken++
			}
		}
		which, count := tail(h.all, to)
		if which >= 0 && (to[which] != newest || newest+count != h.all[which].Last) {
			t.Errorf("%d entries of member %d come after %d", count, which, newest)
		}
	})
	if taken == 0 {
		t.Error("no member was taken further by what another one knows")
	}
}

func TestTail(t *testing.T) {
	at := func(commit uint64, terms ...uint64) known {
		l := &raftLog{Commit: commit}
		for i, term := range terms {
			l.add(uint64(i+1), term)
		}
		return known{l, position{1, terms[0]}}
	}
	for _, c := range []struct {
		name  string
		all   []known
		which int
		count uint64
	}{
		{"None", []known{at(2, 1, 1), at(1, 1, 1)}, -1, 0},
		{"Longest", []known{at(2, 1, 1, 1), at(1, 1, 1, 1, 1)}, 1, 2},
		{"NewestTerm", []known{at(2, 1, 1, 1, 1), at(2, 1, 1, 2)}, 1, 1},
		{"WithoutTheCommitted", []known{at(3, 1, 2, 2), at(1, 1, 1, 1, 1)}, -1, 0},
	} {
		which, count := tail(c.all, reach(c.all))
		if which != c.which || count != c.count {
			t.Errorf("%s: %d entries of %d, want %d of %d", c.name, count, which, c.count, c.which)
		}
	}
}
