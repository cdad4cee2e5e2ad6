package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"
)

// multipart uploads first and the rest of src. It owns first.
func (u *upload) multipart(ctx context.Context, first *[]byte, src *source) error {
	m := &multipart{upload: u, free: make(chan *[]byte, u.s.o.Concurrency+1)}
	defer m.release()
	for range u.s.o.Concurrency {
		m.free <- nil // made when it is first needed
	}
	if err := m.begin(ctx); err != nil {
		u.s.buffers.Put(first)
		return err
	}
	err := m.send(ctx, first, src)
	if err == nil {
		err = m.finish(ctx)
	}
	if err != nil {
		err = errors.Join(err, m.abort(ctx))
	}
	return err
}

type multipart struct {
	*upload
	id    string
	free  chan *[]byte           // the buffers; nil is one that is not made yet
	parts []*types.CompletedPart // by number; each filled in by its own goroutine
	size  int64
}

func (m *multipart) begin(ctx context.Context) error {
	var out *s3.CreateMultipartUploadOutput
	err := m.s.withFeatures(inParts, func(f features) (err error) {
		in := &s3.CreateMultipartUploadInput{
			Bucket: &m.s.o.Bucket, Key: &m.key,
			Metadata:     map[string]string{nonceKey: m.nonce},
			StorageClass: types.StorageClass(m.s.o.StorageClass),
		}
		if f.checksum == ChecksumSHA256 {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
		}
		in.ServerSideEncryption, in.SSEKMSKeyId, in.BucketKeyEnabled = m.s.encryption()
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = m.s.ssec.headers()
		out, err = m.s.client.CreateMultipartUpload(ctx, in)
		return err
	})
	if err != nil {
		return fmt.Errorf("create multipart upload: %w", m.s.explain(err))
	}
	m.id = aws.ToString(out.UploadId)
	return nil
}

// send uploads all parts. When it returns no part is in flight, so that an
// abort finds all of them.
func (m *multipart) send(ctx context.Context, buf *[]byte, src *source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, inFlight := errgroup.WithContext(ctx)
	group.SetLimit(m.s.o.Concurrency)
	err := m.readParts(inFlight, buf, src, group)
	if err != nil {
		cancel() // the object has failed: do not wait for its parts
		_ = group.Wait()
		return err
	}
	return group.Wait()
}

// readParts hands each part to the group. It returns nil when a part failed:
// the group has the error.
func (m *multipart) readParts(inFlight context.Context, buf *[]byte, src *source, group *errgroup.Group) error {
	n, last := len(*buf), false
	for number := 1; ; number++ {
		if number > m.s.maxParts {
			m.free <- buf
			return fmt.Errorf("object of more than %d parts of %d bytes: larger parts are needed",
				m.s.maxParts, m.s.o.PartBytes)
		}
		body := (*buf)[:n]
		m.size += int64(n)
		part, sent := &types.CompletedPart{PartNumber: aws.Int32(int32(number))}, buf
		m.parts = append(m.parts, part)
		group.Go(func() error {
			defer func() { m.free <- sent }()
			return m.part(inFlight, part, body)
		})
		if last {
			return nil
		}
		select {
		case buf = <-m.free:
		case <-inFlight.Done():
			return nil
		}
		if buf == nil {
			buf = m.s.buffers.Get().(*[]byte)
		}
		var err error
		if n, last, err = src.next(*buf); err != nil {
			m.free <- buf
			return err
		}
	}
}

// part uploads body and fills in part, which finish sends.
func (m *multipart) part(ctx context.Context, part *types.CompletedPart, body []byte) error {
	sum := sha256.Sum256(body)
	err := m.s.withFeatures(inParts, func(f features) error {
		in := &s3.UploadPartInput{
			Bucket: &m.s.o.Bucket, Key: &m.key, UploadId: &m.id, PartNumber: part.PartNumber,
			Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
			ChecksumSHA256: f.checksumSHA256(sum), ContentMD5: f.contentMD5(body),
		}
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = m.s.ssec.headers()
		out, err := m.s.client.UploadPart(ctx, in, signPayload(sum))
		if err == nil {
			part.ETag, part.ChecksumSHA256 = out.ETag, in.ChecksumSHA256
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("upload part %d: %w", *part.PartNumber, m.s.explain(err))
	}
	return nil
}

func (m *multipart) finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	parts := make([]types.CompletedPart, len(m.parts))
	for i, p := range m.parts {
		parts[i] = *p
	}
	err := m.s.withFeatures(inComplete, func(f features) error {
		if err := m.absent(ctx, f); err != nil {
			return err
		}
		in := &s3.CompleteMultipartUploadInput{
			Bucket: &m.s.o.Bucket, Key: &m.key, UploadId: &m.id,
			IfNoneMatch:     f.ifNoneMatch(),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = m.s.ssec.headers()
		_, err := m.s.client.CompleteMultipartUpload(ctx, in)
		return err
	})
	return m.settle(ctx, "complete multipart upload", err, m.size)
}

// abort removes the parts, which cost money and are not listed.
func (m *multipart) abort(ctx context.Context) error {
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	if err := m.s.abort(fresh, m.key, m.id); err != nil {
		return fmt.Errorf("abort multipart upload: %w", err)
	}
	return nil
}

func (s *Store) abort(ctx context.Context, key, id string) error {
	in := &s3.AbortMultipartUploadInput{Bucket: &s.o.Bucket, Key: &key, UploadId: &id}
	_, err := s.client.AbortMultipartUpload(ctx, in)
	if codeOf(err) == "NoSuchUpload" {
		return nil
	}
	return s.explain(err)
}

// release gives the buffers back when all parts have ended.
func (m *multipart) release() {
	for range len(m.free) {
		if buf := <-m.free; buf != nil {
			m.s.buffers.Put(buf)
		}
	}
}
