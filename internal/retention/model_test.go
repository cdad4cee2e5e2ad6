package retention_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// histories is how many random ones the model is compared with.
const histories = 12_000

// begins are moments worth being near: changes of clocks, turns of years.
var begins = []time.Time{
	time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC),     // Berlin, forward
	time.Date(2026, 10, 25, 1, 0, 0, 0, time.UTC),    // Berlin, back
	time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC),     // New York, back
	time.Date(2026, 4, 4, 15, 0, 0, 0, time.UTC),     // Lord Howe, half an hour back
	time.Date(1990, 10, 28, 2, 31, 0, 0, time.UTC),   // St. John's, back into the day before
	time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC),   // Apia, without 30 December
	time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC),      // week 53
	time.Date(2024, 12, 30, 0, 0, 0, 0, time.UTC),    // week 1 of the next year
	time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),   // nothing
	time.Date(2024, 2, 29, 23, 59, 59, 0, time.UTC),  // leap day
	time.Date(9998, 12, 31, 23, 59, 59, 0, time.UTC), // far away
}

var steps = []time.Duration{0, time.Second, time.Minute, 11 * time.Minute, 30 * time.Minute, time.Hour, 5 * time.Hour,
	23 * time.Hour, 24 * time.Hour, 6 * 24 * time.Hour, 37 * 24 * time.Hour, 400 * 24 * time.Hour}

var zones = []string{"", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns",
	"Pacific/Apia", "Asia/Kolkata", "America/Havana"}

type history struct {
	policy retention.Policy
	all    []retention.Snapshot
	now    time.Time
}

func drawHistory(t *rapid.T, locations map[string]*time.Location) history {
	h := history{now: rapid.SampledFrom(begins).Draw(t, "now")}
	few := rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 7})
	span := rapid.SampledFrom(append([]time.Duration{0, 0}, steps...))
	h.policy = retention.Policy{
		Last: few.Draw(t, "last"), Hourly: few.Draw(t, "hourly"), Daily: few.Draw(t, "daily"),
		Weekly:  few.Draw(t, "weekly"),
		Monthly: few.Draw(t, "monthly"), Yearly: few.Draw(t, "yearly"), Within: span.Draw(t, "within"),
		MinVerified: rapid.IntRange(0, 4).Draw(t, "minVerified"), MinAge: span.Draw(t, "minAge"),
		MaxBytes: rapid.SampledFrom([]int64{0, 0, 1, 500, 2000}).Draw(t, "maxBytes"),
		Location: locations[rapid.SampledFrom(zones).Draw(t, "zone")],
	}
	step := rapid.SampledFrom(steps)
	when := h.now.Add(rapid.SampledFrom([]time.Duration{
		0, 0, time.Second, 300 * time.Second, 301 * time.Second, time.Hour, 90 * 24 * time.Hour,
	}).Draw(t, "ahead"))
	bad := rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "bad of ten")
	for i := range rapid.IntRange(0, 30).Draw(t, "n") {
		s := retention.Snapshot{StoredBytes: rapid.Int64Range(0, 300).Draw(t, "bytes")}
		rev := rapid.SampledFrom([]int{5, 50, 1000}).Draw(t, "rev")
		s.ID = backup.SnapshotID(fmt.Sprintf("%s-r%d-%s", when.Format("20060102T150405Z"), rev,
			strings.Repeat(string(rune('a'+i%26)), 6)))
		s.State = backup.Verified
		if rapid.IntRange(1, 10).Draw(t, "bad") <= bad {
			s.State = rapid.SampledFrom([]backup.State{backup.Suspect, backup.Damaged}).Draw(t, "state")
		}
		if rapid.IntRange(0, 9).Draw(t, "pinned") == 0 {
			s.Pinned = "reason"
		}
		h.all = append(h.all, s)
		when = when.Add(-step.Draw(t, "step"))
	}
	return h
}

