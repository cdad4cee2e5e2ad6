package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// cleanUpTimeout bounds the work that is still done after the caller's context
// has ended.
const cleanUpTimeout = 15 * time.Second

// smallBytes is read before a whole part's buffer is taken, for most objects
// are manifests.
const smallBytes = 64 << 10

// nonceKey is the metadata by which an upload recognizes its own object.
const nonceKey = "backupd-nonce"

// Create implements [storage.Store]. It holds Options.Concurrency + 1 parts in
// memory, and 64 KiB for a small object.
func (s *Store) Create(ctx context.Context, key string, r io.Reader) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	u := &upload{
		bucket: s.bucket, service: s.service, attrs: s.attrs, key: s.bucket.key(key), nonce: backup.RandomName(26),
	}
	if err := s.send(ctx, u, &source{r: storage.ReaderContext(ctx, r)}); err != nil {
		return fmt.Errorf("create %s: %w", key, orContext(ctx, err))
	}
	return nil
}

// send uploads src in one request, or in parts if it is larger than one part.
func (s *Store) send(ctx context.Context, u *upload, src *source) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	small := make([]byte, smallBytes)
	n, last, err := src.next(small)
	if err != nil {
		return err
	}
	if last {
		return u.put(ctx, small[:n])
	}
	buf := s.parts.buffer()
	n = copy(*buf, small)
	more, last, err := src.next((*buf)[n:])
	if err != nil || last {
		defer s.parts.put(buf)
		if err != nil {
			return err
		}
		return u.put(ctx, (*buf)[:n+more])
	}
	return sendParts(ctx, u, s.parts, buf, src)
}

// upload makes one object.
type upload struct {
	bucket  *bucket
	service *service
	attrs   attributes
	key     string // in the bucket
	nonce   string
}

// put uploads a whole object in one request.
func (u *upload) put(ctx context.Context, body []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	err := u.service.withFeatures(inPut, func(f features) error {
		if err := u.absent(ctx, f); err != nil {
			return err
		}
		in := &s3.PutObjectInput{
			Bucket: &u.bucket.name, Key: &u.key, Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
			IfNoneMatch: f.ifNoneMatch(), ChecksumSHA256: f.checksumSHA256(sum), ContentMD5: f.contentMD5(body),
			Metadata:     map[string]string{nonceKey: u.nonce},
			StorageClass: types.StorageClass(u.attrs.class),
		}
		in.ServerSideEncryption, in.SSEKMSKeyId, in.BucketKeyEnabled = u.attrs.encryption()
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = u.bucket.ssec.headers()
		_, err := u.bucket.client.PutObject(ctx, in, signPayload(sum))
		return err
	})
	return u.settle(ctx, "put object", err, int64(len(body)))
}

// absent checks that the key is absent, if the service does not know the
// condition.
func (u *upload) absent(ctx context.Context, f features) error {
	if f.conditional {
		return nil
	}
	_, err := u.bucket.head(ctx, u.key)
	switch {
	case err == nil:
		return fs.ErrExist
	case isNoSuchKey(err):
		return nil
	}
	return err
}

// settle decides whether the request that makes the object has succeeded.
//
// An error need not mean that nothing was stored. When the answer to a request
// that succeeded is lost, the next attempt fails because the object exists (412)
// or the upload is gone (404); and ten answers in a row may be lost. So settle
// asks for the object: with our nonce and our size it is ours, and whole.
func (u *upload) settle(ctx context.Context, what string, err error, size int64) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) || !leavesDoubt(err) {
		return u.explain(what, err)
	}
	// The context is fresh because a cancelled Create has to know as well: if it
	// was cancelled too late it has succeeded.
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	found, herr := u.bucket.head(fresh, u.key)
	switch {
	case herr == nil && found.nonce == u.nonce && found.Size == size:
		return nil
	case herr == nil && ctx.Err() == nil,
		statusOf(err) == http.StatusPreconditionFailed && statusOf(herr) == http.StatusForbidden:
		return fs.ErrExist
	}
	return u.explain(what, err)
}

func (u *upload) explain(what string, err error) error {
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return fmt.Errorf("%s: %w", what, u.bucket.explain(err))
}

// leavesDoubt reports whether the object may be there in spite of err: always,
// unless the service has refused the request itself.
func leavesDoubt(err error) bool {
	var creds *credentialsError
	if errors.As(err, &creds) {
		return creds.transient // else nothing was ever sent
	}
	code, status, _ := response(err)
	switch status {
	case http.StatusConflict, http.StatusPreconditionFailed, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotFound:
		return code == "NoSuchUpload" || isForeign(err)
	}
	return status < 400 || status >= 500 && status != http.StatusNotImplemented
}

// attributes are those of new objects.
type attributes struct{ class, sse, kmsKeyID string }

func (a attributes) encryption() (types.ServerSideEncryption, *string, *bool) {
	switch {
	case a.sse == "":
		return "", nil, nil
	case a.sse == SSES3:
		return SSES3, nil, nil
	case a.kmsKeyID == "":
		return SSEKMS, nil, aws.Bool(true) // one call of KMS for many objects
	}
	return SSEKMS, &a.kmsKeyID, aws.Bool(true)
}

// source reads an object's bytes part by part. It looks one byte ahead, to
// know the last part when it is read.
type source struct {
	r     io.Reader
	ahead [1]byte
	held  int // bytes in ahead
}

// next fills p as far as the bytes go and reports whether they were the last.
// It does not use io.ReadFull: that returns io.ErrUnexpectedEOF at the end of r,
// as r itself does when its source is cut, and a truncated object would be stored.
func (s *source) next(p []byte) (n int, last bool, err error) {
	n = copy(p, s.ahead[:s.held])
	s.held = 0
	if n, last, err = s.fill(p, n); last || err != nil {
		return n, last, err
	}
	s.held, last, err = s.fill(s.ahead[:], 0)
	return n, last, err
}

func (s *source) fill(p []byte, n int) (int, bool, error) {
	for empty := 0; n < len(p); {
		m, err := s.r.Read(p[n:])
		n += m
		if err == io.EOF && n == len(p) {
			return n, false, nil // the byte ahead will find the end again
		}
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
		if m > 0 {
			empty = 0
		} else if empty++; empty == 100 {
			return n, false, io.ErrNoProgress
		}
	}
	return n, false, nil
}
