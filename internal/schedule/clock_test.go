package schedule_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

// repository remembers when a job was last done, as a real one does.
type repository struct {
	b *bench

	mu   sync.Mutex
	last time.Time
	err  error
	asks int
}

func (r *repository) set(last time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.err = last, err
}

func (r *repository) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asks
}

func (r *repository) guard(j schedule.Job) schedule.Job {
	j.Last = func(context.Context) (time.Time, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asks++
		return r.last, r.err
	}
	run := j.New().(*run).try
	j.New = does(func(ctx context.Context, why schedule.Reason) error {
		began := r.b.wall()
		err := run(ctx, why)
		if err == nil {
			r.set(began, nil)
		}
		return err
	})
	return j
}

// epoch is when every bubble begins.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// guarded runs one job, named a, of which r says when it was last done, until
// the bubble ends.
func guarded(t *testing.T, line string, r *repository) *bench {
	t.Helper()
	b := newBench(t, 1)
	r.b = b
	b.Set([]schedule.Job{r.guard(b.job("a", line, 0))})
	b.run()
	t.Cleanup(b.stop)
	return b
}

func TestCatchUp(t *testing.T) {
	bubble(t, "a run that was missed", func(t *testing.T) {
		b := guarded(t, "30 * * * *", &repository{last: epoch.Add(-61 * time.Minute)})
		pass(time.Hour)
		b.want("0s a caught up", "30m0s a scheduled")
	})
	bubble(t, "none before, which is none that was missed", func(t *testing.T) {
		b := guarded(t, "30 * * * *", &repository{})
		b.want("0s a caught up")
		log := b.logged.String()
		if !strings.Contains(log, "there was no run yet, and one begins") || strings.Contains(log, "0001-01-01") {
			t.Errorf("logged: %s", log)
		}
	})
	bubble(t, "many that were missed, once", func(t *testing.T) {
		b := newBench(t, 1)
		r := &repository{b: b, last: b.start.AddDate(-1, 0, 0)}
		b.Set([]schedule.Job{r.guard(b.job("a", "* * * * * *", time.Hour))})
		b.run()
		defer b.stop()
		pass(time.Minute)
		b.want("0s a caught up")
	})
	bubble(t, "none was missed", func(t *testing.T) {
		b := guarded(t, "30 * * * *", &repository{last: epoch.Add(-25 * time.Minute)})
		pass(31 * time.Minute)
		b.want("30m0s a scheduled")
	})
	for line, most := range map[string]time.Duration{"@every 40s": 2 * time.Second, "@daily": time.Minute} {
		bubble(t, "not as soon as the process has started, "+line, func(t *testing.T) {
			b := newBench(t, 1)
			b.Brake = time.Minute
			r := &repository{b: b, last: b.start.AddDate(0, 0, -2)}
			b.Set([]schedule.Job{r.guard(b.job("a", line, 0))})
			b.run()
			defer b.stop()
			pass(most/2 - time.Second/10)
			b.want()
			pass(most/2 + time.Second/10)
			if s := b.state("a"); s.Started.IsZero() || len(b.lines()) != 1 {
				t.Errorf("not caught up: %+v", s)
			}
		})
	}
	bubble(t, "never done, so at once", func(t *testing.T) {
		b := newBench(t, 1)
		b.Brake = time.Minute
		r := &repository{b: b}
		b.Set([]schedule.Job{r.guard(b.job("a", "@daily", 0))})
		b.run()
		defer b.stop()
		pass(time.Second)
		b.want("0s a caught up")
	})
	bubble(t, "a process that is started again and again", func(t *testing.T) {
		runs := 0
		for range 100 {
			b := newBench(t, 1)
			b.Brake = time.Minute
			r := &repository{b: b, last: epoch.AddDate(0, 0, -2)}
			j := b.job("a", "@daily", time.Hour) // which it never lives to see the end of
			try := j.New().(*run).try
			j.New = does(func(ctx context.Context, why schedule.Reason) error {
				runs++
				return try(ctx, why)
			})
			j.Last = func(context.Context) (time.Time, error) { return r.last, nil }
			b.Set([]schedule.Job{j})
			b.run()
			pass(10 * time.Second)
			b.stop()
		}
		if runs > 0 {
			t.Errorf("%d runs", runs)
		}
	})
	bubble(t, "never done", func(t *testing.T) {
		b := guarded(t, "@yearly", &repository{})
		pass(time.Minute)
		b.want("0s a caught up")
	})
	bubble(t, "distances count from the last time", func(t *testing.T) {
		b := guarded(t, "@every 6h", &repository{last: epoch.Add(-5 * time.Hour)})
		pass(8 * time.Hour)
		b.want("1h0m0s a scheduled", "7h0m0s a scheduled")
	})
	for _, line := range []string{"30 * * * *", "@every 30m"} {
		bubble(t, "a last time in the future, "+line, func(t *testing.T) {
			b := guarded(t, line, &repository{last: epoch.AddDate(3, 0, 0)})
			pass(31 * time.Minute)
			b.want("30m0s a scheduled")
		})
	}
	bubble(t, "the store is down, and comes back", func(t *testing.T) {
		r := &repository{last: epoch.AddDate(0, 0, -2), err: errors.New("connection refused")}
		b := guarded(t, "@daily", r)
		pass(time.Hour)
		b.want()
		if n := r.asked(); n < 60/8 || n > 30 {
			t.Errorf("asked %d times in an hour", n)
		}
		r.set(b.start.AddDate(0, 0, -2), nil)
		pass(8 * time.Minute)
		if len(b.lines()) != 1 || b.state("a").Started.Before(b.start.Add(time.Hour)) {
			t.Errorf("not caught up: %q", b.lines())
		}
		asks := r.asked()
		pass(time.Hour)
		if r.asked() != asks {
			t.Error("asked on after the answer")
		}
	})
	bubble(t, "the store is down, and the schedule goes on", func(t *testing.T) {
		r := &repository{err: errors.New("connection refused")}
		b := guarded(t, "@hourly", r)
		pass(61 * time.Minute)
		b.want("1h0m0s a scheduled")
		// A slot that was served meanwhile is not caught up.
		r.set(b.start.AddDate(0, 0, -2), nil)
		pass(10 * time.Minute)
		b.want()
	})
	bubble(t, "a question that hangs is asked again", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.job("a", "@daily", 0)
		asked := 0
		j.Last = func(ctx context.Context) (time.Time, error) {
			if asked++; asked == 1 {
				<-ctx.Done()
				return time.Time{}, ctx.Err()
			}
			if asked == 2 {
				panic("oh")
			}
			return time.Time{}, nil
		}
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(6 * time.Minute)
		if len(b.lines()) != 1 {
			t.Errorf("not caught up: %q", b.lines())
		}
	})
}

