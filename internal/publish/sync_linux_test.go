package publish

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSync: a changer syncs what it says. A file of /proc cannot be synced.
func TestSync(t *testing.T) {
	if err := (changer{}).sync("/proc/self/status"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v, want the error of the sync", err)
	}
}
