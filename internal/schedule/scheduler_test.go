package schedule_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A bubble's clock begins at 2000-01-01T00:00:00Z.

// bench runs a scheduler in a bubble and writes down what it does.
type bench struct {
	*schedule.Scheduler
	logged bytes.Buffer // read it when nothing runs
	t      *testing.T
	start  time.Time
	cancel context.CancelFunc
	done   chan error

	mu    sync.Mutex
	log   []string
	at    []time.Duration // of the log's lines
	shift time.Duration
}

func newBench(t *testing.T, limit int) *bench {
	t.Helper()
	b := &bench{t: t, start: time.Now(), done: make(chan error, 1)}
	b.Scheduler = schedule.New(limit, slog.New(slog.NewTextHandler(&b.logged, nil)))
	b.Scheduler.Wall, b.Scheduler.Brake = b.wall, 0
	return b
}

// wall is the clock on the wall, which may be put on and back.
func (b *bench) wall() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Round(0).Add(b.shift)
}

func (b *bench) putClock(by time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shift += by
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.cancel = cancel
	go func() { b.done <- b.Run(ctx) }()
	synctest.Wait()
}

func (b *bench) stop() {
	b.t.Helper()
	b.cancel()
	if err := <-b.done; err != nil {
		b.t.Error(err)
	}
}

// note writes down what happens and when, by the clock that cannot be put.
func (b *bench) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	line, at := fmt.Sprintf("%s %s", time.Since(b.start), fmt.Sprintf(format, args...)), time.Since(b.start)
	i := len(b.log)
	for i > 0 && b.at[i-1] == at && b.log[i-1] > line { // what happens at once has no order
		i--
	}
	b.log, b.at = slices.Insert(b.log, i, line), slices.Insert(b.at, i, at)
}

func (b *bench) want(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if diff := cmp.Diff(want, b.log, cmpopts.EquateEmpty()); diff != "" {
		b.t.Errorf("what happened (-want +got):\n%s", diff)
	}
	b.log, b.at = nil, nil
}

func (b *bench) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log, b.at = nil, nil
}

// lines returns what was written down.
func (b *bench) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.log)
}

// pass lets time pass, and all be done that was to be done in it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) state(name string) schedule.State {
	b.t.Helper()
	states := b.States()
	i := slices.IndexFunc(states, func(s schedule.State) bool { return s.Name == name })
	if i < 0 {
		b.t.Fatalf("no state of %s", name)
	}
	return states[i]
}

// job takes a time and notes it.
func (b *bench) job(name, line string, takes time.Duration) schedule.Job {
	j := schedule.Job{Name: name, New: does(func(ctx context.Context, why schedule.Reason) error {
		b.note("%s %s", name, why)
		select {
		case <-time.After(takes):
			return nil
		case <-ctx.Done():
			b.note("%s cancelled", name)
			return ctx.Err()
		}
	})}
	if line != "" {
		j.Line = mustParse(b.t, line)
	}
	return j
}

// run is a run made of functions.
type run struct {
	try  func(context.Context, schedule.Reason) error
	done func(error)
	free func()
}

func (r *run) Try(ctx context.Context, why schedule.Reason, turn *schedule.Turn) error {
	if err := turn.Take(ctx); err != nil {
		return err
	}
	turn.Moved(true)
	return r.try(ctx, why)
}

func (r *run) Free() {
	if r.free != nil {
		r.free()
	}
}

func (r *run) Done(err error) {
	if r.done != nil {
		r.done(err)
	}
}

func does(try func(context.Context, schedule.Reason) error) func() schedule.Run {
	return func() schedule.Run { return &run{try: try} }
}

// given is a run for Trigger.
func given(make func() schedule.Run) func(schedule.Run) schedule.Run {
	return func(schedule.Run) schedule.Run { return make() }
}

// ends makes runs as before whose results are reported.
func ends(before func() schedule.Run, done func(error)) func() schedule.Run {
	return func() schedule.Run {
		r := before().(*run)
		r.done = done
		return r
	}
}

