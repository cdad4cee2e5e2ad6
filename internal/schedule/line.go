package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones must be known in an image that has no /usr/share/zoneinfo
	"unicode"

	"github.com/robfig/cron/v3"
)

// Line is a parsed cron line. The zero Line has no times: a job with it runs
// only when triggered.
//
// A line means wall clock times of its zone. When the clock is set forward, a run
// that falls into the skipped hour starts at the end of that hour. When it is set
// back, the repeated hour gets its runs once. A line for every hour runs in both.
type Line struct {
	text  string
	loc   *time.Location
	every time.Duration
	spec  *cron.SpecSchedule // nil with every
}

var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow |
	cron.Descriptor)

const forms = "want five fields (minute hour day month weekday), a sixth for seconds in front, " +
	"or @hourly, @daily, @weekly, @monthly, @yearly, or @every with a duration such as 6h30m"

// Parse reads a cron line of five fields, or of six with seconds in front, or
// one of @hourly, @daily (@midnight), @weekly, @monthly, @yearly (@annually) and
// @every DURATION. CRON_TZ=ZONE or TZ=ZONE in front names its time zone; the
// default is loc, or UTC if loc is nil.
func Parse(line string, loc *time.Location) (Line, error) {
	l, err := parse(strings.TrimSpace(line), loc)
	if err != nil {
		return Line{}, fmt.Errorf("schedule %q: %w", line, err)
	}
	return l, nil
}

func parse(line string, loc *time.Location) (Line, error) {
	l := Line{text: line, loc: loc}
	if loc == nil {
		l.loc = time.UTC
	}
	// robfig/cron panics if a zone is not followed by a line, so it never sees a
	// zone.
	rest, err := l.cutZone(line)
	if err != nil {
		return Line{}, err
	}
	if rest == "" {
		return Line{}, errors.New("it is empty: " + forms)
	}
	parsed, err := parser.Parse(withSunday(rest))
	if err != nil {
		return Line{}, fmt.Errorf("%w: %s", err, forms)
	}
	if _, ok := parsed.(cron.ConstantDelaySchedule); ok {
		// The parser rounds the duration, so it is parsed again.
		l.every, err = time.ParseDuration(strings.TrimSpace(strings.TrimPrefix(rest, "@every")))
		if err != nil {
			return Line{}, err
		}
		if l.every < time.Second || l.every%time.Second != 0 {
			return Line{}, fmt.Errorf("@every needs whole seconds, at least one, not %s", l.every)
		}
		return l, nil
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return Line{}, fmt.Errorf("the parser returned a %T", parsed)
	}
	spec.Location = time.UTC // it is only used with wall clock times
	l.spec = spec
	// The day is fixed, so that a line is not valid today and invalid tomorrow.
	if l.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Line{}, errors.New("no such date ever comes: check the day and the month")
	}
	return l, nil
}

// withSunday writes the weekday 7, which is Sunday in other crons, as 0.
func withSunday(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 5 || strings.HasPrefix(line, "@") {
		return line
	}
	days := strings.Split(fields[len(fields)-1], ",")
	for i, part := range days {
		days[i] = sunday(part)
	}
	fields[len(fields)-1] = strings.Join(days, ",")
	return strings.Join(fields, " ")
}

// sunday rewrites one weekday, or a range that ends with 7, as a list of single days.
func sunday(part string) string {
	span, every, stepped := strings.Cut(part, "/")
	first, last, isRange := strings.Cut(span, "-")
	if part == "7" {
		return "0"
	}
	from, known := day(first)
	step, err := 1, error(nil)
	if stepped {
		step, err = strconv.Atoi(every)
	}
	if !isRange || last != "7" || !known || err != nil || step < 1 {
		return part // the parser knows it, or says what is wrong
	}
	var out []string
	for d := from; d <= 7; d += step {
		out = append(out, strconv.Itoa(d%7))
	}
	return strings.Join(out, ",")
}

// day returns the number of a weekday from 0 to 7.
func day(text string) (int, bool) {
	if n := slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, strings.ToLower(text)); n >= 0 {
		return n, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && n <= 7
}