func TestClock(t *testing.T) {
	bubble(t, "a suspended host catches up once", func(t *testing.T) {
		b := newBench(t, 1)
		r := &repository{b: b, last: b.start}
		b.Set([]schedule.Job{r.guard(b.job("a", "@hourly", 0)), b.job("never caught up", "@hourly", 0)})
		b.run()
		defer b.stop()
		pass(45 * time.Minute)
		b.putClock(10 * time.Hour) // now 10:45
		pass(time.Minute)
		if len(b.lines()) != 1 || b.state("a").Started.Before(b.start.Add(10*time.Hour)) {
			t.Errorf("not caught up once: %q", b.lines())
		}
		b.forget()
		pass(25 * time.Minute) // 11:11
		if len(b.lines()) != 2 {
			t.Errorf("the schedule does not go on: %q", b.lines())
		}
	})
	bubble(t, "a host that is suspended during a run catches up after it", func(t *testing.T) {
		b := newBench(t, 1)
		r := &repository{b: b, last: b.start}
		b.Set([]schedule.Job{r.guard(b.job("a", "@hourly", 10*time.Minute))})
		b.run()
		defer b.stop()
		pass(65 * time.Minute)
		b.putClock(10 * time.Hour) // now 11:05
		pass(20 * time.Minute)
		b.want("1h0m0s a scheduled", "1h10m0s a caught up")
		pass(40 * time.Minute)
		b.want("2h0m0s a scheduled")
	})
	bubble(t, "a suspended host in which another did the job", func(t *testing.T) {
		r := &repository{last: epoch}
		b := guarded(t, "@hourly", r)
		pass(45 * time.Minute)
		b.putClock(10 * time.Hour)
		r.set(b.start.Add(10*time.Hour+time.Minute), nil)
		pass(time.Minute)
		b.want()
	})
	bubble(t, "a jump that passes no slot is a reason to ask", func(t *testing.T) {
		r := &repository{last: epoch}
		b := guarded(t, "@hourly", r)
		pass(time.Minute)
		for i, by := range []time.Duration{20 * time.Minute, -20 * time.Minute} {
			b.putClock(by)
			pass(time.Minute)
			if n := r.asked(); n != i+2 {
				t.Errorf("asked %d times after %d jumps", n, i+1)
			}
		}
		b.want()
	})
	bubble(t, "a wrong clock is put right", func(t *testing.T) {
		// At start it is 2000, and the repository says 2026.
		b := guarded(t, "@weekly", &repository{last: epoch.AddDate(26, 0, 0)})
		pass(time.Minute)
		b.want()
		b.putClock(b.start.AddDate(26, 0, 10).Sub(b.start))
		pass(time.Minute)
		if len(b.lines()) != 1 {
			t.Errorf("not caught up: %q", b.lines())
		}
	})
	for _, line := range []string{"@hourly", "@every 1h"} {
		bubble(t, "put back: not silent, no storm, "+line, func(t *testing.T) {
			b := guarded(t, line, &repository{last: epoch})
			pass(210 * time.Minute)
			b.putClock(-48 * time.Hour)
			pass(31 * time.Minute)
			if n := len(b.lines()); n != 4 {
				t.Errorf("%d runs, want three before and one after: %q", n, b.lines())
			}
			pass(3 * time.Hour)
			if n := len(b.lines()); n != 7 {
				t.Errorf("%d runs, want 7: %q", n, b.lines())
			}
		})
		bubble(t, "put to and fro: no storm, "+line, func(t *testing.T) {
			b := guarded(t, line, &repository{last: epoch})
			for range 180 {
				b.putClock(3 * time.Hour)
				pass(time.Minute)
				b.putClock(-3 * time.Hour)
				pass(time.Minute)
			}
			if n := len(b.lines()); n < 3 || n > 30 {
				t.Errorf("%d runs in six hours: %q", n, b.lines())
			}
		})
	}
	bubble(t, "a process that was stopped runs late what it may", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{b.job("a", "@hourly", 0)})
		b.run()
		defer b.stop()
		pass(59*time.Minute + 45*time.Second)
		b.putClock(50 * time.Second) // less than a jump
		pass(time.Minute)
		if len(b.lines()) != 1 {
			t.Errorf("%q", b.lines())
		}
	})
}