// failing fails n times, at once.
func (b *bench) failing(name, line string, n int) schedule.Job {
	j := b.job(name, line, 0)
	j.New = does(func(_ context.Context, why schedule.Reason) error {
		b.note("%s %s", name, why)
		if n--; n >= 0 {
			return errors.New("no luck")
		}
		return nil
	})
	return j
}

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

func TestSlots(t *testing.T) {
	bubble(t, "on time", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{b.job("a", "@hourly", time.Minute)})
		b.run()
		defer b.stop()
		if got := b.state("a").Next; !got.Equal(b.start.Add(time.Hour)) {
			t.Errorf("next run %s", got)
		}
		pass(2*time.Hour + 30*time.Second)
		b.want("1h0m0s a scheduled", "2h0m0s a scheduled")
		s := b.state("a")
		if !s.Running || s.Attempt != 1 || !s.Started.Equal(b.start.Add(2*time.Hour)) ||
			!s.Ended.Equal(b.start.Add(time.Hour+time.Minute)) {
			t.Errorf("state %+v", s)
		}
	})
	bubble(t, "a slot that comes while the job runs is skipped", func(t *testing.T) {
		b := newBench(t, 5)
		b.Set([]schedule.Job{b.job("a", "@hourly", 150*time.Minute)})
		b.run()
		defer b.stop()
		pass(5*time.Hour + time.Minute)
		b.want("1h0m0s a scheduled", "4h0m0s a scheduled")
	})
	bubble(t, "jitter", func(t *testing.T) {
		b := newBench(t, 1)
		var delays []time.Duration
		j := b.job("a", "@hourly", 0)
		j.Jitter = 10 * time.Minute
		j.New = does(func(context.Context, schedule.Reason) error {
			delays = append(delays, time.Since(b.start)%time.Hour)
			return nil
		})
		b.Set([]schedule.Job{j})
		b.run()
		pass(101 * time.Hour)
		b.stop()
		if len(delays) < 100 || slices.Max(delays) > 10*time.Minute || slices.Max(delays) < 5*time.Minute ||
			slices.Min(delays) > 5*time.Minute {
			t.Errorf("%d runs, delayed %s to %s", len(delays), slices.Min(delays), slices.Max(delays))
		}
	})
	bubble(t, "jitter loses no slot", func(t *testing.T) {
		b := newBench(t, 1)
		n := 0
		j := b.job("a", "@every 1m", 0)
		j.Jitter = 24 * time.Hour
		j.New = does(func(context.Context, schedule.Reason) error { n++; return nil })
		b.Set([]schedule.Job{j})
		b.run()
		pass(24 * time.Hour)
		b.stop()
		if n < 24*60-2 || n > 24*60 {
			t.Errorf("%d runs a day", n)
		}
	})
	bubble(t, "a job without a line waits to be triggered", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.job("a", "", 0)
		j.Last = func(context.Context) (time.Time, error) { return time.Time{}, nil }
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(1000 * time.Hour)
		b.want()
		if next := b.state("a").Next; !next.IsZero() {
			t.Errorf("next %s", next)
		}
	})
}

