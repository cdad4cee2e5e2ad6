package storage

import (
	"context"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// OrderNames have another order in the tree of a file system, or without regard
// to case, than by bytes. They are so many that no order of chance is the right one.
var OrderNames = []string{"a0", "a/1", "a-1", "B", "q", "c", "x", "h"}

// Unordered is the error for a listing that has after behind before, which must be in front.
func Unordered(before, after string) error {
	return backup.WithHint(
		fmt.Errorf("the service lists %q after %q: %w", after, before, backup.ErrUnordered),
		"use another bucket or service: directory buckets of S3 Express and Storj do not list in the order of keys, and so "+
			"snapshots would be overlooked")
}

// CheckOrder tries whether s lists in the order of keys, as far as that is for a service to
// say. Everything counts on it: what is listed, and which snapshot is the latest. A service
// that does not may seem to work while there are few objects. The error then wraps
// [backup.ErrUnordered].
func CheckOrder(ctx context.Context, s Store) error {
	if o, ok := ability[Orderer](s); ok {
		return o.CheckOrder(ctx, ProbePrefix+backup.RandomName(16))
	}
	return nil
}
