package storage

import (
	"context"
	"time"
)

// AbortStaleUploads removes the parts of uploads to s that were begun more than
// olderThan ago and never finished, and returns how many uploads there were. It
// does nothing to stores that are no [StaleUploader].
func AbortStaleUploads(ctx context.Context, s Store, olderThan time.Duration) (int, error) {
	if u, ok := ability[StaleUploader](s); ok {
		return u.AbortStaleUploads(ctx, olderThan)
	}
	return 0, nil
}
