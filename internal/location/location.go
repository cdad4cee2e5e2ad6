// Package location finds the Store that a repository's URL names. Another kind
// of store is added here: its scheme in Parse and Open, its options in [Options].
package location

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/secret"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// Location is the parsed URL of a repository: a folder or a bucket.
type Location struct {
	Path           string // of file://, else empty
	Bucket, Prefix string // of s3://
}

// ErrCredentials is the error for a URL that holds credentials. It does not quote the
// URL: URLs of repositories are printed and logged.
var ErrCredentials = backup.WithHints(errors.New("the URL must not hold credentials"),
	"give them by --s3-credentials-file FILE, or by the AWS_* variables",
	"give them by s3.credentials-file, or by the AWS_* variables")

// ErrSettings is the error for settings in the URL of a bucket. It does not quote the URL
// either: a key may be among them.
var ErrSettings = backup.WithHints(errors.New("the URL of a bucket has no settings after ?"),
	"they have flags of their own, such as --s3-endpoint, --s3-region and --s3-credentials-file",
	"they are keys in s3, such as endpoint, region and credentials-file")

// Parse parses file:///path or s3://bucket/prefix.
func Parse(rawURL string) (Location, error) {
	if secret.InAddress(rawURL) {
		return Location{}, ErrCredentials
	}
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
		if strings.Contains(rest, "?") {
			return Location{}, ErrSettings
		}
		bucket, prefix, _ := strings.Cut(rest, "/")
		if bucket == "" {
			return Location{}, fmt.Errorf("%s names no bucket", rawURL)
		}
		return Location{Bucket: bucket, Prefix: prefix}, nil
	}
	return Location{}, fmt.Errorf("%q is not known: want file:///path or s3://bucket/prefix", secret.Show(rawURL))
}

// IsFolder reports whether l is in a file system.
func (l Location) IsFolder() bool { return l.Path != "" }

// MakeFolder makes the folder of l, if it is not there and its parent is. Buckets it
// leaves alone.
func (l Location) MakeFolder() error {
	if !l.IsFolder() {
		return nil
	}
	err := file.New(l.Path).MakeRoot()
	if errors.As(err, new(*backup.RefusedError)) {
		return err
	}
	return backup.WithHint(err, "is its disk not mounted? Only the last folder is made: %s must be there",
		filepath.Dir(l.Path))
}

// section names the field of [Options] that has an effect on l.
func (l Location) section() string {
	if l.Bucket != "" {
		return "s3"
	}
	return "file"
}

// s3 are the options of a bucket.
func (l Location) s3(o Options) s3.Options {
	out := o.S3
	out.Bucket, out.Prefix, out.Logger = l.Bucket, l.Prefix, o.Logger
	return out
}

// Open returns the store behind rawURL. It connects to nothing.
func Open(ctx context.Context, rawURL string, o Options) (storage.Store, error) {
	l, err := Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if l.IsFolder() {
		reserve, err := o.File.Reserve()
		if err != nil {
			return nil, fmt.Errorf("%s: file min-free: %w", rawURL, err)
		}
		return storage.Answering(file.NewWithReserve(l.Path, reserve)), nil
	}
	s, err := s3.New(ctx, l.s3(o))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rawURL, err)
	}
	return s, nil
}

// EncryptedByKey reports whether readers of the store need, besides access, a key
// that backupd sends to the service or that the service holds.
func (l Location) EncryptedByKey(o Options) bool {
	return !l.IsFolder() && (o.S3.SSE == s3.SSEKMS || o.S3.SSECKeyFile != "")
}

// Policy returns, as JSON, the smallest policy with which backupd works in l, or
// nothing if the kind of store has no policies. Only a machine that removes old
// snapshots needs mayDelete.
func (l Location) Policy(o Options, mayDelete bool) (string, error) {
	if l.IsFolder() {
		return "", nil
	}
	return s3.Policy(l.s3(o), mayDelete)
}
