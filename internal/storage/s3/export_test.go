package s3

import (
	"context"
	"iter"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// Hurry makes the pauses between attempts short.
func (s *Store) Hurry() *Store {
	s.bucket.attempts.delay = backoff{time.Millisecond, 5 * time.Millisecond}
	return s
}

// LimitParts is for tests that cannot upload ten thousand parts.
func (s *Store) LimitParts(n int) *Store {
	s.parts.most = n
	return s
}

// ProgressConn wraps a connection as the store does.
func ProgressConn(c net.Conn, timeout time.Duration) net.Conn {
	return &progressConn{Conn: c, timeout: timeout}
}

// Pause is the pause before another attempt, at the store's own pace.
func Pause(attempt int) time.Duration {
	return backoff{250 * time.Millisecond, 30 * time.Second}.pause(attempt)
}

// FileCredentials are the keys in a file, as the store caches them.
func FileCredentials(path string) aws.CredentialsProvider {
	return aws.NewCredentialsCache(&fileCredentials{path: path})
}

// ListPages lists in pages of a few keys.
func (s *Store) ListPages(ctx context.Context, prefix, after string, pageKeys int32) iter.Seq2[storage.Object, error] {
	return s.bucket.list(ctx, prefix, after, pageKeys)
}

// Lapse ends the time for which the service is believed not to have what it has not named.
func (s *Store) Lapse() {
	s.service.mu.Lock()
	defer s.service.mu.Unlock()
	if !s.service.until.IsZero() {
		s.service.until = s.service.until.Add(-believed)
	}
}
