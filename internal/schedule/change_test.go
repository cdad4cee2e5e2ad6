package schedule_test

import (
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

func TestLine_ClockChange(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for line, want := range map[string]string{
		"CRON_TZ=Europe/Berlin 30 2 * * *":       "2027-03-28T03:00:00+02:00 02:30 true",
		"CRON_TZ=Australia/Sydney 30 2 * * *":    "2027-04-04T02:00:00+10:00 02:30 false",
		"TZ=America/New_York 30 1 * * *":         "2027-11-07T01:00:00-05:00 01:30 false",
		"CRON_TZ=Europe/Berlin 30 3 * * *":       "",
		"CRON_TZ=Europe/Berlin 30 * * * *":       "",
		"CRON_TZ=Europe/Berlin @every 5h":        "",
		"CRON_TZ=Asia/Tokyo 30 2 * * *":          "",
		"CRON_TZ=Europe/Berlin 30 2 * * mon-fri": "", // clocks change on Sundays
		"30 2 * * *":                             "",
	} {
		l, err := schedule.Parse(line, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if c, ok := l.ClockChange(now); ok {
			got = c.At.Format(time.RFC3339) + " " + c.Wall.Format("15:04") +
				map[bool]string{true: " true", false: " false"}[c.Forward]
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}
