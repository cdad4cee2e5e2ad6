package schedule_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

func mustParse(t interface {
	Helper()
	Fatal(...any)
}, line string) schedule.Line {
	t.Helper()
	l, err := schedule.Parse(line, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	out, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNext(t *testing.T) {
	for _, tt := range []struct {
		name, line, from string
		want             []string
	}{
		{"five fields", "30 2 * * *", "2026-11-21T12:00:00Z", []string{"2026-11-22T02:30:00Z", "2026-11-23T02:30:00Z"}},
		{"six fields", "15 30 2 * * *", "2026-11-21T12:00:00Z", []string{"2026-11-22T02:30:15Z"}},
		{"blanks around", "  0   3 * * * \t", "2026-11-21T12:00:00Z", []string{"2026-11-22T03:00:00Z"}},
		{"after, not at", "0 3 * * *", "2026-11-21T03:00:00Z", []string{"2026-11-22T03:00:00Z"}},
		{"parts of a second", "* * * * * *", "2026-11-21T03:00:00.5Z", []string{"2026-11-21T03:00:01Z",
			"2026-11-21T03:00:02Z"}},
		{"hourly", "@hourly", "2026-11-21T03:10:00Z", []string{"2026-11-21T04:00:00Z"}},
		{"midnight", "@midnight", "2026-11-21T03:10:00Z", []string{"2026-11-22T00:00:00Z"}},
		{"yearly", "@yearly", "2026-11-21T03:10:00Z", []string{"2027-01-01T00:00:00Z"}},
		{"every", "@every 90m", "2026-11-21T03:10:00.7Z", []string{"2026-11-21T04:40:00Z", "2026-11-21T06:10:00Z"}},
		{"zone", "CRON_TZ=Asia/Tokyo 0 9 * * *", "2026-11-21T03:10:00Z", []string{"2026-11-22T00:00:00Z"}},
		{"zone and tab", "TZ=Asia/Tokyo\t0 9 * * *", "2026-11-21T03:10:00Z", []string{"2026-11-22T00:00:00Z"}},
		{"leap day", "0 0 29 2 *", "2026-11-21T03:10:00Z", []string{"2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},

		// 2026-03-29 02:00 +01:00 is followed by 03:00 +02:00.
		{"in the gap", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"}},
		{"several in the gap are one", "CRON_TZ=Europe/Berlin */20 2 * * *", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"}},
		{"the end of the gap is a slot itself", "CRON_TZ=Europe/Berlin 0 2,3,4 * * *", "2026-03-28T12:00:00Z",
			[]string{"2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"}},
		{"hourly over the gap", "CRON_TZ=Europe/Berlin 30 * * * *", "2026-03-29T00:00:00Z",
			[]string{"2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"}},
		{"a gap at midnight", "CRON_TZ=America/Sao_Paulo 0 0 * * *", "2018-11-03T12:00:00Z",
			[]string{"2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}},
		{"a gap at midnight of one day", "CRON_TZ=America/Sao_Paulo 0 0 4 11 *", "2018-11-03T12:00:00Z",
			[]string{"2018-11-04T03:00:00Z", "2019-11-04T03:00:00Z"}},
		{"half an hour's gap", "CRON_TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T12:00:00Z",
			[]string{"2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"}},
		{"a day that never was", "CRON_TZ=Pacific/Apia 0 9 30 12 *", "2011-12-01T00:00:00Z",
			[]string{"2011-12-30T10:00:00Z", "2012-12-29T19:00:00Z"}},

		// 2026-10-25 03:00 +02:00 is followed by 02:00 +01:00.
		{"in the overlap once", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"asked in the second pass", "CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-25T01:10:00Z",
			[]string{"2026-10-26T01:30:00Z"}},
		{"every quarter of an hour in both passes", "CRON_TZ=Europe/Berlin */30 * * * *", "2026-10-25T00:00:00Z",
			[]string{"2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"}},
		{"the end of a leap year", "CRON_TZ=Europe/Berlin 0 * * * *", "2040-12-31T10:00:00Z",
			[]string{"2040-12-31T11:00:00Z"}},
		{
			"every has no clock", "CRON_TZ=Europe/Berlin @every 24h", "2026-10-24T12:00:00Z",
			[]string{"2026-10-25T12:00:00Z"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := mustParse(t, tt.line)
			var got []string
			next := at(t, tt.from)
			for range tt.want {
				next = l.Next(next)
				got = append(got, next.UTC().Format(time.RFC3339Nano))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.line, diff)
			}
		})
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		"":                              "it is empty",
		"   ":                           "it is empty",
		"TZ=UTC":                        "it is empty",
		"CRON_TZ=UTC":                   "it is empty",
		"CRON_TZ= 0 0 * * *":            "time zone is empty",
		"CRON_TZ=Europe/Berlim 0 * * *": "unknown time zone Europe/Berlim",
		"CRON_TZ=../etc 0 0 * * *":      "time zone",
		"0 0 31 2 *":                    "no such date ever comes",
		"0 0 30 feb *":                  "no such date ever comes",
		", * * * *":                     "no such date ever comes",
		"* * *":                         "want five fields",
		"60 * * * *":                    "end of range (60) above maximum (59)",
		"* * * * * * *":                 "expected 5 to 6 fields",
		"@reboot":                       "unrecognized descriptor",
		"@every":                        "unrecognized descriptor",
		"@every 1d":                     `unknown unit "d"`,
		"@every 500ms":                  "whole seconds",
		"@every 0s":                     "whole seconds",
		"@every -5m":                    "whole seconds",
		"@every 1500ms":                 "whole seconds",
	} {
		_, err := schedule.Parse(line, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", line, err, want)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", line)) {
			t.Errorf("Parse(%q) = %v: the line is not named", line, err)
		}
	}
}

func TestDefaultZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	l, err := schedule.Parse("0 12 * * *", berlin)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Next(at(t, "2026-11-21T00:00:00Z")); got.Format(time.RFC3339) != "2026-11-21T12:00:00+01:00" {
		t.Errorf("got %s", got)
	}
	if l.Equal(mustParse(t, "0 12 * * *")) || !l.Equal(l) || l.String() != "0 12 * * *" {
		t.Error("lines of two zones are equal, or one is not equal to itself")
	}
	var zero schedule.Line
	if !zero.IsZero() || !zero.Next(time.Now()).IsZero() || zero.Longest(time.Now()) != 0 ||
		zero.Shortest(time.Now()) != 0 {
		t.Error("the zero Line comes")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"TZ=", "CRON_TZ=UTC", "CRON_TZ=UTC @hourly", "*/5 1-3,7 ? jan-mar MON", "@every 1h",
		"0 0 29 2 *", "\x00", "TZ=\t* * * * *"} {
		f.Add(s)
	}
	from := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		l, err := schedule.Parse(s, nil)
		if err != nil {
			return
		}
		next := l.Next(from)
		if !next.After(from) {
			t.Errorf("%q: after %s comes %s", s, from, next)
		}
		if again := mustParse(t, l.String()); !again.Equal(l) || !again.Next(from).Equal(next) {
			t.Errorf("%q reads back as another line", s)
		}
	})
}

// zones change their clocks in all the ways there are.
var zones = []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo",
	"Asia/Kolkata", "Africa/Casablanca", "Pacific/Apia", "Asia/Gaza"}

// lines are cron lines of five fields that come at all.
var lines = rapid.Custom(drawLine).Filter(func(line string) bool {
	_, err := schedule.Parse(line, nil)
	return err == nil || !strings.Contains(err.Error(), "no such date")
})

func drawLine(t *rapid.T) string {
	field := func(name string, lo, hi int) string {
		switch rapid.IntRange(0, 3).Draw(t, name) {
		case 0:
			return "*"
		case 1:
			return fmt.Sprintf("*/%d", rapid.IntRange(1, hi).Draw(t, name+" step"))
		case 2:
			a := rapid.IntRange(lo, hi).Draw(t, name+" from")
			return fmt.Sprintf("%d-%d", a, rapid.IntRange(a, hi).Draw(t, name+" to"))
		default:
			return fmt.Sprint(rapid.IntRange(lo, hi).Draw(t, name+" value"))
		}
	}
	return strings.Join([]string{field("minute", 0, 59), field("hour", 0, 23), field("day", 1, 31),
		field("month", 1, 12),
		field("weekday", 0, 6)}, " ")
}

// TestNextAgreesWithWalking compares Next with a clock that is watched minute
// by minute: a line of certain hours is due when the wall clock first shows
// or passes one of its times; a line for every hour whenever it shows one.
func TestNextAgreesWithWalking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := rapid.SampledFrom(zones).Draw(t, "zone")
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		text := lines.Draw(t, "line")
		line, err := schedule.Parse(text, loc)
		if err != nil {
			t.Fatal(err)
		}
		// The same line in UTC says whether a wall clock reading matches.
		wallLine := mustParse(t, text)
		matches := func(wall time.Time) bool { return wallLine.Next(wall.Add(-time.Second)).Equal(wall) }
		hour := strings.Fields(text)[1]
		everyHour := hour == "*" || hour == "*/1" || hour == "0-23"

		from := time.Unix(rapid.Int64Range(1.2e9, 2e9).Draw(t, "from")/60*60, 0)
		if rapid.Bool().Draw(t, "near a change") {
			if _, end := from.In(loc).ZoneBounds(); !end.IsZero() {
				before := time.Duration(rapid.IntRange(0, 300).Draw(t, "minutes before")) * time.Minute
				from = end.Add(-before).Truncate(time.Minute)
			}
		}
		wall := func(at time.Time) time.Time {
			_, offset := at.In(loc).Zone()
			return at.UTC().Add(time.Duration(offset) * time.Second)
		}
		// The latest the clock ever showed until from.
		shown := wall(from)
		for back := range 26 * 60 {
			if w := wall(from.Add(-time.Duration(back) * time.Minute)); w.After(shown) {
				shown = w
			}
		}
		got := line.Next(from)
		for n := 1; n <= 3*24*60; n++ {
			now := from.Add(time.Duration(n) * time.Minute)
			due := false
			if everyHour {
				due = matches(wall(now))
			} else {
				for w := shown.Add(time.Minute); !w.After(wall(now)) && !due; w = w.Add(time.Minute) {
					due = matches(w)
				}
				if w := wall(now); w.After(shown) {
					shown = w
				}
			}
			if due || now.Equal(got) {
				if !due || !now.Equal(got) {
					t.Fatalf("%q in %s after %s: Next says %s, the clock %s (due %t)", text, zone, from.In(loc), got,
						now.In(loc), due)
				}
				return
			}
		}
		if got.Before(from.Add(3 * 24 * time.Hour)) {
			t.Fatalf("%q in %s after %s: Next says %s, the clock nothing", text, zone, from.In(loc), got)
		}
	})
}

