package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// List implements [storage.Store]. It holds one page of up to 1,000 keys. Keys
// that no Store can have, such as "folder/", are left out.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for o, err := range s.bucket.list(ctx, prefix, after, 0) {
			if err != nil {
				yield(storage.Object{}, fmt.Errorf("list %s: %w", prefix, orContext(ctx, err)))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

// list yields what [Store.List] does, from pages of at most pageKeys keys, or
// of as many as the service likes if it is 0.
func (b *bucket) list(ctx context.Context, prefix, after string, pageKeys int32) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		start, possible := storage.ListStart(prefix, after)
		if !possible {
			if err := ctx.Err(); err != nil {
				yield(storage.Object{}, err)
			}
			return
		}
		previous := ""
		for o, err := range b.pages(ctx, prefix, start, pageKeys) {
			if err != nil {
				yield(storage.Object{}, fmt.Errorf("list objects: %w", err))
				return
			}
			key := strings.TrimPrefix(aws.ToString(o.Key), b.prefix)
			if key <= previous && previous != "" {
				// A service that repeats a page for ever ends here as well.
				yield(storage.Object{}, fmt.Errorf("list objects: %w", storage.Unordered(previous, key)))
				return
			}
			previous = key
			if storage.CheckKey(key) != nil || key <= start { // a service may ignore where to start
				continue
			}
			found := storage.Object{
				Key: key, Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified), ETag: cleanETag(o.ETag),
			}
			if !yield(found, nil) {
				return
			}
		}
	}
}

// pages yields what the service lists, as it lists it.
func (b *bucket) pages(ctx context.Context, prefix, start string, pageKeys int32) iter.Seq2[types.Object, error] {
	return func(yield func(types.Object, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &b.name, Prefix: aws.String(b.key(prefix))}
		if start != "" {
			in.StartAfter = aws.String(b.key(start))
		}
		if pageKeys > 0 {
			in.MaxKeys = &pageKeys
		}
		for {
			page, err := b.client.ListObjectsV2(ctx, in)
			if err != nil {
				yield(types.Object{}, b.explain(err))
				return
			}
			// The SDK takes any XML for a list, an empty one at that.
			if page.Name == nil && page.IsTruncated == nil && len(page.Contents) == 0 {
				yield(types.Object{}, backup.WithHint(errors.New("the answer to ListObjectsV2 is not a list"), foreignHint))
				return
			}
			for _, o := range page.Contents {
				if !yield(o, nil) {
					return
				}
			}
			if !aws.ToBool(page.IsTruncated) {
				return
			}
			next := aws.ToString(page.NextContinuationToken)
			if next == "" {
				err := errors.New("the service answers ListObjectsV2 with a part of the list, and not with how to get the rest")
				yield(types.Object{}, backup.WithHint(err,
					"the service knows only version 1 of the list, it seems: use one, or a version of it, with ListObjectsV2"))
				return
			}
			if next == aws.ToString(in.ContinuationToken) {
				yield(types.Object{}, fmt.Errorf("the service repeats continuation token %q", next))
				return
			}
			in.ContinuationToken = &next
		}
	}
}

// Delete implements [storage.Store]. In a bucket with versions it hides the
// object behind a delete marker; the bucket's life-cycle rules remove it.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	full := s.bucket.key(key)
	_, err := s.bucket.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket.name, Key: &full})
	if isNoSuchKey(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, orContext(ctx, fmt.Errorf("delete object: %w", s.bucket.explain(err))))
	}
	return nil
}

// AbortStaleUploads removes the parts of uploads that were begun more than
// olderThan ago and never finished, as after a power cut, and returns how many
// uploads they were of. It touches only those whose key backupd would write.
func (s *Store) AbortStaleUploads(ctx context.Context, olderThan time.Duration) (int, error) {
	aborted := 0
	limit := time.Now().Add(-olderThan)
	in := &s3.ListMultipartUploadsInput{Bucket: &s.bucket.name, Prefix: &s.bucket.prefix}
	for {
		page, err := s.bucket.client.ListMultipartUploads(ctx, in)
		if err != nil {
			return aborted, fmt.Errorf("list multipart uploads: %w", orContext(ctx, s.bucket.explain(err)))
		}
		for _, u := range page.Uploads {
			full := aws.ToString(u.Key)
			if !s.bucket.ours(full) || u.Initiated == nil || u.Initiated.After(limit) {
				continue
			}
			if err := s.bucket.abort(ctx, full, aws.ToString(u.UploadId)); err != nil {
				return aborted, fmt.Errorf("abort multipart upload of %s: %w", full, orContext(ctx, err))
			}
			aborted++
		}
		if !aws.ToBool(page.IsTruncated) {
			return aborted, nil
		}
		if aws.ToString(page.NextKeyMarker) == aws.ToString(in.KeyMarker) &&
			aws.ToString(page.NextUploadIdMarker) == aws.ToString(in.UploadIdMarker) {
			return aborted, errors.New("list multipart uploads: the service repeats a page")
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
	}
}
