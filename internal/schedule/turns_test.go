package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

// own is a run that uses its turn itself.
type own func(ctx context.Context, turn *schedule.Turn) error

func (o own) Try(ctx context.Context, _ schedule.Reason, turn *schedule.Turn) error {
	return o(ctx, turn)
}
func (o own) Done(error) {}
func (o own) Free()      {}

// doing is a job that uses its turn itself.
func doing(name, lane string, do own) schedule.Job {
	return schedule.Job{Name: name, Group: name, Lane: lane, New: func() schedule.Run { return do }}
}

// hangs takes the turn and shows no sign of life for a time, or once a second if it
// moves.
func (b *bench) hangs(name, lane string, d time.Duration, moves, busy bool) schedule.Job {
	return doing(name, lane, func(ctx context.Context, turn *schedule.Turn) error {
		if err := turn.Take(ctx); err != nil {
			return err
		}
		b.note("%s has it", name)
		turn.Moved(busy)
		for end := time.Now().Add(d); time.Now().Before(end); {
			time.Sleep(time.Second)
			if moves {
				turn.Moved(busy)
			}
		}
		turn.Moved(false)
		time.Sleep(time.Second)
		b.note("%s ended", name)
		return nil
	})
}

func (b *bench) trigger(names ...string) {
	b.t.Helper()
	for _, name := range names {
		if err := b.Trigger(name, nil); err != nil {
			b.t.Errorf("trigger %s: %v", name, err)
		}
		synctest.Wait()
	}
}

// TestLending: a run in which nothing moves holds no turn of another lane.
func TestLending(t *testing.T) {
	bubble(t, "to another lane, and not to its own", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{
			b.hangs("hung", "x", time.Hour, false, false), b.hangs("same", "x", time.Minute, true, false),
			b.hangs("other", "y", time.Minute, true, false), b.hangs("more", "z", time.Minute, true, false),
		})
		b.run()
		defer b.stop()
		b.trigger("hung", "same", "other", "more")
		pass(30 * time.Minute)
		b.want("0s hung has it", "15s other has it", "1m16s more has it", "1m16s other ended", "2m17s more ended")
		if s := b.state("same"); !s.Waiting {
			t.Errorf("state %+v", s)
		}
		pass(time.Hour)
		b.want("1h0m1s hung ended", "1h0m1s same has it", "1h1m2s same ended")
	})
	bubble(t, "until something moves", func(t *testing.T) {
		b := newBench(t, 1)
		b.Set([]schedule.Job{
			b.hangs("hung", "x", time.Minute, false, false), b.hangs("other", "y", 2*time.Minute, true, false),
			b.hangs("more", "z", time.Minute, true, false),
		})
		b.run()
		defer b.stop()
		b.trigger("hung", "other")
		pass(time.Minute) // and hung goes on
		b.trigger("more")
		pass(500 * time.Millisecond)
		b.want("0s hung has it", "15s other has it")
		pass(time.Minute)
		b.want("1m1s hung ended")
		pass(10 * time.Minute)
		b.want("2m16s more has it", "2m16s other ended", "3m17s more ended")
	})
	for _, c := range []struct{ moves, busy bool }{{true, false}, {false, true}} {
		bubble(t, fmt.Sprintf("not while it works: %+v", c), func(t *testing.T) {
			b := newBench(t, 1)
			b.Set([]schedule.Job{
				b.hangs("works", "x", 10*time.Minute, c.moves, c.busy), b.hangs("other", "y", time.Second, true, false),
			})
			b.run()
			defer b.stop()
			b.trigger("works", "other")
			pass(time.Hour)
			b.want("0s works has it", "10m1s other has it", "10m1s works ended", "10m3s other ended")
		})
	}
}