func TestDistances(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	for _, tt := range []struct {
		line              string
		longest, shortest time.Duration
	}{
		{"* * * * * *", time.Second, time.Second},
		{"@hourly", hour, hour},
		{"@daily", day, day},
		{"CRON_TZ=Europe/Berlin @hourly", hour, hour},
		{"CRON_TZ=Europe/Berlin @daily", 25 * hour, day},
		{"CRON_TZ=Asia/Tokyo @daily", day, day},
		{"CRON_TZ=Australia/Lord_Howe @daily", day + hour/2, day},
		{"@weekly", 7 * day, 7 * day},
		{"@monthly", 31 * day, 28 * day},
		{"@yearly", 366 * day, 365 * day},
		{"0 0 29 2 *", 4*365*day + day, 4*365*day + day},
		{"@every 90m", hour * 3 / 2, hour * 3 / 2},
		{"0 4 * * 1-5", 3 * day, day},
		{"0 9,17 * * 1-5", 2*day + 16*hour, 8 * hour},
		{"*/10 9-17 * * *", 15*hour + 10*time.Minute, 10 * time.Minute},
		{"* * * 1 *", 335*day + time.Minute, time.Minute},
	} {
		l := mustParse(t, tt.line)
		from := at(t, "2026-11-21T13:00:00Z")
		if got := l.Longest(from); got != tt.longest {
			t.Errorf("%s: longest %s, want %s", tt.line, got, tt.longest)
		}
		if got := l.Shortest(from); got != tt.shortest {
			t.Errorf("%s: shortest %s, want %s", tt.line, got, tt.shortest)
		}
	}
}