// TestCalendar: changes of clocks, and the end of a clock of 32 bits, lose no slot and
// double none.
func TestCalendar(t *testing.T) {
	for _, c := range []struct {
		name, now, line string
		want            []string
	}{
		{"a skipped hour", "2026-03-29T00:30:00Z", "CRON_TZ=Europe/Berlin 30 2 * * *",
			[]string{"30m0s a scheduled", "24h0m0s a scheduled"}},
		{"an hour that comes twice", "2026-10-25T00:00:00Z", "CRON_TZ=Europe/Berlin 30 2 * * *",
			[]string{"30m0s a scheduled", "25h30m0s a scheduled"}},
		{"2038", "2038-01-19T03:00:00Z", "*/10 3 * * *",
			[]string{"10m0s a scheduled", "20m0s a scheduled", "30m0s a scheduled", "40m0s a scheduled", "50m0s a scheduled",
				"24h0m0s a scheduled", "24h10m0s a scheduled", "24h20m0s a scheduled", "24h30m0s a scheduled",
				"24h40m0s a scheduled", "24h50m0s a scheduled"}},
		{"2038 by distances", "2038-01-19T03:00:00Z", "@every 10h",
			[]string{"10h0m0s a scheduled", "20h0m0s a scheduled"}},
	} {
		bubble(t, c.name, func(t *testing.T) {
			b := newBench(t, 1)
			now, err := time.Parse(time.RFC3339, c.now)
			if err != nil {
				t.Fatal(err)
			}
			b.putClock(now.Sub(b.start))
			r := &repository{b: b, last: now}
			b.Set([]schedule.Job{r.guard(b.job("a", c.line, 0))})
			b.run()
			defer b.stop()
			pass(26 * time.Hour)
			b.want(c.want...)
		})
	}
}