// TestRooms: jobs do what is cheap without a turn, so many at once and no more. Those
// that fail leave room for others, and come last.
func TestRooms(t *testing.T) {
	const rooms = schedule.Rooms - 4
	// down waits for an answer that does not come.
	down := func(n int, entered func()) (jobs []schedule.Job) {
		for i := range n {
			j := doing(fmt.Sprintf("down%03d", i), "", func(context.Context, *schedule.Turn) error {
				entered()
				time.Sleep(5 * time.Second)
				return errors.New("no answer")
			})
			j.Line = mustParse(t, "0 * * * * *")
			jobs = append(jobs, j)
		}
		return jobs
	}
	bubble(t, "a good one among many that are down", func(t *testing.T) {
		b := newBench(t, 1)
		var at []time.Duration
		good := doing("good", "", func(ctx context.Context, turn *schedule.Turn) error {
			at = append(at, time.Since(b.start)%time.Minute)
			return turn.Take(ctx)
		})
		good.Line = mustParse(t, "1 * * * * *")
		b.Set(append(down(150, func() {}), good))
		b.run()
		defer b.stop()
		pass(100 * time.Minute)
		if slices.Max(at[1:]) > 5*time.Second || slices.Max(at[2:]) > time.Second || len(at) != 100 {
			t.Errorf("%d runs, at seconds %v", len(at), at)
		}
	})
	bubble(t, "there is a bound, and everybody comes in", func(t *testing.T) {
		b := newBench(t, 1)
		var n atomic.Int64
		b.Set(down(150, func() { n.Add(1) }))
		b.run()
		defer b.stop()
		pass(time.Minute + time.Second)
		if n := n.Load(); n != rooms {
			t.Errorf("%d at once", n)
		}
		pass(time.Minute)
		if n := n.Load(); n != 13*rooms { // each leaves its room after five seconds
			t.Errorf("%d have begun", n)
		}
	})
	bubble(t, "those that wait for a turn are in their rooms", func(t *testing.T) {
		b := newBench(t, 1)
		var jobs []schedule.Job
		for i := range 20 {
			jobs = append(jobs, b.hangs(fmt.Sprintf("j%02d", i), "x", time.Minute, true, false))
		}
		b.Set(jobs)
		b.run()
		for _, j := range jobs {
			b.trigger(j.Name)
		}
		pass(20 * 62 * time.Second)
		if got := b.lines(); len(got) != 40 || got[0] != "0s j00 has it" || got[39] != "20m20s j19 ended" {
			t.Errorf("%d lines: %q", len(got), got)
		}
		b.stop()
	})
	bubble(t, "who has failed gives way, though not for ever", func(t *testing.T) {
		b := newBench(t, 1)
		failed, n := b.failing("failed", "", 1), 0
		var jobs []schedule.Job
		for i := range 3 {
			jobs = append(jobs, b.hangs(fmt.Sprintf("good%d", i), "x", time.Minute, true, false))
		}
		failed.Line = mustParse(t, "@every 10s")
		b.Set(append(jobs, failed))
		b.run()
		pass(11 * time.Second)
		b.want("10s failed scheduled")
		b.trigger("good0")
		pass(10 * time.Second) // failed waits
		b.trigger("good1", "good2")
		for range 200 {
			pass(time.Second)
			for _, j := range jobs {
				if !b.state(j.Name).Running {
					b.trigger(j.Name)
				}
			}
			pass(time.Minute)
		}
		for i, line := range b.lines() {
			if line[len(line)-len("has it"):] == "has it" {
				n++
			}
			if i > 0 && line[len(line)-len("failed scheduled"):] == "failed scheduled" {
				break
			}
		}
		if n < 50 || n > 110 {
			t.Errorf("it gave way to %d: %q", n, b.lines())
		}
		b.stop()
	})
}

// TestPatience: a job that has failed for long is tried less often in its slot.
func TestPatience(t *testing.T) {
	bubble(t, "retries", func(t *testing.T) {
		b := newBench(t, 1)
		j := b.failing("a", "@hourly", 1000)
		j.Retries = 3
		b.Set([]schedule.Job{j})
		b.run()
		defer b.stop()
		took := func() time.Duration {
			pass(time.Hour)
			s := b.state("a")
			return s.Ended.Sub(s.Started)
		}
		pass(30 * time.Minute)
		first := took()
		for range 8 {
			took()
		}
		if late := took(); first > 2*time.Minute || late < 7*time.Minute || late > 15*time.Minute {
			t.Errorf("the tries of a slot took %s at first and %s at last", first, late)
		}
	})
}
