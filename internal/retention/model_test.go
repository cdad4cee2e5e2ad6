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
	time.Date(9996, 12, 31, 23, 59, 59, 0, time.UTC), // far away
}

var steps = []time.Duration{0, time.Second, time.Minute, 11 * time.Minute, 30 * time.Minute, time.Hour, 5 * time.Hour,
	23 * time.Hour, 24 * time.Hour, 6 * 24 * time.Hour, 37 * 24 * time.Hour, 400 * 24 * time.Hour}

var zones = []string{"", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns",
	"Pacific/Apia", "Asia/Kolkata", "America/Havana"}

// timelines of the random histories, in their order. Two writers began the second.
var timelines = []string{"t1-aaaaaa", "t2-bbbbbb", "t2-cccccc", "t10-aaaaaa"}

type history struct {
	policy retention.Policy
	all    []retention.Snapshot
	open   map[string]bool
	now    time.Time
}

func drawPolicy(t *rapid.T, locations map[string]*time.Location) retention.Policy {
	few := rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 7})
	span := rapid.SampledFrom(append([]time.Duration{0, 0}, steps...))
	return retention.Policy{
		Last: few.Draw(t, "last"), Hourly: few.Draw(t, "hourly"), Daily: few.Draw(t, "daily"),
		Weekly:  few.Draw(t, "weekly"),
		Monthly: few.Draw(t, "monthly"), Yearly: few.Draw(t, "yearly"), Within: span.Draw(t, "within"),
		MinVerified: rapid.IntRange(0, 4).Draw(t, "minVerified"), MinAge: span.Draw(t, "minAge"),
		MaxBytes:         rapid.SampledFrom([]int64{0, 0, 1, 500, 2000}).Draw(t, "maxBytes"),
		FreezeFor:        span.Draw(t, "freezeFor"),
		CountUnconfirmed: rapid.Bool().Draw(t, "countUnconfirmed"),
		Location:         locations[rapid.SampledFrom(zones).Draw(t, "zone")],
	}
}

func drawHistory(t *rapid.T, locations map[string]*time.Location) history {
	h := history{now: rapid.SampledFrom(begins).Draw(t, "now"), open: map[string]bool{}}
	h.policy = drawPolicy(t, locations)
	step := rapid.SampledFrom(steps)
	when := h.now.Add(rapid.SampledFrom([]time.Duration{
		0, 0, time.Second, 300 * time.Second, 301 * time.Second, time.Hour, 90 * 24 * time.Hour,
	}).Draw(t, "ahead"))
	bad := rapid.SampledFrom([]int{0, 0, 1, 5, 10}).Draw(t, "bad of ten")
	wrong := rapid.SampledFrom([]int{0, 0, 1, 3, 9}).Draw(t, "wrong of ten")
	line := rapid.IntRange(0, len(timelines)-1).Draw(t, "timeline") // the latest: the newest comes first
	open := rapid.SampledFrom([]int{0, 0, 5}).Draw(t, "open of ten")
	lasting := rapid.SampledFrom([]int{0, 0, 0, 12}).Draw(t, "lasting") // the trouble of the newest ones
	idle := rapid.Bool().Draw(t, "idle")
	for i := range rapid.IntRange(0, 30).Draw(t, "n") {
		s := retention.Snapshot{
			Timeline: timelines[line], Index: rapid.SampledFrom([]uint64{0, uint64(100 - i)}).Draw(t, "index"),
			State: backup.Verified, StoredBytes: rapid.Int64Range(0, 300).Draw(t, "bytes"),
		}
		began := when
		if rapid.IntRange(1, 10).Draw(t, "wrong") <= wrong {
			began = when.Add(rapid.SampledFrom([]time.Duration{-1, 1}).Draw(t, "sign") * step.Draw(t, "off"))
		}
		rev := rapid.SampledFrom([]int{5, 50, 1000}).Draw(t, "rev")
		if idle && i < lasting {
			rev = 50
		}
		s.ID = backup.SnapshotID(fmt.Sprintf("%s-r%d-%s", began.Format("20060102T150405Z"), rev,
			strings.Repeat(string(rune('a'+i%26)), 6)))
		if rapid.IntRange(1, 10).Draw(t, "bad") <= bad {
			s.State = rapid.SampledFrom([]backup.State{backup.Suspect, backup.Damaged, backup.Unconfirmed}).Draw(t,
				"state")
		}
		s.Doubtful = s.State == backup.Unconfirmed && rapid.Bool().Draw(t, "doubtful")
		s.Source = rapid.SampledFrom([]backup.MemberID{0, 1, 1, 1, 2}).Draw(t, "source")
		s.Content.Hash = rapid.SampledFrom([]uint32{0, 7, 7, 8}).Draw(t, "content")
		if i < lasting {
			s.State, s.Source = rapid.SampledFrom([]backup.State{backup.Suspect, backup.Suspect, backup.Unconfirmed}).Draw(t,
				"trouble"), rapid.SampledFrom([]backup.MemberID{1, 1, 1, 2}).Draw(t, "of")
			if s.Index = uint64(100 - i); idle {
				s.Index, s.Content.Hash = 100, 7
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "pinned") == 0 {
			s.Pinned = "reason"
		}
		h.all = append(h.all, s)
		when = when.Add(-step.Draw(t, "step"))
		if line > 0 && rapid.IntRange(0, 9).Draw(t, "older timeline") == 0 {
			line--
		}
		h.open[timelines[line]] = h.open[timelines[line]] || rapid.IntRange(1, 10).Draw(t, "open") <= open
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
	n, seen := 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt, locations)
		got := h.policy.Apply(h.all, h.open, h.now)
		want := oracle(h)
		for _, d := range got {
			if diff := cmp.Diff(want[d.ID], kinds(d)); diff != "" {
				rt.Fatalf("%s (- oracle, + Apply):\n%s\n%s", d.ID, diff, show(got))
			}
			count(seen, d)
		}
		checkAnswer(rt, h, got)
		n++
		shuffled := slices.Clone(h.all)
		rand.New(rand.NewPCG(uint64(n), 1)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		if diff := cmp.Diff(got, h.policy.Apply(shuffled, h.open, h.now)); diff != "" {
			rt.Fatalf("another order of the input:\n%s", diff)
		}
	})
	t.Logf("%d histories: %v", n, seen)
	if n < checks || seen["removed"] < n {
		t.Error("the histories are too tame")
	}
	for _, what := range []string{"over", "blocked", "frozen", "unconfirmed", "copies", "one a day"} {
		if few := map[string]int{"copies": 40, "one a day": 60}[what]; seen[what] < n/max(few, 10) {
			t.Errorf("%s: only %d of %d histories", what, seen[what], n)
		}
	}
}

