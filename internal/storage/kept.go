package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// NotKeptError says that a store answered that an object is stored, and does not have it.
type NotKeptError struct {
	Key   string
	Other bool // it gives other bytes than were sent; else nothing
}

func (e *NotKeptError) Error() string {
	if e.Other {
		return fmt.Sprintf("the store answered that %s is stored, and it gives other bytes than were sent", e.Key)
	}
	return fmt.Sprintf("the store answered that %s is stored, and it is not there", e.Key)
}

// Unwrap makes it one of bytes that are not what they were.
func (e *NotKeptError) Unwrap() error { return backup.ErrCorrupt }

// Keep creates a small object and looks whether it is [Kept]. It is for those on which
// somebody counts as soon as they hear that they are stored.
func Keep(ctx context.Context, s Store, key string, content []byte) error {
	if err := s.Create(ctx, key, bytes.NewReader(content)); err != nil {
		return err
	}
	return Kept(ctx, s, key, content)
}

// Kept reads an object that was just created, and returns a [*NotKeptError] if it is not
// there or not as it was sent: some services answer with success and store nothing, or a
// part. Bytes that differ are read once more: they may have been changed on their way.
func Kept(ctx context.Context, s Store, key string, content []byte) error {
	for again := false; ; again = true {
		got, err := readRange(ctx, s, key, 0, int64(len(content))+1)
		missing := errors.Is(err, fs.ErrNotExist)
		switch {
		case err != nil && !missing:
			return fmt.Errorf("read %s back: %w", key, err)
		case err == nil && bytes.Equal(got, content):
			return nil
		case again:
			return backup.WithHint(&NotKeptError{key, !missing},
				"do not trust this store: 'backupd check' tries what it can do, and the logs of the service may tell more")
		}
	}
}
