package s3

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// bucket is a folder in a bucket and the client that sends the requests for it.
// It explains the SDK's errors.
type bucket struct {
	name     string
	prefix   string // empty or ends in a slash
	client   *s3.Client
	ssec     *customerKey
	attempts attempts
}

func newBucket(o *Options) *bucket {
	b := &bucket{name: o.Bucket, attempts: newAttempts(o)}
	if prefix := strings.Trim(o.Prefix, "/"); prefix != "" {
		b.prefix = prefix + "/"
	}
	return b
}

func (b *bucket) key(key string) string { return b.prefix + key }

// ours reports whether a key of the bucket is one that backupd would write.
func (b *bucket) ours(full string) bool {
	key, ok := strings.CutPrefix(full, b.prefix)
	if !ok {
		return false
	}
	if key == backup.MarkerKey {
		return true
	}
	_, err := backup.ParseKey(key)
	return err == nil
}

func (b *bucket) explain(err error) error { return explain(b.name, err) }
