package snapshot

import "time"

// SetRetryPause makes the pauses of a test short or long.
func (t *Taker) SetRetryPause(d time.Duration) { t.retryPause = d }
