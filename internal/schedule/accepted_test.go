package schedule_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

// request is a run that somebody asked for.
type request struct {
	b     *bench
	name  string
	tried atomic.Int32
	err   error // before done
	done  atomic.Int32
	freed atomic.Int32
}

// ask triggers a job with such a try, and returns nil if that was not accepted.
func (b *bench) ask(name string, try func(context.Context, schedule.Reason) error) *request {
	b.t.Helper()
	r := &request{b: b, name: name}
	err := b.Trigger(name, given(func() schedule.Run {
		return &run{
			try: func(ctx context.Context, why schedule.Reason) error {
				r.tried.Add(1)
				return try(ctx, why)
			},
			done: func(err error) { r.err = err; r.done.Add(1) },
			free: func() { r.freed.Add(1) },
		}
	}))
	if err != nil {
		if !errors.Is(err, schedule.ErrRunning) {
			b.t.Errorf("trigger %s: %v", name, err)
		}
		return nil
	}
	return r
}

func lasting(d time.Duration, err error) func(context.Context, schedule.Reason) error {
	return func(ctx context.Context, _ schedule.Reason) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// TestAccepted: each run that was accepted ends, whatever became of it. The time in
// which it waits for others is not its own.
func TestAccepted(t *testing.T) {
	bubble(t, "it waits for longer than its time-out after a pause", func(t *testing.T) {
		b := newBench(t, 1)
		a := b.job("a", "", 0)
		a.Retries, a.Pause, a.Timeout = 3, 5*time.Minute, 10*time.Minute
		b.Set([]schedule.Job{a, b.job("b", "", 0)})
		b.run()
		defer b.stop()
		first := b.ask("a", lasting(0, errors.New("no luck")))
		pass(time.Second)
		b.ask("b", lasting(time.Hour, nil))
		pass(time.Second)
		second := b.ask("a", lasting(9*time.Minute, nil))
		pass(30 * time.Minute)
		if s := b.state("a"); second == nil || !s.Waiting || second.tried.Load() != 0 || first.tried.Load() != 1 {
			t.Fatalf("state %+v, requests %+v, %+v", s, first, second)
		}
		pass(39 * time.Minute)
		if s := b.state("a"); second.done.Load() != 1 || second.err != nil || s.Running || s.Failures != 0 {
			t.Errorf("state %+v, request %+v", s, second)
		}
		if b.ask("a", lasting(0, nil)) == nil {
			t.Error("no other one is accepted")
		}
	})
	bubble(t, "its time passes while it works", func(t *testing.T) {
		b := newBench(t, 1)
		a := b.job("a", "", 0)
		a.Retries, a.Timeout = 3, 10*time.Minute
		b.Set([]schedule.Job{a, b.job("b", "", 0)})
		b.run()
		defer b.stop()
		b.ask("b", lasting(time.Hour, nil))
		pass(time.Second)
		got := b.ask("a", lasting(time.Hour, nil))
		pass(time.Hour + 10*time.Minute)
		if got.done.Load() != 1 || !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("request %+v", got)
		}
	})
	bubble(t, "the job is removed while the run waits for its turn", func(t *testing.T) {
		b := newBench(t, 1)
		a := b.job("a", "", 0)
		a.Retries = 3
		b.Set([]schedule.Job{a, b.job("b", "", 0)})
		b.run()
		defer b.stop()
		b.ask("b", lasting(time.Hour, nil))
		pass(time.Second)
		got := b.ask("a", lasting(0, nil))
		pass(time.Second)
		b.Set([]schedule.Job{b.job("b", "", 0)})
		synctest.Wait()
		if got.done.Load() != 1 || !errors.Is(got.err, schedule.ErrNotRun) || got.tried.Load() != 0 || got.freed.Load() == 0 {
			t.Errorf("request %+v", got)
		}
	})
	bubble(t, "the job is removed before the run asks for its turn", func(t *testing.T) {
		b := newBench(t, 1)
		a := b.job("a", "", 0)
		b.Set([]schedule.Job{a})
		b.run()
		defer b.stop()
		var got, done error
		err := b.Trigger("a", given(func() schedule.Run {
			return &surveying{func(ctx context.Context, turn *schedule.Turn) error {
				time.Sleep(time.Minute)
				got = turn.Take(ctx)
				return got
			}, &done}
		}))
		pass(time.Second)
		b.Set(nil)
		b.Set([]schedule.Job{a})
		pass(time.Hour)
		if err != nil || !errors.Is(got, schedule.ErrNotRun) || !errors.Is(done, schedule.ErrNotRun) {
			t.Errorf("got %v, %v, %v", err, got, done)
		}
	})
	bubble(t, "anything may happen", func(t *testing.T) {
		b := newBench(t, 1)
		random := rand.New(rand.NewPCG(1, 2))
		tries := func() func(context.Context, schedule.Reason) error {
			d, what := time.Duration(random.IntN(400))*time.Second, random.IntN(4)
			return func(ctx context.Context, why schedule.Reason) error {
				switch what {
				case 0:
					return lasting(d, nil)(ctx, why)
				case 1:
					panic("oh")
				}
				return lasting(d, errors.New("no luck"))(ctx, why)
			}
		}
		var jobs []schedule.Job
		for _, name := range []string{"a", "b", "c", "d"} {
			j := b.job(name, "", 0)
			j.Timeout, j.Retries = time.Duration(1+random.IntN(900))*time.Second, random.IntN(4)
			j.Group = name[:1]
			jobs = append(jobs, j)
		}
		b.Set(jobs)
		b.run()
		var all []*request
		for range 2000 {
			if r := b.ask(jobs[random.IntN(len(jobs))].Name, tries()); r != nil {
				all = append(all, r)
			}
			if random.IntN(20) == 0 {
				b.Set(jobs[:3])
				b.Set(jobs)
			}
			pass(time.Duration(random.IntN(100)) * time.Second)
		}
		pass(time.Hour)
		for _, r := range all {
			// A run whose try has failed may have been followed by another in its pause.
			if r.tried.Load() == 0 && r.done.Load() == 0 || r.freed.Load() == 0 || r.done.Load() > 1 {
				t.Errorf("request %+v", r)
			}
		}
		for _, s := range b.States() {
			if s.Running || s.Waiting {
				t.Errorf("state %+v", s)
			}
		}
		if len(all) < 500 {
			t.Errorf("%d requests", len(all))
		}
		b.stop()
	})
}

