package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// parts are how large objects are cut, with the buffers that uploads share.
type parts struct {
	concurrency int       // parts in flight of one upload
	bytes       int64     // of one part
	most        int       // of one object, by the service's rule
	buffers     sync.Pool // of *[]byte, bytes long, between uploads
}

func newParts(o *Options) *parts {
	p := &parts{concurrency: o.Concurrency, bytes: o.PartBytes, most: 10_000}
	p.buffers.New = func() any {
		buf := make([]byte, p.bytes)
		return &buf
	}
	return p
}

func (p *parts) buffer() *[]byte { return p.buffers.Get().(*[]byte) }

func (p *parts) put(buf *[]byte) { p.buffers.Put(buf) }

// sendParts uploads first and the rest of src. It owns first.
func sendParts(ctx context.Context, u *upload, p *parts, first *[]byte, src *source) error {
	m := &multipart{upload: u, cut: p, free: make(chan *[]byte, p.concurrency+1)}
	defer m.release()
	for range p.concurrency {
		m.free <- nil // made when it is first needed
	}
	if err := m.begin(ctx); err != nil {
		p.put(first)
		return err
	}
	err := m.send(ctx, first, src)
	if err == nil {
		err = m.finish(ctx)
	}
	if err != nil {
		err = storage.AndLeft(err, m.abort(ctx))
	}
	return err
}

type multipart struct {
	*upload
	cut   *parts
	id    string
	free  chan *[]byte           // the buffers; nil is one that is not made yet
	parts []*types.CompletedPart // by number; each filled in by its own goroutine
	size  int64
}

func (m *multipart) begin(ctx context.Context) error {
	var out *s3.CreateMultipartUploadOutput
	err := m.service.withFeatures(inParts, func(f features) (err error) {
		in := &s3.CreateMultipartUploadInput{
			Bucket: &m.bucket.name, Key: &m.key,
			Metadata:     map[string]string{nonceKey: m.nonce},
			StorageClass: types.StorageClass(m.attrs.class),
		}
		if f.checksum == ChecksumSHA256 {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
		}
		in.ServerSideEncryption, in.SSEKMSKeyId, in.BucketKeyEnabled = m.attrs.encryption()
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = m.bucket.ssec.headers()
		out, err = m.bucket.client.CreateMultipartUpload(ctx, in)
		return err
	})
	if err != nil {
		return fmt.Errorf("create multipart upload: %w", m.bucket.explain(err))
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
	group.SetLimit(m.cut.concurrency)
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
		if number > m.cut.most {
			m.free <- buf
			return fmt.Errorf("object of more than %d parts of %d bytes: larger parts are needed",
				m.cut.most, m.cut.bytes)
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
			buf = m.cut.buffer()
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
	err := m.service.withFeatures(inParts, func(f features) error {
		in := &s3.UploadPartInput{
			Bucket: &m.bucket.name, Key: &m.key, UploadId: &m.id, PartNumber: part.PartNumber,
			Body: bytes.NewReader(body), ContentLength: aws.Int64(int64(len(body))),
			ChecksumSHA256: f.checksumSHA256(sum), ContentMD5: f.contentMD5(body),
		}
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = m.bucket.ssec.headers()
		out, err := m.bucket.client.UploadPart(ctx, in, signPayload(sum))
		if err == nil {
			part.ETag, part.ChecksumSHA256 = out.ETag, in.ChecksumSHA256
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("upload part %d: %w", *part.PartNumber, m.bucket.explain(err))
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
	err := m.service.withFeatures(inComplete, func(f features) error {
		if err := m.absent(ctx, f); err != nil {
			return err
		}
		in := &s3.CompleteMultipartUploadInput{
			Bucket: &m.bucket.name, Key: &m.key, UploadId: &m.id,
			IfNoneMatch:     f.ifNoneMatch(),
			MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}
		in.SSECustomerAlgorithm, in.SSECustomerKey, in.SSECustomerKeyMD5 = m.bucket.ssec.headers()
		_, err := m.bucket.client.CompleteMultipartUpload(ctx, in)
		return err
	})
	return m.settle(ctx, "complete multipart upload", err, m.size)
}

// abort removes the parts, which cost money and are not listed.
func (m *multipart) abort(ctx context.Context) error {
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	if err := m.bucket.abort(fresh, m.key, m.id); err != nil {
		return fmt.Errorf("abort multipart upload: %w", err)
	}
	return nil
}

func (b *bucket) abort(ctx context.Context, key, id string) error {
	in := &s3.AbortMultipartUploadInput{Bucket: &b.name, Key: &key, UploadId: &id}
	_, err := b.client.AbortMultipartUpload(ctx, in)
	if codeOf(err) == "NoSuchUpload" {
		return nil
	}
	return b.explain(err)
}

// release gives the buffers back when all parts have ended.
func (m *multipart) release() {
	for range len(m.free) {
		if buf := <-m.free; buf != nil {
			m.cut.put(buf)
		}
	}
}
