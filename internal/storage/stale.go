package storage

import (
	"context"
	"time"
)

// AbortStaleUploads removes what uploads left in s that were begun more than
// olderThan ago and never finished, where a store keeps such a thing out of
// sight of its listings. It returns how many there were; of other stores, none.
func AbortStaleUploads(ctx context.Context, s Store, olderThan time.Duration) (int, error) {
	a, ok := s.(interface {
		AbortStaleUploads(ctx context.Context, olderThan time.Duration) (int, error)
	})
	if !ok {
		return 0, nil
	}
	return a.AbortStaleUploads(ctx, olderThan)
}

// AbortStaleUploads passes on to the store that is observed.
func (o *observed) AbortStaleUploads(ctx context.Context, olderThan time.Duration) (int, error) {
	return AbortStaleUploads(ctx, o.s, olderThan)
}
