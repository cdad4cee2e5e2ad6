// Package s3 is a Store in a bucket of Amazon S3 or of one of the many services
// that speak its protocol.
//
// Uploads of unknown length go up in parts of equal size from a few buffers in
// memory, each with its SHA-256, so that the service refuses what was damaged
// on the way. An object is created only if it is absent, by If-None-Match. A
// service that answers NotImplemented to that, as Backblaze B2 does, is asked
// by HEAD before each upload instead: two writers of one key at the same
// moment may then both succeed, which costs nothing where names are random, as
// those of snapshots are. A service that ignores If-None-Match silently, as
// Google's does, is found out by [storage.Probe] only.
//
// A request is tried up to ten times, with full jitter, and a connection on which
// nothing moves for [Options.ProgressTimeout] is closed.
package s3

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// Values of [Options.Checksum].
const (
	ChecksumAuto   = "auto"   // SHA256 until the service refuses it, then MD5
	ChecksumSHA256 = "sha256" // x-amz-checksum-sha256
	ChecksumMD5    = "md5"    // Content-MD5, for services that know no other
	ChecksumNone   = "none"   // the signature's hash of the body alone
)

// Values of [Options.PathStyle].
const (
	PathStyleOn  = "on"  // https://endpoint/bucket/key
	PathStyleOff = "off" // https://bucket.endpoint/key
)

// Values of [Options.SSE].
const (
	SSES3  = "AES256"
	SSEKMS = "aws:kms"
)

// Options describe the bucket and how to reach it. Only Bucket is required.
// The AWS SDK finds the rest in its own sources: AWS_* variables, the shared
// configuration, the environment's roles. The fields with a tag are for users:
// package location makes flags of them, and package config keys.
type Options struct {
	Bucket string
	Prefix string // folder in the bucket; slashes around it make no difference

	// Endpoint is the URL of a service other than Amazon's.
	Endpoint string `yaml:"endpoint"`
	// Region of the bucket.
	Region string `yaml:"region"`
	// PathStyle puts the bucket in the path of URLs (on) or into the host name
	// (off). By default it is on where there is an endpoint.
	PathStyle string `yaml:"path-style" oneof:"on off"`
	// CAFile holds the only CAs that the service's certificate is verified
	// against, in PEM.
	CAFile string `yaml:"ca-file"`
	// CredentialsFile has aws_access_key_id and aws_secret_access_key in the
	// format of the AWS SDK's shared credentials. It is read again after a minute.
	CredentialsFile string `yaml:"credentials-file"`
	// Profile is the section of the credentials file, or of the shared
	// configuration.
	Profile string `yaml:"profile"`
	// StorageClass of new objects.
	StorageClass string `yaml:"storage-class"`
	// SSE is the server-side encryption of new objects.
	SSE string `yaml:"sse" oneof:"AES256 aws:kms"`
	// SSEKMSKeyID is the key for aws:kms. By default it is the account's own for
	// S3.
	SSEKMSKeyID string `yaml:"sse-kms-key-id"`
	// SSECKeyFile holds a customer key of 32 bytes, raw or in base64. It needs
	// https.
	SSECKeyFile string `yaml:"sse-c-key-file"`
	// Checksum of uploads. auto is sha256, or md5 where the service refuses that.
	Checksum string `yaml:"checksum" default:"auto" oneof:"auto sha256 md5 none"`

	PartBytes       int64         // default 16 MiB, at least 5 MiB; an object has at most 10,000 parts
	Concurrency     int           // parts in flight of one upload; default 3. Memory: one part more
	ProgressTimeout time.Duration // default 60 s

	Logger *slog.Logger // default: discards
}

// Store implements [storage.Store].
type Store struct {
	bucket  *bucket
	service *service
	attrs   attributes
	parts   *parts
}

var (
	_ storage.Store         = (*Store)(nil)
	_ storage.Inspector     = (*Store)(nil)
	_ storage.StaleUploader = (*Store)(nil)
)

const minPartBytes = 5 << 20 // the service's rule for all parts but the last

// New returns the store o describes. It connects to nothing; only files named
// in o or in the SDK's own configuration are read.
func New(ctx context.Context, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("configure s3 store: %w", err)
	}
	b, err := connect(ctx, &o)
	if err != nil {
		return nil, fmt.Errorf("configure s3 store: %w", err)
	}
	return &Store{
		bucket:  b,
		service: newService(&o),
		attrs:   attributes{class: o.StorageClass, sse: o.SSE, kmsKeyID: o.SSEKMSKeyID},
		parts:   newParts(&o),
	}, nil
}

// complete fills in defaults and refuses invalid values.
func (o *Options) complete() error {
	setDefault(&o.Checksum, ChecksumAuto)
	setDefault(&o.PartBytes, 16<<20)
	setDefault(&o.Concurrency, 3)
	setDefault(&o.ProgressTimeout, time.Minute)
	setDefault(&o.Logger, slog.New(slog.DiscardHandler))
	if o.Endpoint != "" && !strings.Contains(o.Endpoint, "://") {
		o.Endpoint = "https://" + o.Endpoint
	}
	switch {
	case o.Bucket == "":
		return errors.New("no bucket")
	case strings.ContainsAny(o.Bucket, "/\\ "):
		return fmt.Errorf("bucket %q: not a name of a bucket", o.Bucket)
	case o.Prefix != "" && storage.CheckKey(strings.Trim(o.Prefix, "/")) != nil:
		return fmt.Errorf("prefix: %w", storage.CheckKey(strings.Trim(o.Prefix, "/")))
	case o.PathStyle != "" && o.PathStyle != PathStyleOn && o.PathStyle != PathStyleOff:
		return fmt.Errorf("path style %q: want %q, %q or nothing", o.PathStyle, PathStyleOn, PathStyleOff)
	case !slices.Contains([]string{ChecksumAuto, ChecksumSHA256, ChecksumMD5, ChecksumNone}, o.Checksum):
		return fmt.Errorf("checksum %q: want auto, sha256, md5 or none", o.Checksum)
	case o.SSE != "" && o.SSE != SSES3 && o.SSE != SSEKMS:
		return fmt.Errorf("server-side encryption %q: want %q, %q or nothing", o.SSE, SSES3, SSEKMS)
	case o.SSEKMSKeyID != "" && o.SSE != SSEKMS:
		return fmt.Errorf("a KMS key needs server-side encryption %q", SSEKMS)
	case o.SSECKeyFile != "" && o.SSE != "":
		return fmt.Errorf("a customer key and server-side encryption %q exclude each other", o.SSE)
	case o.PartBytes < minPartBytes:
		return fmt.Errorf("parts of %d bytes: want at least %d", o.PartBytes, minPartBytes)
	case o.Concurrency < 1 || o.ProgressTimeout < 0:
		return errors.New("concurrency and progress timeout must be positive")
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Bucket returns the bucket's name.
func (s *Store) Bucket() string { return s.bucket.name }