func TestTurns(t *testing.T) {
	bubble(t, "a limit, and who waits longest is next", func(t *testing.T) {
		b := newBench(t, 2)
		b.Set([]schedule.Job{
			b.job("e", "0 1 1 1 *", 10*time.Minute), b.job("d", "1 1 1 1 *", 10*time.Minute),
			b.job("c", "2 1 1 1 *", 10*time.Minute),
			b.job("b", "3 1 1 1 *", 10*time.Minute), b.job("a", "4 1 1 1 *", 10*time.Minute),
		})
		b.run()
		defer b.stop()
		pass(65 * time.Minute)
		if s := b.state("c"); !s.Waiting {
			t.Errorf("state %+v", s)
		}
		if err := b.Trigger("c", nil); !errors.Is(err, schedule.ErrRunning) {
			t.Errorf("triggered while it waits: %v", err)
		}
		pass(2 * time.Hour)
		b.want("1h0m0s e scheduled", "1h1m0s d scheduled", "1h10m0s c scheduled", "1h11m0s b scheduled",
			"1h20m0s a scheduled")
	})
	bubble(t, "one of a group at a time, which holds up nobody else", func(t *testing.T) {
		b := newBench(t, 2)
		backup, verify, other := b.job("backup", "0 * * * *", 20*time.Minute),
			b.job("verify", "5 * * * *", time.Minute),
			b.job("other", "10 * * * *", time.Minute)
		backup.Group, verify.Group = "x", "x"
		b.Set([]schedule.Job{backup, verify, other})
		b.run()
		defer b.stop()
		pass(90 * time.Minute)
		b.want("5m0s verify scheduled", "10m0s other scheduled", "1h0m0s backup scheduled", "1h10m0s other scheduled",
			"1h20m0s verify scheduled")
	})
	bubble(t, "what waits is not queued twice", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{b.job("long", "59 0 1 1 *", 3*time.Hour-30*time.Second),
			b.job("short", "@every 30m", time.Minute)})
		b.run()
		defer b.stop()
		pass(301 * time.Minute)
		b.want("30m0s short scheduled", "59m0s long scheduled", "3h58m30s short scheduled",
			"4h0m0s short scheduled", "4h30m0s short scheduled",
			"5h0m0s short scheduled")
	})
	bubble(t, "a higher limit takes effect at once", func(t *testing.T) {
		b := newBench(t, 0) // which is one
		b.Set([]schedule.Job{b.job("a", "0 0-9 * * *", 10*time.Minute), b.job("b", "1 0-9 * * *", 10*time.Minute),
			b.job("c", "2 0-9 * * *", 10*time.Minute)})
		b.run()
		defer b.stop()
		pass(63 * time.Minute)
		b.SetLimit(2)
		pass(20 * time.Minute)
		b.want("1m0s b scheduled", "11m0s c scheduled", "1h0m0s a scheduled", "1h3m0s b scheduled",
			"1h10m0s c scheduled")
	})
}

