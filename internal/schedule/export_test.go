package schedule

import "time"

// SetClock gives s another wall clock. Timers still run by the real one.
func SetClock(s *Scheduler, now func() time.Time) { s.wall = now }
