package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Open implements [storage.Store].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	r, err := s.bucket.get(ctx, key, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, orContext(ctx, err))
	}
	return r, nil
}

func (b *bucket) get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 {
		return nil, fmt.Errorf("offset %d: %w", offset, fs.ErrInvalid)
	}
	if length == 0 || offset == math.MaxInt64 {
		return b.empty(ctx, key) // there is no way to ask for no bytes
	}
	full := b.key(key)
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &full, Range: rangeHeader(offset, length)}
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = b.ssec.headers()
	out, err := b.client.GetObject(ctx, in)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		return b.empty(ctx, key) // the range starts at or past the end
	}
	if err != nil {
		return nil, fmt.Errorf("get object: %w", b.explainRead(key, err))
	}
	n, err := promised(out, offset, length)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("get object: %w", err), out.Body.Close())
	}
	return &body{ctx: ctx, r: storage.ExactReader(out.Body, n), c: out.Body, etag: cleanETag(out.ETag)}, nil
}

// empty returns a reader of no bytes of an object, which must exist.
func (b *bucket) empty(ctx context.Context, key string) (io.ReadCloser, error) {
	o, err := b.stat(ctx, key)
	if err != nil {
		return nil, err
	}
	return &body{ctx: ctx, r: strings.NewReader(""), c: io.NopCloser(nil), etag: o.ETag}, nil
}

func rangeHeader(offset, length int64) *string {
	switch {
	case offset == 0 && length < 0:
		return nil
	case length < 0 || length > math.MaxInt64-offset:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
}

// promised returns how many bytes the answer has for a range, or an error if the
// answer has another range.
func promised(out *s3.GetObjectOutput, offset, length int64) (int64, error) {
	if out.ContentRange == nil {
		// A service that knows no ranges sends the whole object.
		if offset > 0 {
			return 0, errors.New("the service ignored the range")
		}
		if out.ContentLength == nil {
			return 0, errors.New("answer without a length")
		}
		_, n, err := storage.Range(*out.ContentLength, 0, length)
		return n, err
	}
	first, last, size, ok := parseContentRange(*out.ContentRange)
	if !ok || first != offset || last < first {
		return 0, fmt.Errorf("asked for %d bytes from %d on, got range %q", length, offset, *out.ContentRange)
	}
	n := last - first + 1
	if _, want, _ := storage.Range(size, offset, length); n != want {
		return 0, fmt.Errorf("asked for %d bytes from %d on, got range %q", length, offset, *out.ContentRange)
	}
	return n, nil
}

// parseContentRange parses "bytes FIRST-LAST/SIZE".
func parseContentRange(header string) (first, last, size int64, ok bool) {
	span, total, ok1 := strings.Cut(strings.TrimPrefix(header, "bytes "), "/")
	from, to, ok2 := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	return first, last, size, ok1 && ok2 && err1 == nil && err2 == nil && err3 == nil
}

// body is the answer to a GET.
type body struct {
	ctx  context.Context // the one given to Open, which covers the reading
	r    io.Reader
	c    io.Closer
	etag string
}

func (b *body) ETag() string { return b.etag }
func (b *body) Close() error { return b.c.Close() }

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != io.EOF {
		err = orContext(b.ctx, err)
	}
	return n, err
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, err
	}
	o, err := s.bucket.stat(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, orContext(ctx, err))
	}
	return o, nil
}

func (b *bucket) stat(ctx context.Context, key string) (storage.Object, error) {
	found, err := b.head(ctx, b.key(key))
	if err != nil {
		return storage.Object{}, fmt.Errorf("head object: %w", b.explainRead(key, err))
	}
	found.Key = key
	return found.Object, nil
}

// explainRead adds how to get an archived object, and that a service hides missing keys if the
// credentials may not list the bucket.
func (b *bucket) explainRead(key string, err error) error {
	explained := b.explain(err)
	var hint *backup.HintError
	switch {
	case codeOf(err) == archived:
		return backup.WithHint(explained, "a life-cycle rule has archived the object: bring it back first, with 'aws s3api "+
			"restore-object --bucket %s --key %s --restore-request Days=7', and take the rule off the repository",
			b.name, b.key(key))
	case statusOf(err) == http.StatusForbidden && !errors.As(explained, &hint):
		return backup.WithHint(explained, "either the credentials may not read the object, "+
			"or it does not exist and they may not list the bucket")
	}
	return explained
}

// found is an object and the nonce of the upload that made it.
type found struct {
	storage.Object
	nonce string
}

// head asks for a key of the bucket. Its errors are the SDK's. An answer to HEAD has no body,
// so a 404 says neither what is missing nor that it is the service that answers: GET does.
func (b *bucket) head(ctx context.Context, full string) (found, error) {
	in := &s3.HeadObjectInput{Bucket: &b.name, Key: &full}
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = b.ssec.headers()
	for look := 1; ; look++ {
		out, err := b.client.HeadObject(ctx, in)
		if err == nil {
			return found{
				Object: storage.Object{
					Size: aws.ToInt64(out.ContentLength), ModTime: aws.ToTime(out.LastModified), ETag: cleanETag(out.ETag),
				},
				nonce: out.Metadata[nonceKey],
			}, nil
		}
		if statusOf(err) != http.StatusNotFound {
			return found{}, err
		}
		if gerr := b.getByte(ctx, full); gerr != nil {
			return found{}, gerr
		}
		if look == 2 { // the object was not made between the two questions
			return found{}, err
		}
	}
}

// getByte reads a byte of an object, if it has one. Its errors are the SDK's.
func (b *bucket) getByte(ctx context.Context, full string) error {
	in := &s3.GetObjectInput{Bucket: &b.name, Key: &full, Range: rangeHeader(0, 1)}
	in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = b.ssec.headers()
	out, err := b.client.GetObject(ctx, in)
	if err == nil {
		_ = out.Body.Close() // it has answered
	} else if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		return nil
	}
	return err
}

// cleanETag drops the quotes, which not all services put everywhere.
func cleanETag(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }
