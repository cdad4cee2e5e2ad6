package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

// A plan is what one job of the model is made of.
type plan struct {
	line    schedule.Line
	group   string
	retries int
	pause   time.Duration
	takes   []time.Duration // by number of the try, over and over
	fails   []bool
}

// A try is one call of Run.
type try struct {
	job        int
	begin, end time.Duration
	failed     bool
	why        schedule.Reason
}

// TestModel runs random jobs for a day and checks what must hold of any run.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		plans := rapid.SliceOfN(rapid.Custom(drawPlan), 1, 6).Draw(rt, "jobs")
		var tries []try
		var skew time.Duration
		synctest.Test(t, func(t *testing.T) { tries, skew = simulate(t, limit, plans) })
		if skew != 0 {
			rt.Fatalf("the day ended %s late", skew)
		}
		checkNoOverlap(rt, limit, plans, tries)
		checkEverySlot(rt, limit, plans, tries)
		checkRetries(rt, plans, tries)
	})
}

func drawPlan(t *rapid.T) plan {
	line := rapid.OneOf(
		rapid.SampledFrom([]string{"@hourly", "0 */6 * * *", "17,19 3-20 * * *", "*/7 * * * *", "5 5 5 * * *"}),
		rapid.Map(rapid.IntRange(200, 20000), func(n int) string { return fmt.Sprintf("@every %ds", n) }),
	).Draw(t, "line")
	n := rapid.IntRange(1, 5).Draw(t, "kinds of tries")
	return plan{
		line:    mustParse(t, line),
		group:   rapid.SampledFrom([]string{"", "", "x", "y"}).Draw(t, "group"),
		retries: rapid.IntRange(0, 5).Draw(t, "retries"),
		pause:   time.Duration(rapid.IntRange(0, 600).Draw(t, "pause")) * time.Second,
		takes: rapid.SliceOfN(rapid.Map(rapid.IntRange(0, 10000), func(n int) time.Duration {
			return time.Duration(n)*time.Second + 500*time.Millisecond // never ends with a slot
		}), n, n).Draw(t, "takes"),
		fails: rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "fails"),
	}
}

const modelDay = 24*time.Hour + 250*time.Millisecond

func simulate(t *testing.T, limit int, plans []plan) (tries []try, skew time.Duration) {
	start := time.Now()
	record := make(chan try, 1<<16)
	var jobs []schedule.Job
	for i, p := range plans {
		n := 0
		jobs = append(jobs, schedule.Job{
			Name: fmt.Sprint(i), Group: p.group, Line: p.line, Retries: p.retries, Pause: p.pause,
			New: does(func(ctx context.Context, why schedule.Reason) error {
				one := try{job: i, begin: time.Since(start), failed: p.fails[n%len(p.fails)], why: why}
				takes := p.takes[n%len(p.takes)]
				n++
				select {
				case <-time.After(takes):
				case <-ctx.Done():
				}
				one.end = time.Since(start)
				record <- one
				if one.failed {
					return errors.New("no luck")
				}
				return nil
			}),
		})
	}
	s := schedule.New(limit, slog.New(slog.NewTextHandler(io.Discard, nil)))
	s.Set(jobs)
	ctx, cancel := context.WithTimeout(t.Context(), modelDay)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	close(record)
	for one := range record {
		tries = append(tries, one)
	}
	slices.SortFunc(tries, func(a, b try) int { return int(a.begin - b.begin) })
	return tries, time.Since(start) - modelDay
}

// slotsOf returns when p is due on the day.
func slotsOf(p plan) (slots []time.Duration) {
	start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for next := p.line.Next(start); next.Sub(start) < modelDay; next = p.line.Next(next) {
		slots = append(slots, next.Sub(start))
	}
	return slots
}

// checkNoOverlap: never two of a job or of a group, never more than the limit.
func checkNoOverlap(t *rapid.T, limit int, plans []plan, tries []try) {
	var running []try
	for _, a := range tries {
		running = slices.DeleteFunc(running, func(b try) bool { return b.end <= a.begin })
		for _, b := range running {
			if a.job == b.job {
				t.Fatalf("job %d overlaps itself at %s", a.job, a.begin)
			}
			if g := plans[a.job].group; g != "" && g == plans[b.job].group {
				t.Fatalf("jobs %d and %d of group %s overlap at %s", a.job, b.job, g, a.begin)
			}
		}
		if running = append(running, a); len(running) > limit {
			t.Fatalf("%d run at %s, the limit is %d", len(running), a.begin, limit)
		}
	}
}

// checkEverySlot: a slot is served at once, or the job was at it, or it was held
// up by others until it was served or the day ended.
func checkEverySlot(t *rapid.T, limit int, plans []plan, tries []try) {
	for i, p := range plans {
		var mine []try
		for _, one := range tries {
			if one.job == i {
				mine = append(mine, one)
			}
		}
		slots := slotsOf(p)
		for _, slot := range slots {
			running := slices.ContainsFunc(mine, func(m try) bool { return m.begin <= slot && slot <= m.end })
			if running {
				continue
			}
			until := modelDay
			for _, m := range mine {
				if m.begin >= slot {
					until = m.begin
					break
				}
			}
			checkHeldUp(t, limit, plans, tries, i, slot, until)
		}
		first := 0
		for n, m := range mine {
			if m.why != schedule.Scheduled {
				t.Fatalf("job %d ran at %s because: %s", i, m.begin, m.why)
			}
			if n == 0 || !mine[n-1].failed {
				first++
			}
		}
		if first > len(slots) {
			t.Fatalf("job %d began %d runs in %d slots", i, first, len(slots))
		}
	}
}

// checkHeldUp: from slot on until then, others kept job i from running.
func checkHeldUp(t *rapid.T, limit int, plans []plan, tries []try, i int, from, until time.Duration) {
	for now := from; now < until; {
		at, group, next := 0, false, until
		for _, one := range tries {
			if one.begin <= now && now < one.end {
				at++
				group = group || plans[i].group != "" && plans[one.job].group == plans[i].group
				next = min(next, one.end)
			}
		}
		if at < limit && !group {
			for _, one := range tries {
				if one.end > from-5*time.Minute && one.begin < from+5*time.Minute {
					t.Logf("%+v", one)
				}
			}
			t.Fatalf("job %d with a slot at %s did not run at %s until %s, though it could", i, from, now, until)
		}
		now = next
	}
}

// checkRetries: a run is not tried more often than it may.
func checkRetries(t *rapid.T, plans []plan, tries []try) {
	slots := map[int][]time.Duration{}
	for i, p := range plans {
		slots[i] = slotsOf(p)
	}
	inARow := map[int]int{}
	last := map[int]try{}
	for _, one := range tries {
		before, any := last[one.job]
		// A slot between the two begins may have begun a run of its own.
		slot := slices.ContainsFunc(slots[one.job],
			func(s time.Duration) bool { return before.begin < s && s <= one.begin })
		if !any || !before.failed || slot {
			inARow[one.job] = 0
		}
		if inARow[one.job]++; inARow[one.job] > plans[one.job].retries+1 {
			t.Fatalf("job %d: try %d of a run at %s", one.job, inARow[one.job], one.begin)
		}
		last[one.job] = one
	}
}
