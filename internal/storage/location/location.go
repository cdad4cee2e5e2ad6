// Package location finds the Store that a repository's URL names.
package location

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// Location is the parsed URL of a repository: a folder or a bucket.
type Location struct {
	Path           string // of file://, else empty
	Bucket, Prefix string // of s3://
}

// Parse parses file:///path or s3://bucket/prefix.
func Parse(rawURL string) (Location, error) {
	scheme, rest, ok := strings.Cut(rawURL, "://")
	switch {
	case ok && scheme == "file":
		path, err := url.PathUnescape(rest)
		if err != nil {
			return Location{}, fmt.Errorf("%s: %w", rawURL, err)
		}
		if !filepath.IsAbs(path) {
			return Location{}, fmt.Errorf("%s: want an absolute path, with three slashes: file:///path", rawURL)
		}
		return Location{Path: path}, nil
	case ok && scheme == "s3":
		bucket, prefix, _ := strings.Cut(rest, "/")
		if bucket == "" {
			return Location{}, fmt.Errorf("%s names no bucket", rawURL)
		}
		return Location{Bucket: bucket, Prefix: prefix}, nil
	}
	return Location{}, fmt.Errorf("%q is not known: want file:///path or s3://bucket/prefix", rawURL)
}

// Open returns the store behind rawURL. It connects to nothing. The options say
// how to reach a bucket; bucket and prefix are the URL's.
func Open(ctx context.Context, rawURL string, o s3.Options) (storage.Store, error) {
	l, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if l.Bucket == "" {
		return file.New(l.Path), nil
	}
	o.Bucket, o.Prefix = l.Bucket, l.Prefix
	s, err := s3.New(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rawURL, err)
	}
	return s, nil
}
