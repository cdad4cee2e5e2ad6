package retention_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/retention"
)

// TestSizingPage: the table of docs/deploy/sizing.md says how many snapshots rules
// keep when one is taken every hour for 13 months.
func TestSizingPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/deploy/sizing.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(keep-[^`]+)` \\| (\\d+) \\| (\\d+) \\|$")
	rows := row.FindAllStringSubmatch(string(page), -1)
	if len(rows) != 4 {
		t.Fatalf("%d rows in the table, this test knows 4", len(rows))
	}
	for _, row := range rows {
		p, sum := rules(t, row[1])
		if got := after(p, 13*31*24); strconv.Itoa(sum) != row[2] || strconv.Itoa(got) != row[3] {
			t.Errorf("%s: at most %d, and %d after 13 months; the page says %s and %s", row[1], sum, got, row[2], row[3])
		}
	}
}

// rules parses what a row says, and returns the most that the rules keep together.
func rules(t *testing.T, text string) (p retention.Policy, sum int) {
	t.Helper()
	p.MinVerified = 3
	for _, rule := range strings.Split(text, ", ") {
		name, value, _ := strings.Cut(rule, ": ")
		n, err := strconv.Atoi(strings.TrimSuffix(value, "d"))
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "keep-last":
			p.Last = n
		case "keep-hourly":
			p.Hourly = n
		case "keep-daily":
			p.Daily = n
		case "keep-weekly":
			p.Weekly = n
		case "keep-monthly":
			p.Monthly = n
		case "keep-within":
			p.Within, n = time.Duration(n)*24*time.Hour, n*24
		default:
			t.Fatalf("unknown rule %q", rule)
		}
		sum += n
	}
	return p, sum
}

// after takes a snapshot every hour, prunes every third day and at the end, and returns
// how many are left.
func after(p retention.Policy, hours int) int {
	var left []retention.Snapshot
	begin := now.Add(-time.Duration(hours) * time.Hour)
	for i := range hours {
		s := at(begin.Add(time.Duration(i) * time.Hour))
		s.Timeline, s.Index, s.State = "t1-aaaaaa", uint64(i+1), backup.Verified
		left = append(left, s)
		if i%72 != 0 && i != hours-1 {
			continue
		}
		decisions := p.Apply(left, nil, begin.Add(time.Duration(i+1)*time.Hour))
		left = left[:0]
		for _, d := range decisions {
			if d.Keep {
				left = append(left, d.Snapshot)
			}
		}
	}
	return len(left)
}