// TestApply_Model compares Apply with an oracle that goes by the words of the
// documentation, snapshot by snapshot, and checks what must hold of any answer.
func TestApply_Model(t *testing.T) {
	checks := rounds.Of(histories)
	for name, value := range map[string]string{"rapid.checks": fmt.Sprint(checks), "rapid.seed": "20261121"} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	locations := map[string]*time.Location{"": nil}
	for _, name := range zones[1:] {
		locations[name] = zone(t, name)
	}
	n, removed, frozen, over := 0, 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt, locations)
		got := h.policy.Apply(h.all, h.now)
		checkAnswer(rt, h, got)
		want := oracle(h)
		for _, d := range got {
			if diff := cmp.Diff(want[d.ID], kinds(d)); diff != "" {
				rt.Fatalf("%s (- oracle, + Apply):\n%s\n%s", d.ID, diff, show(got))
			}
			if !d.Keep {
				removed++
			}
			if strings.Contains(strings.Join(d.Reasons, ";"), "a newer snapshot is ") {
				frozen++
			}
			if strings.HasPrefix(d.Reasons[0], "over the limit") {
				over++
			}
		}
		n++
		shuffled := slices.Clone(h.all)
		rand.New(rand.NewPCG(uint64(n), 1)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		if diff := cmp.Diff(got, h.policy.Apply(shuffled, h.now)); diff != "" {
			rt.Fatalf("another order of the input:\n%s", diff)
		}
	})
	t.Logf("%d histories: %d snapshots removed, %d over the limit, %d kept because a newer one is bad", n, removed,
		over, frozen)
	if n < checks || removed < n || frozen < n/10 || over < n/10 {
		t.Error("the histories are too tame")
	}
}

// checkAnswer checks what must hold whatever the rules.
func checkAnswer(t *rapid.T, h history, got []retention.Decision) {
	if len(got) != len(h.all) {
		t.Fatalf("%d decisions about %d snapshots", len(got), len(h.all))
	}
	verified, kept := 0, 0
	for _, d := range got {
		if len(d.Reasons) == 0 {
			t.Fatalf("%s: no reason", d.ID)
		}
		if d.Pinned != "" && !d.Keep {
			t.Fatalf("%s is pinned, and goes", d.ID)
		}
		if d.State != backup.Verified || d.ID.Time().After(h.now.Add(5*time.Minute)) {
			continue
		}
		verified++
		if d.Keep {
			kept++
		}
	}
	if want := min(verified, max(1, h.policy.MinVerified)); kept < want {
		t.Fatalf("%d of %d verified snapshots stay, want %d", kept, verified, want)
	}
	// Twice is as good as once: what stays, stays.
	var left []retention.Snapshot
	for _, d := range got {
		if d.Keep {
			left = append(left, d.Snapshot)
		}
	}
	for _, d := range h.policy.Apply(left, h.now) {
		if !d.Keep {
			t.Fatalf("%s goes the second time only: %v", d.ID, d.Reasons)
		}
	}
}

// kinds returns the first words of the reasons, in order of the alphabet.
func kinds(d retention.Decision) []string {
	out := []string{fmt.Sprint(d.Keep)}
	for _, r := range d.Reasons {
		word, _, _ := strings.Cut(strings.ReplaceAll(r, ":", ""), " ")
		out = append(out, word)
	}
	sort.Strings(out[1:])
	return out
}

// fact is a snapshot with the facts in its id.
type fact struct {
	retention.Snapshot
	at     int64
	rev    backup.Revision
	counts bool
	newer  []*fact // of those that count
}

// facts reads the ids, and finds the newer snapshots of each one.
func facts(h history) []*fact {
	var all []*fact
	for _, s := range h.all {
		at := s.ID.Time().Unix()
		all = append(all, &fact{Snapshot: s, at: at, rev: s.ID.Revision(),
			counts: s.State == backup.Verified && at <= h.now.Unix()+300})
	}
	for _, s := range all {
		for _, o := range all {
			if o.counts && o.before(s) {
				s.newer = append(s.newer, o)
			}
		}
	}
	return all
}

func (a *fact) bad() bool { return a.State != backup.Verified }

// before reports whether a is newer than b.
func (a *fact) before(b *fact) bool {
	if a.at != b.at {
		return a.at > b.at
	}
	if a.rev != b.rev {
		return a.rev > b.rev
	}
	return a.ID > b.ID
}

