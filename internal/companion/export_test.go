package companion

import "time"

// SetPatience changes how long Secrets are waited for, until the function that it returns is called.
func SetPatience(d time.Duration) func() {
	before := secretPatience
	secretPatience = d
	return func() { secretPatience = before }
}
