package notify

import "time"

// SetCommandTimeout shortens the life of a command.
func SetCommandTimeout(t *Target, d time.Duration) { t.sender.(*program).timeout = d }