// surveying is a run that does something before it asks for its turn.
type surveying struct {
	own
	err *error
}

func (s *surveying) Done(err error) { *s.err = err }

// TestFree: who waits until a run is over is accepted at once.
func TestFree(t *testing.T) {
	for name, try := range map[string]func(context.Context, schedule.Reason) error{
		"succeeded": lasting(time.Second, nil),
		"failed":    lasting(time.Second, errors.New("no luck")),
		"for good":  lasting(time.Second, schedule.Permanent(errors.New("no luck"))),
		"panicked":  func(context.Context, schedule.Reason) error { panic("oh") },
		"late":      lasting(time.Hour, nil),
	} {
		bubble(t, name, func(t *testing.T) {
			b := newBench(t, 1)
			a := b.job("a", "", 0)
			a.Retries, a.Timeout = 1, time.Minute
			b.Set([]schedule.Job{a})
			b.run()
			defer b.stop()
			again := 0
			err := b.Trigger("a", given(func() schedule.Run {
				return &run{try: try, free: func() {
					if again++; again > 1 {
						return
					}
					if b.ask("a", lasting(0, nil)) == nil {
						t.Error("it is free, and another run is not accepted")
					}
				}}
			}))
			pass(time.Hour)
			if err != nil || again == 0 {
				t.Errorf("told %d times, %v", again, err)
			}
		})
	}
}