// No two runs lie further apart than Longest says.
func TestLongestHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loc, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		line, err := schedule.Parse(lines.Draw(t, "line"), loc)
		if err != nil {
			t.Fatal(err)
		}
		from := time.Unix(rapid.Int64Range(1.5e9, 2e9).Draw(t, "from"), 0)
		longest := line.Longest(from)
		last := line.Next(from)
		for range 2000 {
			next := line.Next(last)
			if next.IsZero() || next.After(from.AddDate(8, 0, 0)) {
				return
			}
			if d := next.Sub(last); d > longest {
				t.Fatalf("%q in %s: %s between %s and %s, longest says %s", line, loc, d, last, next, longest)
			}
			last = next
		}
	})
}

// TestSunday: Sunday is 0 and 7, as in other crons.
func TestSunday(t *testing.T) {
	for line, same := range map[string]string{
		"0 3 * * 7": "0 3 * * 0", "0 0 3 * * 7": "0 0 3 * * sun", "0 3 * * 5-7": "0 3 * * 5,6,0",
		"0 3 * * 0-7":   "0 3 * * 0-6",
		"0 3 * * 1-7/2": "0 3 * * 1,3,5,0", "0 3 * * Sat-7": "0 3 * * 6,0", "0 3 * * 2,7": "0 3 * * 0,2",
		"0 3 * * 7-7": "0 3 * * 0", "CRON_TZ=Asia/Tokyo 0 3 * * 7": "CRON_TZ=Asia/Tokyo 0 3 * * 0", "0 3 7 7 *": "0 3 7 7 *",
	} {
		got, want := mustParse(t, line), mustParse(t, same)
		when := at(t, "2026-11-21T12:00:00Z")
		for range 20 {
			a, b := got.Next(when), want.Next(when)
			if !a.Equal(b) {
				t.Fatalf("%s: got %v after %v, want %v", line, a, when, b)
			}
			when = a
		}
		if got.String() != line {
			t.Errorf("%s is shown as %s", line, got)
		}
	}
	for _, line := range []string{
		"0 3 * * 8", "0 3 * * 7-8", "0 3 * * 7/2", "0 3 * * 5-7/0", "0 3 * * 5-7/x", "0 7 * * -7"} {
		if l, err := schedule.Parse(line, nil); err == nil {
			t.Errorf("%s: got %v", line, l)
		}
	}
}
