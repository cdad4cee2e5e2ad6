package schedule

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// poll is how often the clock is looked at. A timer alone would not do: it
	// runs by a clock that stands still while the host is suspended and knows
	// nothing of a wall clock that is put on or back.
	poll = 30 * time.Second
	// jump is how far the two clocks drift apart in one poll before it is taken
	// for a jump.
	jump = time.Minute
	// grace is how late a slot is still simply run.
	grace = 5 * time.Minute
)

// Scheduler runs jobs by their lines. Its methods may be called concurrently.
type Scheduler struct {
	// OnChange, if set before Run, is called whenever a [State] may have changed.
	// It must return soon and may be called concurrently.
	OnChange func()
	// Beat, if set before Run, is called at least twice a minute for as long as
	// slots are watched: a watchdog may be fed with it.
	Beat func()
	// Wall tells the time by which slots come due. It may be set before Run; by
	// default it is the system's wall clock.
	Wall func() time.Time

	log  *slog.Logger
	wake chan struct{}
	wg   sync.WaitGroup // runs, and questions for Last

	mu      sync.Mutex // guards all below and what entries hold
	ctx     context.Context
	running bool // between the begin and the end of Run
	started bool // Run was called
	entries map[string]*entry
	turns   turns

	// When tick last looked, by both clocks.
	sawWall time.Time
	sawMono time.Time
}

// entry is a job and how it stands.
type entry struct {
	job     Job
	removed bool          // Set left it out, but it is not at its end yet
	slot    time.Time     // the next one; zero is none
	due     time.Time     // slot with jitter
	begun   time.Time     // when the newest run began
	busy    bool          // a run waits, runs or pauses
	turn    *turn         // of that run: waited for, or had
	kick    chan struct{} // not nil in a pause: closing it ends the pause
	asking  context.CancelFunc
	state   State
}

// New returns a scheduler without jobs that runs at most limit at once, and at
// least one.
func New(limit int, log *slog.Logger) *Scheduler {
	return &Scheduler{
		log:     log,
		Wall:    func() time.Time { return time.Now().Round(0) },
		wake:    make(chan struct{}, 1),
		entries: map[string]*entry{},
		turns:   turns{limit: max(1, limit), groups: map[string]bool{}},
	}
}

// SetLimit changes how many jobs run at once. Running ones go on.
func (s *Scheduler) SetLimit(limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turns.limit = max(1, limit)
	s.turns.deal()
}

// Set replaces the jobs. What is the same goes on as planned, with the new
// functions from the next try on; a job with another line is planned anew;
// of jobs that are no more, running ones are let finish and nothing else is
// begun. Two jobs of one name are a mistake of the caller, and panic.
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
				s.ask(e)
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
	s.nudge()
	s.changed()
}

// remove takes a job out, now or when its run ends. The mutex is held.
func (s *Scheduler) remove(e *entry) {
	e.removed = true
	e.plan(time.Time{})
	e.stopAsking()
	if e.turn != nil && !e.turn.granted {
		s.turns.leave(e.turn)
	}
	e.unpause()
	if !e.busy {
		delete(s.entries, e.job.Name)
	}
}

// Run runs jobs until ctx ends, then cancels the running ones and returns when
// they have ended. It can be called once.
func (s *Scheduler) Run(ctx context.Context) error {
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return errors.New("schedule: Run was called twice")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.ctx, s.started, s.running = ctx, true, true
	s.sawWall, s.sawMono = s.Wall(), time.Now()
	for _, e := range s.entries {
		e.plan(e.job.Line.Next(s.sawWall))
		s.ask(e)
	}
	s.mu.Unlock()

	for ctx.Err() == nil {
		wait, news := s.tick()
		if news {
			s.changed()
		}
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
	s.running = false // from here on nothing joins what is waited for
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// tick begins what is due. It returns how long to wait for more, and whether
// anything was planned.
func (s *Scheduler) tick() (wait time.Duration, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Wall()
	news = s.watchClock(now)
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
	return wait, news || len(due) > 0
}

// watchClock finds out whether the wall clock was put on or back, or the host
// was suspended, and plans anew.
func (s *Scheduler) watchClock(now time.Time) (jumped bool) {
	mono := time.Now()
	by := now.Sub(s.sawWall) - mono.Sub(s.sawMono)
	s.sawWall, s.sawMono = now, mono
	if by.Abs() < jump {
		return false
	}
	s.log.Warn("the clock has jumped, or the host was suspended", "by", by.Round(time.Second))
	for _, e := range s.entries {
		// On: what is due now is fire's business. Back: a slot must not be as
		// far away as the clock was put back.
		if by < 0 && !e.slot.IsZero() {
			if e.job.Line.every > 0 {
				e.plan(e.slot.Add(by))
			} else {
				e.plan(e.job.Line.Next(now))
			}
		}
		s.ask(e)
	}
	return true
}

// fire begins the run of a slot that is due, or says why not.
func (s *Scheduler) fire(e *entry, now time.Time) {
	slot, late := e.slot, now.Sub(e.due)
	next := e.job.Line.Next(slot)
	if !next.After(now) {
		next = e.job.Line.Next(now)
	}
	e.plan(next)
	switch {
	case e.busy:
		s.log.Warn("a slot is skipped: the job is still at the one before", "job", e.job.Name, "slot", slot)
	case late <= grace:
		s.start(e, Scheduled)
	case e.job.Last == nil:
		s.log.Warn("a slot was missed", "job", e.job.Name, "slot", slot)
	default:
		s.ask(e)
	}
}

// plan sets the next slot.
func (e *entry) plan(slot time.Time) {
	e.slot, e.due = slot, slot
	if slot.IsZero() {
		return
	}
	jitter := e.job.Jitter
	if after := e.job.Line.Next(slot); !after.IsZero() {
		jitter = min(jitter, after.Sub(slot)-1)
	}
	if jitter > 0 {
		e.due = slot.Add(rand.N(jitter + 1))
	}
}

// Trigger runs a job now, or as soon as it is its turn. One that pauses before
// it is tried again is tried at once.
func (s *Scheduler) Trigger(name string) error {
	err := s.trigger(name)
	if err == nil {
		s.changed()
	}
	return err
}

func (s *Scheduler) trigger(name string) error {
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
		e.unpause()
	case e.busy:
		return ErrRunning
	default:
		s.start(e, Manual)
	}
	return nil
}

// TriggerAll runs all jobs that are not running now.
func (s *Scheduler) TriggerAll() {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.entries))
	s.mu.Unlock()
	for _, name := range names {
		if err := s.Trigger(name); err != nil {
			s.log.Info("not triggered", "job", name, "error", err)
		}
	}
}

// States returns how the jobs stand, by name.
func (s *Scheduler) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]State, 0, len(s.entries))
	for _, e := range s.entries {
		state := e.state
		state.Next = e.due
		state.Waiting = e.turn != nil && !e.turn.granted
		out = append(out, state)
	}
	slices.SortFunc(out, func(a, b State) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// nudge makes the loop look at the plan again. It must not be missed, but
// twice is once.
func (s *Scheduler) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Scheduler) changed() {
	if s.OnChange != nil {
		s.OnChange()
	}
}
