package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// A store may need a moment until it shows that an object is gone.
const (
	looksForGone = 3
	gonePause    = 250 * time.Millisecond
)

// Remove deletes an object and looks whether it is [Gone].
func Remove(ctx context.Context, s Store, key string) error {
	if err := s.Delete(ctx, key); err != nil {
		return err
	}
	return Gone(ctx, s, key)
}

// Gone returns an error if an object is there that was just deleted: some services answer
// with success and delete nothing. One that the credentials may not see counts as gone.
func Gone(ctx context.Context, s Store, key string) error {
	for look := range looksForGone {
		if look > 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(gonePause):
			}
		}
		_, err := s.Stat(ctx, key)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look whether %s is gone: %w", key, err)
		}
	}
	return backup.WithHint(
		fmt.Errorf("delete %s: the store answered that it is deleted, and it is still there", key),
		"delete it with another tool of the service, and see whether it stays: a lock, a retention rule or a fault of the "+
			"service may hold it")
}
