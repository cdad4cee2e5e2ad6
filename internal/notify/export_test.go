package notify

import (
	"maps"
	"slices"
	"time"
)

// Jobs returns the jobs that have a name in sentences, sorted.
func Jobs() []string { return slices.Sorted(maps.Keys(jobs)) }

// SetCommandTimeout shortens the life of a command.
func SetCommandTimeout(t *Target, d time.Duration) { t.sender.(*program).timeout = d }

// Line is the event in one line.
func (e Event) Line() string { return e.line() }
