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
	order = slices.DeleteFunc(slices.Clone(order), func(s *candidate) bool { return s.begun.IsZero() || c.future(s) })
	times := make([]time.Time, len(order))
	for i, s := range order {
		times[i] = s.begun
	}
	var out []*candidate
	for i, fits := range Consistent(times) {
		if fits {
			out = append(out, order[i])
		}
	}
	return out
}

// Consistent reports for each of the times, which are in the order of events, whether
// it belongs to the longest sequence that never goes back; of several as long, to the
// one with the latest times. The others come from wrong clocks.
func Consistent(times []time.Time) []bool {
	// ends[n] has the places of the times with which a sequence of n+1 ends. The times get
	// ever earlier, because an equal or later one would make a longer sequence.
	var ends [][]int
	for i, at := range times {
		n := sort.Search(len(ends), func(n int) bool { return times[ends[n][len(ends[n])-1]].After(at) })
		if n == len(ends) {
			ends = append(ends, nil)
		}
		ends[n] = append(ends[n], i)
	}
	out := make([]bool, len(times))
	last := time.Time{}
	for n := len(ends) - 1; n >= 0; n-- {
		// The first that fits has the latest time, and comes before the one after it.
		fits := 0
		for n+1 < len(ends) && times[ends[n][fits]].After(last) {
			fits++
		}
		out[ends[n][fits]], last = true, times[ends[n][fits]]
	}
	return out
}
