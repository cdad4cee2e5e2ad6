package schedule

import "time"

// jump is the drift between the two clocks in one poll that counts as a jump of
// the wall clock.
const jump = time.Minute

// clock is when a scheduler last looked at its slots, by both clocks.
type clock struct{ sawWall, sawMono time.Time }

// jumped returns how far the wall clock was set forward or back since the last
// look, or how long the host was suspended; or 0 if that is not worth noticing.
func (c *clock) jumped(now time.Time) time.Duration {
	mono := time.Now()
	by := now.Sub(c.sawWall) - mono.Sub(c.sawMono)
	c.sawWall, c.sawMono = now, mono
	if by.Abs() < jump {
		return 0
	}
	return by
}