func TestRetries(t *testing.T) {
	bubble(t, "with growing pauses, until it works", func(t *testing.T) {
		b := newBench(t, 1)
		var at []time.Duration
		j := b.failing("a", "@daily", 3)
		run := j.New().(*run).try
		j.New = does(func(ctx context.Context, why schedule.Reason) error {
			at = append(at, time.Since(b.start)-24*time.Hour)
			return run(ctx, why)
		})
		j.Retries = 5
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(25 * time.Hour)
		if s := b.state("a"); s.Err != nil || s.Failures != 0 || s.Running || len(at) != 4 {
			t.Fatalf("state %+v after tries at %s", s, at)
		}
		for i, base := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
			if d := at[i+1] - at[i]; d < base/2 || d > base*3/2 {
				t.Errorf("pause %d is %s, want about %s", i+1, d, base)
			}
		}
	})
	bubble(t, "are bounded", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@daily", 1000)
		j.Retries, j.Pause = 20, time.Minute
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(24*time.Hour + 21*5*time.Minute)
		s := b.state("a")
		if s.Running || s.Failures != 1 || s.Err == nil || s.Err.Error() != "no luck" {
			t.Errorf("state %+v", s)
		}
		if len(b.lines()) != 21 {
			t.Errorf("%d tries, want 21", len(b.lines()))
		}
		pass(24 * time.Hour)
		if s := b.state("a"); s.Failures != 2 {
			t.Errorf("%d failures in a row", s.Failures)
		}
	})
	bubble(t, "end where the next slot begins", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@every 10m", 1000)
		j.Retries, j.Pause = 1000, 15*time.Minute // cut to at most 5 minutes
		b.Set([]schedule.Job{j})
		b.run()
		pass(24*time.Hour + time.Second)
		b.stop()
		slots := 0
		for _, l := range b.lines() {
			var d time.Duration
			if d, _ = time.ParseDuration(l[:len(l)-len(" a scheduled")]); d%(10*time.Minute) == 0 {
				slots++
			}
		}
		if slots != 24*6 || len(b.lines()) <= slots {
			t.Errorf("%d of 144 slots began in time, with %d tries", slots, len(b.lines()))
		}
	})
	bubble(t, "the job gets its result once, after all of them", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@hourly", 3)
		j.Retries, j.Pause = 1, time.Nanosecond
		j.New = ends(j.New, func(err error) {
			b.note("done %v", err)
			panic("oh") // is no reason to end
		})
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(121 * time.Minute)
		var got []string
		for _, line := range b.lines() {
			_, line, _ = strings.Cut(line, " ")
			got = append(got, line)
		}
		if diff := cmp.Diff([]string{"a scheduled", "a scheduled", "done no luck", "a scheduled", "a scheduled",
			"done <nil>"}, got); diff != "" {
			t.Error(diff)
		}
	})
	bubble(t, "let others run in the pauses", func(t *testing.T) {
		b := newBench(t, 1)
		down := b.failing("down", "0 1 1 1 *", 1000)
		down.Retries, down.Pause, down.Group = 3, 5*time.Minute, "x"
		up := b.job("up", "1 1 1 1 *", time.Second)
		up.Group = "x"
		b.Set([]schedule.Job{down, up})
		b.run()
		defer b.stop()
		pass(62 * time.Minute)
		b.want("1h0m0s down scheduled", "1h1m0s up scheduled")
		if s := b.state("down"); !s.Running || s.Attempt != 1 {
			t.Errorf("state %+v", s)
		}
	})
	bubble(t, "not of permanent errors", func(t *testing.T) {
		b := newBench(t, 1)
		cause := errors.New("no such role")
		j := b.job("a", "@hourly", 0)
		j.Retries = 5
		j.New = does(func(context.Context, schedule.Reason) error {
			b.note("a")
			return fmt.Errorf("survey: %w", schedule.Permanent(cause))
		})
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(90 * time.Minute)
		b.want("1h0m0s a")
		if s := b.state("a"); !errors.Is(s.Err, cause) || s.Err.Error() != "survey: no such role" {
			t.Errorf("state %+v", s)
		}
		if schedule.Permanent(nil) != nil {
			t.Error("Permanent(nil) is an error")
		}
	})
	bubble(t, "a panic is a failure", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.job("a", "@hourly", 0)
		j.New = does(func(context.Context, schedule.Reason) error { panic("oh") })
		b.Set([]schedule.Job{j, b.job("b", "@hourly", 0)})
		b.run()
		defer b.stop()
		pass(2*time.Hour + time.Minute)
		b.want("1h0m0s b scheduled", "2h0m0s b scheduled")
		if s := b.state("a"); s.Failures != 2 || s.Err == nil || s.Err.Error() != "panic: oh" {
			t.Errorf("state %+v", s)
		}
	})
	bubble(t, "a time-out bounds all tries", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@hourly", 1)
		first := j.New().(*run).try
		j.New = does(func(ctx context.Context, why schedule.Reason) error {
			if err := first(ctx, why); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		j.Retries, j.Timeout = 5, 20*time.Minute
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(80*time.Minute - time.Second)
		if !b.state("a").Running {
			t.Error("ended before its time-out")
		}
		pass(2 * time.Second)
		s := b.state("a")
		if s.Running || !errors.Is(s.Err, context.DeadlineExceeded) || s.Failures != 1 {
			t.Errorf("state %+v", s)
		}
		want := "the run took longer than its time-out of 20m0s: context deadline exceeded"
		if s.Err != nil && s.Err.Error() != want {
			t.Errorf("error %q", s.Err)
		}
	})
	bubble(t, "a time-out ends a pause", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@hourly", 1000)
		j.Retries, j.Pause, j.Timeout = 5, 5*time.Minute, time.Second
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(time.Hour + 2*time.Second)
		b.want("1h0m0s a scheduled")
		if s := b.state("a"); s.Running || s.Failures != 1 || s.Err.Error() != "no luck" {
			t.Errorf("state %+v", s)
		}
	})
}

