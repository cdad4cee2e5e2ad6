package schedule

import "time"

// ClockChange is a change of clocks during which a line has a run.
type ClockChange struct {
	At   time.Time // in the zone of the line
	Wall time.Time // the time of that run on a wall clock, given in UTC
	// Forward: this time of day is skipped. Otherwise it comes twice.
	Forward bool
}

// ClockChange returns the first change of clocks in the year after now during
// which the line has a run. There is none for a line that runs every hour: no
// change disturbs it.
func (l Line) ClockChange(now time.Time) (ClockChange, bool) {
	if l.IsZero() {
		return ClockChange{}, false
	}
	// The same line in UTC has all times of a wall clock, also the skipped ones.
	onWall := l
	onWall.loc = time.UTC
	if onWall.Longest(now) <= time.Hour {
		return ClockChange{}, false
	}
	t := now.In(l.Location())
	for limit := t.AddDate(1, 0, 0); t.Before(limit); {
		_, end := t.ZoneBounds()
		if !end.After(t) {
			break
		}
		_, was := end.Add(-time.Second).Zone()
		_, is := end.Zone()
		// The time of the wall clock at the change, by the old offset and by the new one.
		from := end.UTC().Add(time.Duration(min(was, is)) * time.Second)
		to := end.UTC().Add(time.Duration(max(was, is)) * time.Second)
		if run := onWall.Next(from.Add(-time.Second)); !run.IsZero() && run.Before(to) {
			return ClockChange{At: end.In(l.Location()), Wall: run, Forward: is > was}, true
		}
		t = end.In(l.Location())
	}
	return ClockChange{}, false
}
