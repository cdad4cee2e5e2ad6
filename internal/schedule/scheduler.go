package schedule

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

const (
	// poll is how often the scheduler looks at the clock. A timer is not enough:
	// its clock stops while the host is suspended, and does not notice when the
	// wall clock is set.
	poll = 30 * time.Second
	// grace is how late a slot may run without asking whether it was missed.
	grace = 5 * time.Minute
)

// Scheduler runs jobs by their lines. Its methods may be called concurrently.
type Scheduler struct {
	// Beat, if set before Run, is called at least twice a minute while the
	// scheduler watches its slots: it may feed a watchdog.
	Beat func()
	// Wall returns the time by which slots come due. It may be set before Run. The
	// default is the wall clock of the system.
	Wall func() time.Time

	// Brake is the longest wait before a run is caught up that was missed before Run. It
	// may be set before Run. The default is one minute.
	Brake time.Duration

	log  *slog.Logger
	wake bell
	wg   sync.WaitGroup // runs, and questions for Last

	mu      sync.Mutex // guards all below and what entries hold
	ctx     context.Context
	running bool // between the begin and the end of Run
	started bool // Run was called
	entries map[string]*entry
	turns   turns
	aside   turns // of the jobs that run beside the others
	clock   clock
}

// New returns a scheduler without jobs. It gives at most limit turns at once; a limit
// below one means one.
func New(limit int, log *slog.Logger) *Scheduler {
	return &Scheduler{
		log:     log,
		Brake:   time.Minute,
		Wall:    func() time.Time { return time.Now().Round(0) },
		wake:    make(bell, 1),
		entries: map[string]*entry{},
		turns:   newTurns(limit),
		aside:   newTurns(1),
	}
}

// SetLimit changes how many turns there are at once. Running jobs go on.
func (s *Scheduler) SetLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turns.limit = max(1, limit)
	s.turns.deal()
}

// Set replaces the jobs. A job with the same line keeps its slot and uses its
// new functions from the next try on. A job with another line gets a new slot.
// A removed job may finish its current run and is not started again. Two jobs of
// one name are a mistake of the caller, and panic.
func (s *Scheduler) Set(jobs []Job) {
	byName := map[string]Job{}
	for _, j := range jobs {
		if _, twice := byName[j.Name]; twice {
			panic("schedule: two jobs are named " + j.Name)
		}
		byName[j.Name] = j
	}
	s.mu.Lock()
	now := s.Wall()
	for name, e := range s.entries {
		if _, ok := byName[name]; !ok {
			s.remove(e)
		}
	}
	for name, j := range byName {
		e := s.entries[name]
		switch {
		case e == nil || e.removed:
			if e == nil {
				e = &entry{state: State{Name: name}}
				s.entries[name] = e
			}
			e.job, e.removed = j, false
			if s.running {
				e.plan(j.Line.Next(now))
				s.ask(e, 0)
			}
		default:
			moved := !e.job.Line.Equal(j.Line)
			e.job = j
			if moved && s.running {
				e.plan(j.Line.Next(now))
			}
		}
	}
	s.mu.Unlock()
	s.wake.ring()
}

// remove removes a job, now or when its run ends. The mutex is held.
func (s *Scheduler) remove(e *entry) {
	e.removed = true
	e.plan(time.Time{})
	e.stopAsking()
	if e.turn != nil {
		s.turnsOf(e).remove(e.turn)
	}
	e.unpause()
	if !e.busy {
		delete(s.entries, e.job.Name)
	}
}

// turnsOf returns the turns that the job takes.
func (s *Scheduler) turnsOf(e *entry) *turns {
	if e.job.Aside {
		return &s.aside
	}
	return &s.turns
}

// Run runs jobs until ctx ends. Then it cancels the running jobs, waits for them
// and returns. It can be called once.
func (s *Scheduler) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return errors.New("schedule: Run was called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx, s.started, s.running = ctx, true, true
	now := s.Wall()
	s.clock = clock{now, time.Now()}
	for _, e := range s.entries {
		e.plan(e.job.Line.Next(now))
		s.ask(e, s.Brake)
	}
	s.mu.Unlock()

	for ctx.Err() == nil {
		wait := s.tick()
		if s.Beat != nil {
			s.Beat()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.wake:
		}
		timer.Stop()
	}

	s.mu.Lock()
	s.running = false // from here on nothing is added to wg
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// tick starts the jobs that are due and returns how long to wait for the next.
func (s *Scheduler) tick() (wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Wall()
	s.watchClock(now)
	var due []*entry
	for _, e := range s.entries {
		if !e.due.IsZero() && !e.due.After(now) {
			due = append(due, e)
		}
	}
	slices.SortFunc(due, func(a, b *entry) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.job.Name, b.job.Name))
	})
	for _, e := range due {
		s.fire(e, now)
	}
	wait = poll
	for _, e := range s.entries {
		if !e.due.IsZero() {
			wait = min(wait, e.due.Sub(now))
		}
	}
	return wait
}

// watchClock plans all jobs again if the wall clock was set forward or back, or
// the host was suspended.
func (s *Scheduler) watchClock(now time.Time) {
	by := s.clock.jumped(now)
	if by == 0 {
		return
	}
	s.log.Warn("the clock has jumped, or the host was suspended", "by", by.Round(time.Second))
	for _, e := range s.entries {
		e.follow(by, now)
		s.ask(e, 0)
	}
}

// fire starts the run of a slot that is due, or logs why not.
func (s *Scheduler) fire(e *entry, now time.Time) {
	slot, late := e.slot, now.Sub(e.due)
	next := e.job.Line.Next(slot)
	if !next.After(now) {
		next = e.job.Line.Next(now)
	}
	e.plan(next)
	switch {
	case e.busy:
		s.log.Warn("a slot is skipped: the run of the slot before has not ended", "job", e.job.Name, "slot", slot)
	case late <= grace:
		s.start(e, Scheduled)
	case e.job.Last == nil:
		s.log.Warn("a slot was missed", "job", e.job.Name, "slot", slot)
	default:
		s.ask(e, 0)
	}
}

// Trigger runs a job now, or as soon as it is its turn. If the job pauses
// between two tries, the next try begins at once. run makes the object that does
// the run, or the rest of the one that it receives, which may be nil; if run is
// nil the job makes it, or goes on with the one it has. Where Trigger returns nil
// the Done of that object will be called.
func (s *Scheduler) Trigger(name string, run func(before Run) Run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.running {
		return ErrStopped
	}
	e := s.entries[name]
	switch {
	case e == nil || e.removed:
		return ErrUnknown
	case e.kick != nil:
		if run != nil {
			e.run = run(e.run)
		}
		e.unpause()
	case e.busy:
		return ErrRunning
	default:
		if run != nil {
			e.run = run(nil)
		}
		s.start(e, Manual)
	}
	return nil
}

// States returns the state of every job, in the order of their names.
func (s *Scheduler) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, 0, len(s.entries))
	for _, e := range s.entries {
		state := e.state
		state.Next = e.due
		state.Waiting = e.waits()
		out = append(out, state)
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// bell wakes the loop of a scheduler.
type bell chan struct{}

// ring makes the loop look at the slots again. Two calls may have the effect of
// one.
func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