func TestTrigger(t *testing.T) {
	bubble(t, "runs at once, and the schedule stays", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{b.job("a", "@hourly", 10*time.Minute), b.job("b", "", 0)})
		if err := b.Trigger("a", nil); !errors.Is(err, schedule.ErrStopped) {
			t.Errorf("before Run: %v", err)
		}
		b.run()
		if err := b.Trigger("a", nil); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if err := b.Trigger("a", nil); !errors.Is(err, schedule.ErrRunning) {
			t.Errorf("while it runs: %v", err)
		}
		if err := b.Trigger("c", nil); !errors.Is(err, schedule.ErrUnknown) {
			t.Errorf("an unknown job: %v", err)
		}
		pass(61 * time.Minute)
		b.want("0s a manual", "1h0m0s a scheduled")
		pass(10 * time.Minute)
		for _, name := range []string{"a", "b"} {
			if err := b.Trigger(name, nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait() // whoever asks first has the turn
		}
		synctest.Wait()
		b.want("1h11m0s a manual")
		pass(11 * time.Minute)
		b.want("1h21m0s b manual")
		b.stop()
		if err := b.Trigger("a", nil); !errors.Is(err, schedule.ErrStopped) {
			t.Errorf("after Run: %v", err)
		}
	})
	bubble(t, "ends a pause", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@hourly", 1)
		j.Retries, j.Pause = 3, 5*time.Minute
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		pass(61 * time.Minute)
		if err := b.Trigger("a", nil); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		b.want("1h0m0s a scheduled", "1h1m0s a manual")
	})
}

func TestStop(t *testing.T) {
	bubble(t, "cancels what runs and waits for it", func(t *testing.T) {
		b := newBench(t, 2)
		slow := b.job("slow", "@hourly", 0)
		slow.New = does(func(ctx context.Context, _ schedule.Reason) error {
			<-ctx.Done()
			time.Sleep(time.Minute)
			b.note("slow ended")
			return ctx.Err()
		})
		pausing := b.failing("pausing", "@hourly", 9)
		pausing.Retries, pausing.Pause = 9, 5*time.Minute
		hanging := b.job("hanging", "@daily", 0)
		hanging.Last = func(ctx context.Context) (time.Time, error) { <-ctx.Done(); return time.Time{}, ctx.Err() }
		b.Set([]schedule.Job{slow, pausing, hanging, b.job("running", "1 * * * *", time.Hour),
			b.job("waiting", "2 * * * *", time.Hour)})
		pass(30 * time.Minute)
		b.run()
		pass(32*time.Minute + 30*time.Second)
		b.stop()
		b.want("1h0m0s pausing scheduled", "1h1m0s running scheduled", "1h2m30s running cancelled",
			"1h3m30s slow ended")
		if s := b.state("slow"); s.Running || s.Failures != 0 || !errors.Is(s.Err, context.Canceled) {
			t.Errorf("state %+v", s)
		}
		if err := b.Run(t.Context()); err == nil {
			t.Error("Run runs twice")
		}
	})
	bubble(t, "beats and states", func(t *testing.T) {
		b := newBench(t, 1)
		var beats int
		var seen []string
		b.Beat = func() { beats++ }
		b.Set([]schedule.Job{b.job("a", "@hourly", time.Minute)})
		b.run()
		for range 62 * 2 {
			s := b.state("a")
			if what := fmt.Sprint(s.Running, s.Ended.IsZero()); len(seen) == 0 || seen[len(seen)-1] != what {
				seen = append(seen, what)
			}
			pass(30 * time.Second)
		}
		b.stop()
		if beats < 2*62 {
			t.Errorf("%d beats in 62 minutes", beats)
		}
		if diff := cmp.Diff([]string{"false true", "true true", "false false"}, seen); diff != "" {
			t.Error(diff)
		}
	})
}
