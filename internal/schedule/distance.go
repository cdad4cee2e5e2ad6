package schedule

import "time"

// horizon is how many years Longest and Shortest look ahead. Nine years contain
// two leap days wherever they begin.
const horizon = 9

// Longest returns the longest distance between two runs after from: three days
// for a line of weekdays, for example. It includes the hour by which a clock is
// set back. It is 0 for the zero Line.
func (l Line) Longest(from time.Time) time.Duration {
	longest, _ := l.distances(from)
	if longest == 0 || l.every > 0 {
		return longest
	}
	overlap := longestOverlap(from.In(l.loc))
	if l.everyHour() && longest <= time.Hour {
		overlap %= time.Hour // a line for every hour runs in both repeated hours
	}
	return longest + overlap
}

// Shortest returns the shortest distance between two runs after from, by the
// wall clock. It is 0 for the zero Line.
func (l Line) Shortest(from time.Time) time.Duration {
	_, shortest := l.distances(from)
	return shortest
}

func (l Line) distances(from time.Time) (longest, shortest time.Duration) {
	if l.IsZero() {
		return 0, 0
	}
	if l.every > 0 {
		return l.every, l.every
	}
	times := l.timesOfDay()
	first, last := times[0], times[len(times)-1]
	longest, shortest = 0, 1<<63-1
	add := func(d time.Duration) { longest, shortest = max(longest, d), min(shortest, d) }
	for i := range len(times) - 1 {
		add(times[i+1] - times[i])
	}
	// From the first run of a day to the first of the next day that has any.
	midnight := wallClock(from.In(l.loc)).Truncate(24 * time.Hour)
	limit := midnight.AddDate(horizon, 0, 0)
	run := l.spec.Next(midnight.Add(-time.Second))
	for !run.IsZero() && run.Before(limit) {
		next := l.spec.Next(run.Add(last - first))
		if next.IsZero() {
			break
		}
		add(next.Sub(run) - (last - first))
		run = next
	}
	return longest, shortest
}

// timesOfDay returns the times of day at which the line has runs.
func (l Line) timesOfDay() []time.Duration {
	bits := func(set uint64, n int) (out []time.Duration) {
		for i := range n {
			if set&(1<<i) != 0 {
				out = append(out, time.Duration(i))
			}
		}
		return out
	}
	hours, minutes, seconds := bits(l.spec.Hour, 24), bits(l.spec.Minute, 60), bits(l.spec.Second, 60)
	var out []time.Duration
	for _, h := range hours {
		for _, m := range minutes {
			for _, s := range seconds {
				out = append(out, h*time.Hour+m*time.Minute+s*time.Second)
			}
		}
	}
	return out
}

// longestOverlap returns the longest time by which the clock is set back before
// the horizon.
func longestOverlap(t time.Time) time.Duration {
	var longest time.Duration
	for limit := t.AddDate(horizon, 0, 0); t.Before(limit); {
		end := nextChange(t)
		if end.IsZero() {
			break
		}
		_, was := t.Zone()
		_, is := end.Zone()
		longest = max(longest, time.Duration(was-is)*time.Second)
		t = end
	}
	return longest
}
