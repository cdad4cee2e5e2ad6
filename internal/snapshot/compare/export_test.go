package compare

import "time"

// SetPatience makes a comparison wait for a slow member that long.
func (c *Comparer) SetPatience(d time.Duration) { c.patience = d }