func TestSet(t *testing.T) {
	bubble(t, "what is the same goes on", func(t *testing.T) {
		b := newBench(t, 2)
		b.Set([]schedule.Job{b.job("a", "@every 1h", 10*time.Minute), b.job("b", "@every 1h", 0)})
		b.run()
		defer b.stop()
		pass(30 * time.Minute)
		b.Set([]schedule.Job{b.job("a", "@every 1h", 20*time.Minute), b.job("b", "@every 15m", 0),
			b.job("c", "@every 45m", 0)})
		pass(31 * time.Minute)
		b.want("45m0s b scheduled", "1h0m0s a scheduled", "1h0m0s b scheduled")
		pass(15 * time.Minute)
		b.want("1h15m0s b scheduled", "1h15m0s c scheduled")
		if !b.state("a").Running {
			t.Error("the new function is not used")
		}
	})
	bubble(t, "a plan that moves nearer is seen at once", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{b.job("a", "@yearly", 0)})
		b.run()
		defer b.stop()
		pass(time.Second)
		b.Set([]schedule.Job{b.job("a", "@every 1s", 0)})
		pass(1500 * time.Millisecond)
		b.want("2s a scheduled")
	})
	bubble(t, "new jobs catch up, and others do not", func(t *testing.T) {
		b := newBench(t, 2)
		old := &repository{b: b, last: b.start}
		b.Set([]schedule.Job{old.guard(b.job("old", "@daily", 0))})
		b.run()
		defer b.stop()
		pass(time.Minute)
		never := &repository{b: b}
		b.Set([]schedule.Job{old.guard(b.job("old", "@daily", 0)), never.guard(b.job("new", "@daily", 0))})
		pass(time.Minute)
		b.want("1m0s new caught up")
		if n := old.asked(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
	bubble(t, "a removed job finishes its run and is not started again", func(t *testing.T) {
		b := newBench(t, 1)
		failing := b.failing("failing", "@hourly", 9)
		failing.Retries, failing.Pause, failing.Group = 9, time.Minute, "x"
		waiting, running := b.job("waiting", "2 0 1 1 1 *", 0), b.job("running", "1 0 1 1 1 *", 10*time.Minute)
		hanging := b.job("hanging", "@daily", 0)
		var asks atomic.Int32
		hanging.Last = func(ctx context.Context) (time.Time, error) {
			asks.Add(1)
			<-ctx.Done()
			return time.Time{}, ctx.Err()
		}
		b.Set([]schedule.Job{failing, running, waiting, hanging})
		b.run()
		defer b.stop()
		pass(time.Hour + 3*time.Second)
		b.Set(nil)
		synctest.Wait()
		asked := asks.Load()
		if err := b.Trigger("running", nil); !errors.Is(err, schedule.ErrUnknown) {
			t.Errorf("triggered: %v", err)
		}
		if s := b.States(); len(s) != 1 || s[0].Name != "running" || !s[0].Next.IsZero() {
			t.Errorf("states %+v", s)
		}
		pass(10 * time.Minute)
		if s := b.States(); len(s) != 0 {
			t.Errorf("states %+v", s)
		}
		pass(2 * time.Hour)
		b.want("1h0m0s failing scheduled", "1h0m1s running scheduled")
		if n := asks.Load(); n != asked || n == 0 {
			t.Errorf("asked %d times, then %d times", asked, n)
		}
	})
	bubble(t, "a job that comes back does not overlap its old run", func(t *testing.T) {
		b := newBench(t, 5)
		b.Set([]schedule.Job{b.job("a", "@hourly", 90*time.Minute)})
		b.run()
		defer b.stop()
		pass(61 * time.Minute)
		b.Set(nil)
		pass(time.Minute)
		b.Set([]schedule.Job{b.job("a", "@hourly", 0)})
		if err := b.Trigger("a", nil); !errors.Is(err, schedule.ErrRunning) {
			t.Errorf("triggered: %v", err)
		}
		pass(2 * time.Hour)
		b.want("1h0m0s a scheduled", "3h0m0s a scheduled")
	})
	bubble(t, "a run by hand takes the place of one that pauses", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@hourly", 9)
		j.Retries, j.Pause = 3, time.Minute
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(time.Hour + time.Second)
		mended := does(func(_ context.Context, why schedule.Reason) error { b.note("mended %s", why); return nil })
		if err := b.Trigger("a", given(ends(mended, func(err error) { b.note("done %v", err) }))); err != nil {
			t.Error(err)
		}
		pass(time.Minute)
		b.want("1h0m0s a scheduled", "1h0m1s done <nil>", "1h0m1s mended manual")
	})
	bubble(t, "a run by hand whose turn never comes ends with an error", func(t *testing.T) {
		b := newBench(t, 1)
		long := b.job("long", "@hourly", 3*time.Hour)
		b.Set([]schedule.Job{long, b.job("a", "", 0)})
		b.run()
		defer b.stop()
		pass(time.Hour + time.Second)
		run := ends(does(nil), func(err error) { b.note("done %v", errors.Is(err, schedule.ErrNotRun)) })
		if err := b.Trigger("a", given(run)); err != nil {
			t.Error(err)
		}
		b.Set([]schedule.Job{long})
		pass(time.Minute)
		b.want("1h0m0s long scheduled", "1h0m1s done true")
	})
	t.Run("two of one name", func(t *testing.T) {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		b := newBench(t, 1)
		b.Set([]schedule.Job{{Name: "a"}, {Name: "a"}})
	})
}
