package retention

import (
	"slices"
	"sort"
	"time"
)

// trusted returns a time for each snapshot that does not contradict the order of the
// history; all come with the newest first. It trusts the longest sequence in which no
// later snapshot has an earlier time; of several as long, the one with the latest
// times. Each other snapshot gets the time of the one before it in that sequence or,
// if there is none, of the first one. So a writer with a wrong clock moves nobody's
// snapshot out of its period.
func (c *selection) trusted(all []*candidate) []time.Time {
	order := slices.Clone(all)
	slices.Reverse(order) // the oldest first
	sequence := c.longest(order)
	out := make([]time.Time, len(order))
	next := 0 // in the sequence
	for i, s := range order {
		if next < len(sequence) && sequence[next] == s {
			next++
		}
		at := s.begun
		if len(sequence) > 0 {
			at = sequence[max(next-1, 0)].begun
		}
		out[i] = at
	}
	slices.Reverse(out)
	return out
}

// longest returns the longest sequence of snapshots, the oldest first, whose times
// never go back. Snapshots from the future are not in it.
func (c *selection) longest(order []*candidate) []*candidate {
	// ends[n] has the snapshots with which a sequence of n+1 ends. Their times get
	// ever earlier, because an equal or later time would make a longer sequence.
	var ends [][]*candidate
	for _, s := range order {
		if s.begun.IsZero() || c.future(s) {
			continue
		}
		n := sort.Search(len(ends), func(n int) bool { return ends[n][len(ends[n])-1].begun.After(s.begun) })
		if n == len(ends) {
			ends = append(ends, nil)
		}
		ends[n] = append(ends[n], s)
	}
	out := make([]*candidate, len(ends))
	for n := len(ends) - 1; n >= 0; n-- {
		// The first that fits has the latest time, and comes before out[n+1].
		fits := 0
		for n+1 < len(ends) && ends[n][fits].begun.After(out[n+1].begun) {
			fits++
		}
		out[n] = ends[n][fits]
	}
	return out
}