// oracle decides about each snapshot in the plainest way, which is slow.
func oracle(h history) map[backup.SnapshotID][]string {
	p := h.policy
	least := max(p.MinVerified, 1)
	rules := p.Last+p.Hourly+p.Daily+p.Weekly+p.Monthly+p.Yearly > 0 || p.Within > 0
	all := facts(h)
	badAhead := slices.ContainsFunc(all, func(o *fact) bool { return o.bad() && len(o.newer) == 0 })
	out := map[backup.SnapshotID][]string{}
	always := map[backup.SnapshotID]bool{}
	total := int64(0)
	for _, s := range all {
		var hold, weak []string
		rank := len(s.newer)
		age := h.now.Unix() - s.at
		if s.Pinned != "" {
			hold = append(hold, "pinned")
		}
		if age < -300 {
			hold = append(hold, "begun")
		} else if p.MinAge > 0 && age < int64(p.MinAge/time.Second) {
			hold = append(hold, "younger")
		}
		if s.counts && rank < least {
			hold = append(hold, "newest")
		}
		if s.bad() && rank < least {
			hold = append(hold, string(s.State))
		}
		if s.counts && badAhead {
			hold = append(hold, "a")
		}
		if !rules {
			weak = append(weak, "no")
		}
		if s.counts && rank < p.Last {
			weak = append(weak, "last")
		}
		if p.Within > 0 && age >= -300 {
			for _, o := range all {
				if o.counts && len(o.newer) == 0 && o.at-s.at < int64(p.Within/time.Second) {
					weak = append(weak, "within")
				}
			}
		}
		for _, r := range periods(p) {
			if s.counts && r.keeps(s) {
				weak = append(weak, r.name)
			}
		}
		reasons := append(hold, weak...)
		sort.Strings(reasons)
		always[s.ID] = len(hold) > 0
		out[s.ID] = append([]string{"true"}, reasons...)
		switch {
		case len(reasons) > 0:
			total += s.StoredBytes
		case s.bad():
			out[s.ID] = []string{"false", string(s.State)}
		default:
			out[s.ID] = []string{"false", "no"}
		}
	}
	for rules && p.MaxBytes > 0 && total > p.MaxBytes {
		var oldest *fact
		for _, s := range all {
			if out[s.ID][0] == "true" && !always[s.ID] && (oldest == nil || oldest.before(s)) {
				oldest = s
			}
		}
		if oldest == nil {
			break
		}
		total -= oldest.StoredBytes
		out[oldest.ID] = []string{"false", "over"}
	}
	return out
}

type period struct {
	name string
	n    int
	of   func(t time.Time) [3]int64
	loc  *time.Location
}

// keeps: nothing newer is in the period of s, and what is newer fills fewer than
// n periods.
func (r period) keeps(s *fact) bool {
	if r.n == 0 {
		return false
	}
	seen := map[[3]int64]bool{}
	for _, o := range s.newer {
		seen[r.of(time.Unix(o.at, 0).In(r.loc))] = true
	}
	return !seen[r.of(time.Unix(s.at, 0).In(r.loc))] && len(seen) < r.n
}

func periods(p retention.Policy) []period {
	loc := p.Location
	if loc == nil {
		loc = time.UTC
	}
	date := func(t time.Time) [3]int64 { return [3]int64{int64(t.Year()), int64(t.Month()), int64(t.Day())} }
	return []period{
		{"hourly", p.Hourly, func(t time.Time) [3]int64 {
			_, offset := t.Zone()
			local := t.Unix() + int64(offset)
			return [3]int64{(local - ((local%3600)+3600)%3600) / 3600, int64(offset)}
		}, loc},
		{"daily", p.Daily, date, loc},
		{"weekly", p.Weekly, func(t time.Time) [3]int64 {
			// The date of its Monday, counted in a zone without surprises.
			d := time.Date(t.Year(), t.Month(), t.Day(), 12, 0, 0, 0, time.UTC)
			for d.Weekday() != time.Monday {
				d = d.AddDate(0, 0, -1)
			}
			return date(d)
		}, loc},
		{
			"monthly", p.Monthly, func(t time.Time) [3]int64 { return [3]int64{int64(t.Year())*12 + int64(t.Month())} },
			loc,
		},
		{"yearly", p.Yearly, func(t time.Time) [3]int64 { return [3]int64{int64(t.Year())} }, loc},
	}
}
