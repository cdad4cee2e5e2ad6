package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// CheckOrder implements [storage.Orderer]. What the credentials may not delete stays: small
// objects that nobody takes for a part of a repository.
func (s *Store) CheckOrder(ctx context.Context, folder string) (err error) {
	var keys []string
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		for _, key := range keys {
			if derr := s.Delete(ctx, key); derr != nil && !errors.Is(derr, fs.ErrPermission) &&
				!errors.Is(derr, storage.ErrLocked) {
				err = errors.Join(err, derr)
			}
		}
	}()
	for _, name := range storage.OrderNames {
		key := folder + "/" + name
		if err := s.Create(ctx, key, strings.NewReader(key)); err != nil {
			return fmt.Errorf("try the order of listings: %w", err)
		}
		keys = append(keys, key)
	}
	previous, n := "", 0
	for o, err := range s.bucket.pages(ctx, folder+"/", "", 0) {
		if err != nil {
			return fmt.Errorf("try the order of listings: list objects: %w", orContext(ctx, err))
		}
		key := aws.ToString(o.Key)
		if key <= previous {
			return fmt.Errorf("try the order of listings: %w", storage.Unordered(previous, key))
		}
		previous = key
		n++
	}
	if n != len(storage.OrderNames) {
		return fmt.Errorf("try the order of listings: the service lists %d of %d objects that were just stored",
			n, len(storage.OrderNames))
	}
	return nil
}