// count counts the kinds of decisions.
func count(seen map[string]int, d retention.Decision) {
	if !d.Keep {
		seen["removed"]++
	}
	if strings.HasPrefix(d.Reasons[0], "over the limit") {
		seen["over"]++
	}
	for _, r := range d.Reasons {
		switch {
		case strings.Contains(r, ": the same content is in "):
			seen["copies"]++
		case strings.HasSuffix(r, ": one of this member a day is enough"):
			seen["one a day"]++
		case strings.HasPrefix(r, "a newer snapshot is "):
			seen["blocked"]++
		case strings.HasPrefix(r, "frozen: "):
			seen["frozen"]++
		case strings.HasPrefix(r, "unconfirmed: "):
			seen["unconfirmed"]++
		}
	}
}

// checkAnswer checks what must hold whatever the rules.
func checkAnswer(t *rapid.T, h history, got []retention.Decision) {
	if len(got) != len(h.all) {
		t.Fatalf("%d decisions about %d snapshots", len(got), len(h.all))
	}
	verified, kept := map[string]int{}, map[string]int{}
	frozen := map[string]bool{}
	for i, d := range got {
		if len(d.Reasons) == 0 {
			t.Fatalf("%s: no reason", d.ID)
		}
		if i > 0 && slices.Index(timelines, got[i-1].Timeline) < slices.Index(timelines, d.Timeline) {
			t.Fatalf("%s of %s comes after one of %s", d.ID, d.Timeline, got[i-1].Timeline)
		}
		if d.Pinned != "" && !d.Keep {
			t.Fatalf("%s is pinned, and goes", d.ID)
		}
		frozen[d.Timeline] = frozen[d.Timeline] || strings.Contains(strings.Join(d.Reasons, "; "), "frozen: ")
		counts := d.State == backup.Verified || d.State == backup.Unconfirmed && h.policy.CountUnconfirmed && !d.Doubtful
		if !counts || d.ID.Time().After(h.now.Add(5*time.Minute)) {
			continue
		}
		if verified[d.Timeline]++; verified[d.Timeline] == 1 && !d.Keep {
			t.Fatalf("%s is the furthest verified one of %s, and goes", d.ID, d.Timeline)
		}
		if d.Keep {
			kept[d.Timeline]++
		}
	}
	for timeline, n := range verified {
		if want := min(n, max(1, h.policy.MinVerified)); kept[timeline] < want {
			t.Fatalf("%d of %d verified snapshots of %s stay, want %d", kept[timeline], n, timeline, want)
		}
	}
	ahead := map[string]bool{}
	for _, d := range got {
		if d.State == backup.Suspect && verified[d.Timeline] == 0 && !ahead[d.Timeline] {
			if ahead[d.Timeline] = true; !d.Keep {
				t.Fatalf("%s is the furthest suspect one of %s, nothing is verified, and it goes", d.ID, d.Timeline)
			}
		}
		if frozen[d.Timeline] && !d.Keep {
			t.Fatalf("%s goes, of the frozen timeline %s", d.ID, d.Timeline)
		}
	}
	checkAgain(t, h, got)
}