// cutZone takes the zone off the front of a line.
func (l *Line) cutZone(line string) (rest string, err error) {
	zone, ok := strings.CutPrefix(line, "CRON_TZ=")
	if !ok {
		if zone, ok = strings.CutPrefix(line, "TZ="); !ok {
			return line, nil
		}
	}
	if i := strings.IndexFunc(zone, unicode.IsSpace); i >= 0 {
		zone, rest = zone[:i], strings.TrimSpace(zone[i:])
	}
	if zone == "" {
		return "", errors.New("the time zone is empty: want for example CRON_TZ=Europe/Berlin before the line")
	}
	if l.loc, err = time.LoadLocation(zone); err != nil {
		return "", fmt.Errorf("time zone: %w", err)
	}
	return rest, nil
}

// String returns the line as it was written.
func (l Line) String() string { return l.text }

// IsZero reports whether l is the zero Line.
func (l Line) IsZero() bool { return l.loc == nil }

// Location is the zone of the line.
func (l Line) Location() *time.Location {
	if l.loc == nil {
		return time.UTC
	}
	return l.loc
}

// Equal reports whether two lines mean the same times.
func (l Line) Equal(m Line) bool {
	return l.text == m.text && l.Location().String() == m.Location().String()
}

// Next returns the first time after t, in the zone of the line. It returns the
// zero time for the zero Line, and if there is none in five years.
func (l Line) Next(t time.Time) time.Time {
	switch {
	case l.IsZero():
		return time.Time{}
	case l.every > 0:
		return t.In(l.loc).Truncate(0).Add(l.every - time.Duration(t.Nanosecond()))
	case l.everyHour():
		return l.nextElapsed(t)
	default:
		return l.nextWall(t)
	}
}

// everyHour reports whether the line has runs in every hour of the day. Such a
// line means distances, not times of the day.
func (l Line) everyHour() bool {
	const hours = 1<<24 - 1
	return l.spec.Hour&hours == hours
}

// nextWall is Next of a line that means times of the day.
func (l Line) nextWall(t time.Time) time.Time {
	for wall := wallClock(t.In(l.loc)); ; {
		wall = l.spec.Next(wall)
		if wall.IsZero() {
			return wall
		}
		// In a repeated hour, skip the runs that the first one had.
		if next := firstAt(wall, l.loc); next.After(t) {
			return next
		}
	}
}

// nextElapsed is Next of a line for every hour. It goes from one change of the
// clock to the next, because the clock runs evenly between them.
func (l Line) nextElapsed(t time.Time) time.Time {
	t = t.In(l.loc)
	limit := t.AddDate(5, 0, 0)
	for !t.After(limit) {
		wall := wallClock(t)
		next := l.spec.Next(wall)
		if next.IsZero() {
			return next
		}
		// In seconds: a Duration ends after 292 years.
		at := time.Unix(t.Unix()+next.Unix()-wall.Unix(), 0).In(l.loc)
		end := nextChange(t)
		if end.IsZero() || at.Before(end) {
			return at
		}
		// The next period begins at end, and end itself may be the next run.
		if wall := wallClock(end); l.spec.Next(wall.Add(-time.Second)).Equal(wall) {
			return end.In(l.loc)
		}
		t = end.In(l.loc)
	}
	return time.Time{}
}

// nextChange returns when the clock of t's zone is next set forward or back, or
// the zero time.
func nextChange(t time.Time) time.Time {
	for {
		_, end := t.ZoneBounds()
		if end.IsZero() || end.After(t) {
			return end
		}
		// Package time returns an end in the past on the last day of a leap year
		// that the zone's table does not list. No zone changes its clock that day.
		t = t.AddDate(0, 0, 1)
	}
}

// wallClock returns the time that the clock of t's zone shows, to the second, as
// a time in UTC.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// firstAt returns the first moment at which a clock in loc shows wall or later.
// If the clock skips wall, that is the end of the gap.
func firstAt(wall time.Time, loc *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
	start, end := t.ZoneBounds()
	switch shown := wallClock(t); {
	case shown.Before(wall): // in a gap, before the change
		return end.In(loc)
	case shown.After(wall): // in a gap, after the change
		return start.In(loc)
	}
	// If the last change set the clock back far enough, it showed wall before that
	// change as well.
	if !start.IsZero() {
		before := start.Add(-time.Nanosecond)
		_, was := before.Zone()
		_, is := t.Zone()
		if earlier := t.Add(-time.Duration(was-is) * time.Second); was > is && earlier.Before(start) {
			return earlier
		}
	}
	return t
}
