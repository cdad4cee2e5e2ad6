package pause

import "time"

const (
	// knownFor is how long a pause counts that cannot be read again: whoever has ended it
	// could not tell.
	knownFor = 24 * time.Hour
	// After is how long after a pause nobody misses a backup: a look finds that it has ended,
	// and a backup follows.
	After = 45 * time.Minute
)

// Known is what a process knows of the pauses of a cluster. The zero value is that nothing
// was read.
type Known struct {
	State
	Read   time.Time // when State was read
	Rested time.Time // when it was last read that the cluster is paused; zero: never
}

// With returns what is known after a read.
func (k Known) With(read State, now time.Time) Known {
	k.State, k.Read = read, now
	if read.At(now) != nil {
		k.Rested = now
	}
	return k
}

// Now returns the pause that goes on, or nil.
func (k Known) Now(now time.Time) *Pause {
	if now.Sub(k.Read) > knownFor {
		return nil
	}
	return k.At(now)
}

// Rests reports whether the cluster is paused, or was until lately: see [After].
func (k Known) Rests(now time.Time) bool {
	return k.Now(now) != nil || now.Sub(k.Rested).Abs() < After || now.Sub(k.Ended) < After
}

// Due returns when the next backup begins that a schedule has planned; zero: it has none.
func (k Known) Due(planned, now time.Time) time.Time {
	if p := k.Now(now); p != nil && !planned.IsZero() && planned.Before(p.Until) {
		return p.Until
	}
	return planned
}