// checkAgain: twice is as good as once, unless what is gone makes another clock
// credible.
func checkAgain(t *rapid.T, h history, got []retention.Decision) {
	var left []retention.Snapshot
	for i, d := range got {
		if i > 0 && got[i-1].ID.Time().Before(d.ID.Time()) {
			return
		}
		if d.Keep {
			left = append(left, d.Snapshot)
		}
	}
	for _, d := range h.policy.Apply(left, h.open, h.now) {
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
	own    int64 // its own time
	at     int64 // the time that fits the history of its timeline
	ofAll  int64 // the time that fits the history of all timelines
	rev    backup.Revision
	line   int
	future bool
	counts bool
	newer  []*fact // of those that count, in its timeline
}

// facts reads the ids, and finds the newer snapshots of each one.
func facts(h history) []*fact {
	var all []*fact
	for _, s := range h.all {
		own := s.ID.Time().Unix()
		f := &fact{Snapshot: s, own: own, rev: s.ID.Revision(), line: slices.Index(timelines, s.Timeline),
			future: own > h.now.Unix()+300}
		f.counts = !f.future &&
			(s.State == backup.Verified || h.policy.CountUnconfirmed && s.State == backup.Unconfirmed && !s.Doubtful)
		all = append(all, f)
	}
	sort.Slice(all, func(i, j int) bool { return all[j].before(all[i]) }) // the oldest first
	for i, at := range credible(all) {
		all[i].ofAll = at
	}
	for line := range timelines {
		var of []*fact
		for _, s := range all {
			if s.line == line {
				of = append(of, s)
			}
		}
		for i, at := range credible(of) {
			of[i].at = at
		}
		for _, s := range of {
			for _, o := range of {
				if o.counts && o.before(s) {
					s.newer = append(s.newer, o)
				}
			}
		}
	}
	return all
}

// credible returns the times that snapshots, the oldest first, count with. It
// compares whole sequences.
func credible(all []*fact) []int64 {
	var best []int                    // the best sequence of all
	upTo := map[int][]int{}           // the best that ends there
	better := func(a, b []int) bool { // longer, or later from the end on
		if len(a) != len(b) {
			return len(a) > len(b)
		}
		for i := len(a) - 1; i >= 0; i-- {
			if x, y := all[a[i]].own, all[b[i]].own; x != y {
				return x > y
			}
		}
		return false
	}
	for i, s := range all {
		if s.future {
			continue
		}
		var before []int
		for j := range i {
			if !all[j].future && all[j].own <= s.own && better(upTo[j], before) {
				before = upTo[j]
			}
		}
		upTo[i] = append(slices.Clone(before), i)
		if better(upTo[i], best) {
			best = upTo[i]
		}
	}
	out := make([]int64, len(all))
	for i, s := range all {
		out[i] = s.own
		for n, member := range best {
			if n == 0 || member <= i {
				out[i] = all[member].own
			}
		}
	}
	return out
}

func (a *fact) bad() bool { return a.State == backup.Suspect || a.State == backup.Damaged }

// before reports whether a is newer than b.
func (a *fact) before(b *fact) bool {
	if a.line != b.line {
		return a.line > b.line
	}
	if a.Index != b.Index {
		return a.Index > b.Index
	}
	if a.rev != b.rev {
		return a.rev > b.rev
	}
	if a.own != b.own {
		return a.own > b.own
	}
	return a.ID > b.ID
}

// isFrozen reports whether a timeline is frozen: a later one is open, and its first
// snapshot is young.
func isFrozen(h history, all []*fact, line int) bool {
	limit := h.policy.FreezeFor
	if limit == 0 {
		limit = 30 * 24 * time.Hour
	}
	for later := line + 1; later < len(timelines); later++ {
		for _, s := range all {
			if s.line == later { // its first one
				if h.open[s.Timeline] && h.now.Unix()-s.ofAll < int64(limit/time.Second) {
					return true
				}
				break
			}
		}
	}
	return false
}

// isBlocked reports whether a bad one is ahead of all that count, in the timeline or
// in all of them.
func isBlocked(all []*fact, line int) bool {
	ahead := func(of func(*fact) bool) bool {
		for i := len(all) - 1; i >= 0; i-- {
			if of(all[i]) && (all[i].counts || all[i].bad()) {
				return !all[i].counts
			}
		}
		return false
	}
	return ahead(func(*fact) bool { return true }) || ahead(func(s *fact) bool { return s.line == line })
}

// oracle decides about each snapshot in the plainest way, which is slow.
func oracle(h history) map[backup.SnapshotID][]string {
	p := h.policy
	rules := p.Last+p.Hourly+p.Daily+p.Weekly+p.Monthly+p.Yearly > 0 || p.Within > 0
	all := facts(h)
	out := map[backup.SnapshotID][]string{}
	always := map[backup.SnapshotID]bool{}
	total := int64(0)
	for _, s := range all {
		hold := holds(h, all, s)
		var weak []string
		if !rules {
			weak = append(weak, "no")
		}
		if s.counts && len(s.newer) < p.Last {
			weak = append(weak, "last")
		}
		if p.Within > 0 && !s.future {
			for _, o := range all {
				if o.line == s.line && o.counts && len(o.newer) == 0 && o.at-s.at < int64(p.Within/time.Second) {
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
		case s.State != backup.Verified && !s.counts:
			out[s.ID] = []string{"false", string(s.State)}
		default:
			out[s.ID] = []string{"false", "no"}
		}
	}
	for rules && p.MaxBytes > 0 && total > p.MaxBytes {
		i := slices.IndexFunc(all, func(s *fact) bool { return out[s.ID][0] == "true" && !always[s.ID] })
		if i < 0 {
			break
		}
		total -= all[i].StoredBytes
		out[all[i].ID] = []string{"false", "over"}
	}
	return out
}

// holds returns the reasons that no limit overrules.
func holds(h history, all []*fact, s *fact) (hold []string) {
	least := max(h.policy.MinVerified, 1)
	if isFrozen(h, all, s.line) {
		hold = append(hold, "frozen")
	}
	if s.Pinned != "" {
		hold = append(hold, "pinned")
	}
	if s.future {
		hold = append(hold, "begun")
	} else if age := h.now.Unix() - s.at; h.policy.MinAge > 0 && age < int64(h.policy.MinAge/time.Second) {
		hold = append(hold, "younger")
	}
	if s.counts && len(s.newer) < least {
		hold = append(hold, "newest")
	}
	if s.State != backup.Verified && !s.counts && len(s.newer) < least && !(len(hold) == 0 && isSpare(h, all, s)) {
		hold = append(hold, string(s.State))
	}
	if s.counts && isBlocked(all, s.line) {
		hold = append(hold, "a")
	}
	return hold
}

// isSpare reports whether others of a trouble that lasts are enough. s is held by nothing
// else.
func isSpare(h history, all []*fact, s *fact) bool {
	peer := func(o *fact) bool {
		alone := *o
		alone.State, alone.counts = backup.Verified, false // whatever else holds it
		return o.line == s.line && o.State == s.State && o.Source == s.Source && !o.counts && len(o.newer) == len(s.newer) &&
			len(holds(h, all, &alone)) == 0
	}
	if s.Source == 0 && s.Content == (backup.HashKV{}) || s.State == backup.Damaged || !peer(s) {
		return false
	}
	var peers []*fact
	for _, o := range all {
		if peer(o) {
			peers = append(peers, o)
		}
	}
	between := func(s *fact) bool { // two copies
		newer, older := false, false
		for _, o := range peers {
			if o != s && o.Index == s.Index && o.rev == s.rev && o.Content == s.Content && s.Content != (backup.HashKV{}) {
				newer, older = newer || o.before(s), older || s.before(o)
			}
		}
		return newer && older
	}
	if between(s) || s.State != backup.Suspect || s.Source == 0 {
		return between(s)
	}
	loc := h.policy.Location
	if loc == nil {
		loc = time.UTC
	}
	day := func(s *fact) string { return time.Unix(s.at, 0).In(loc).Format(time.DateOnly) }
	days, newer, older := map[string]bool{}, 0, 0
	for _, o := range peers {
		switch {
		case o == s || between(o):
		case o.before(s):
			days[day(o)] = true
			newer++
		default:
			older++
		}
	}
	return older > 0 && newer >= max(h.policy.MinVerified, 1) && (days[day(s)] || len(days) >= 30)
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
