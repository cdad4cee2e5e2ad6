package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
)

const smallSize = 1000

// seed names one of the contents that a probe writes.
type seed byte

const (
	seedFirst seed = iota + 1
	seedSecond
)

// newPattern returns n random bytes, always the same for one seed. A store that
// compresses, or returns other bytes, cannot get them right by chance.
func newPattern(s seed, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(s)}), n)
}

// patternAt returns n bytes of it from offset on.
func patternAt(s seed, offset, n int64) []byte {
	r := newPattern(s, offset+n)
	_, _ = io.CopyN(io.Discard, r, offset) // never fails
	out := make([]byte, n)
	_, _ = io.ReadFull(r, out) // never fails
	return out
}

// read reads the small object whole and in ranges.
func (p *probe) read(ctx context.Context, small written) {
	const permission = "read below the repository's prefix (s3:GetObject)"
	if err := small.compare(ctx, p.s, 0, -1); err != nil {
		p.failed("read", err, permission)
		return
	}
	p.ok("read", "the bytes came back as they were stored")
	for _, r := range []struct{ offset, length int64 }{
		{0, 10}, {500, 100}, {smallSize - 1, 1}, {900, -1}, {990, 100}, {smallSize, 10}, {smallSize + 5, 10},
	} {
		if err := small.compare(ctx, p.s, r.offset, r.length); err != nil {
			p.failed("read ranges", err, permission)
			return
		}
	}
	p.ok("read ranges", "ranges at the start, in the middle, across the end and past it are correct")
}

// written is an object that a probe has created, with what it should hold.
type written struct {
	key     string
	content seed
	size    int64
}

// compare compares a range of the object with what it should hold.
func (w written) compare(ctx context.Context, s Store, offset, length int64) error {
	got, err := readRange(ctx, s, w.key, offset, length)
	if err != nil {
		return err
	}
	start, n, err := Range(w.size, offset, length)
	if err != nil {
		return err
	}
	if want := patternAt(w.content, start, n); !bytes.Equal(got, want) {
		return fmt.Errorf("%s: got other bytes than were stored: "+
			"asked for %d bytes from %d on, got %d bytes that differ", w.key, n, offset, len(got))
	}
	return nil
}

// compareLarge reads a large object whole, and a range over the border of its
// parts.
func (w written) compareLarge(ctx context.Context, s Store, partBytes int64) (err error) {
	r, err := s.Open(ctx, w.key, 0, -1)
	if err != nil {
		return err
	}
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("read %s: %w", w.key, err)
	}
	_, _ = io.Copy(want, newPattern(w.content, w.size)) // never fails
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		return fmt.Errorf("%s: got other bytes than were stored: %d came, %d were sent", w.key, n, w.size)
	}
	return w.compare(ctx, s, partBytes-50, 51)
}

func readRange(ctx context.Context, s Store, key string, offset, length int64) ([]byte, error) {
	r, err := s.Open(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(r)
	return got, errors.Join(err, r.Close())
}

func (p *probe) list(ctx context.Context) {
	const step = "list"
	folder := p.folder + "/list/"
	for _, name := range OrderNames {
		if err := p.s.Create(ctx, folder+name, strings.NewReader(name)); err != nil {
			p.failed(step, err, "write below the repository's prefix (s3:PutObject)")
			return
		}
		p.created = append(p.created, folder+name)
	}
	for _, from := range []struct{ prefix, after string }{
		{folder, ""}, {folder + "a", ""}, {folder + "a/", ""}, {p.folder + "/none", ""},
		{folder, folder + "a-1"}, {folder, folder + "a."}, {folder, folder + "a/1"},
	} {
		if !p.listFrom(ctx, folder, from.prefix, from.after) {
			return
		}
	}
	p.listing = true
	p.ok(step, "new objects are listed at once, in the order of their keys")
}

// listFrom compares one listing of the objects that list has created in folder.
func (p *probe) listFrom(ctx context.Context, folder, prefix, after string) bool {
	const step, permission = "list", "list the repository's prefix (s3:ListBucket)"
	var want []string
	for _, name := range slices.Sorted(slices.Values(OrderNames)) {
		if key := folder + name; strings.HasPrefix(key, prefix) && key > after {
			want = append(want, key)
		}
	}
	var got []string
	for obj, err := range p.s.List(ctx, prefix, after) {
		if err != nil {
			p.failed(step, err, permission)
			return false
		}
		if name := strings.TrimPrefix(obj.Key, folder); obj.Size != int64(len(name)) {
			p.fail(step, "", "%s is listed with %d bytes, it has %d", obj.Key, obj.Size, len(name))
			return false
		}
		got = append(got, obj.Key)
	}
	if !slices.Equal(got, want) {
		below := "below " + prefix
		if after != "" {
			below += ", after " + after
		}
		p.fail(step, "", "%s these keys should be listed, in this order: %q; got %q", below, want, got)
		return false
	}
	return true
}

// large tries an object that is uploaded in parts.
func (p *probe) large(ctx context.Context) {
	const step, again = "large object", "large object if absent"
	key, size := p.folder+"/large", p.partBytes+1
	large := written{key, seedFirst, size}
	if err := p.s.Create(ctx, key, newPattern(seedFirst, size)); err != nil {
		p.failed(step, err, "write below the repository's prefix, in parts too (s3:PutObject, s3:AbortMultipartUpload)")
		return
	}
	p.created = append(p.created, key)
	if err := large.compareLarge(ctx, p.s, p.partBytes); err != nil {
		p.failed(step, err, "read below the repository's prefix (s3:GetObject)")
		return
	}
	p.ok(step, "an object of %d bytes, more than one part, came back as it was stored", size)

	// The size differs too, which shows at once that the object was replaced.
	err := p.s.Create(ctx, key, newPattern(seedSecond, size+1))
	switch {
	case err == nil:
		p.fail(again, replacedTodo, "the store replaced an existing large object: "+
			"it ignores the condition that the key is absent (If-None-Match) when it completes an upload in parts")
		return
	case errors.Is(err, fs.ErrPermission):
		p.warn(again, "", "the store refuses to replace a large object, but does not report that it exists: %v", err)
	case !errors.Is(err, fs.ErrExist):
		p.failed(again, err,
			"write below the repository's prefix, in parts too (s3:PutObject, s3:AbortMultipartUpload)")
		return
	}
	if err := large.compare(ctx, p.s, size-100, -1); err != nil {
		p.failed(again, fmt.Errorf("after an attempt to replace it: %w", err),
			"read below the repository's prefix (s3:GetObject)")
		return
	}
	var left *LeftError
	if errors.As(err, &left) {
		p.warn(again, "let the credentials abort uploads in parts (s3:AbortMultipartUpload), or let a life-cycle rule of "+
			"the bucket do it", "an existing large object is not replaced, and its parts stay: %v", left.Left)
		return
	}
	p.ok(again, "an existing large object is not replaced")
}
