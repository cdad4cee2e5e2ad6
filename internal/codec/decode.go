package codec

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// maxWindow bounds the memory that a stored object can make a decoder use. The
// window of our own objects is windowBytes; objects written by zstd's command
// line at its default levels fit as well.
const maxWindow = 32 << 20

// ErrNoIdentity is returned for encrypted bytes that none of the given identities
// can decrypt.
var ErrNoIdentity = errors.New("no identity decrypts this snapshot")

// Decoder yields the plain form of stored bytes. Read returns io.EOF only if both
// ends had exactly the promised size and SHA-256.
type Decoder struct {
	src    *source
	r      io.Reader
	zr     *zstd.Decoder
	want   Want
	plain  *behindMeter // nil after its sum was read
	stored *meter
	err    error
}

// Want holds the sizes and sums that the manifest promises of both ends.
type Want struct{ Plain, Stored backup.Blob }

// NewDecoder returns a reader of the plain form of src. It reads src to its end.
// The error wraps [ErrNoIdentity] if ids cannot decrypt src, and
// [backup.ErrCorrupt] if its beginning cannot be parsed.
func NewDecoder(src io.Reader, enc backup.Encoding, want Want, ids Identities) (*Decoder, error) {
	d := &Decoder{want: want, stored: newMeter()}
	d.src = &source{r: io.TeeReader(src, d.stored)}
	d.r = d.src
	if enc.Encryption == "age" {
		if len(ids) == 0 {
			to := fmt.Sprintf("with the secret key of one of: %v", enc.Recipients)
			return nil, backup.WithHints(fmt.Errorf("decrypt: %w: none was given", ErrNoIdentity),
				"give --identity FILE (or BACKUPD_IDENTITY) "+to, "give verify.identity-files "+to)
		}
		r, err := age.Decrypt(d.r, ids...)
		var mismatch *age.NoIdentityMatchError
		if errors.As(err, &mismatch) {
			return nil, backup.WithHint(fmt.Errorf("decrypt: %w", ErrNoIdentity),
				"it was encrypted to: %v", enc.Recipients)
		}
		if err != nil {
			return nil, d.explain("decrypt", err)
		}
		d.r = r
	}
	if enc.Compression == "zstd" {
		zr, err := zstd.NewReader(d.r, zstd.WithDecoderMaxWindow(maxWindow),
			// Both ends have a SHA-256; the frame's own checksum would add nothing.
			zstd.IgnoreChecksum(true), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, d.explain("decompress", err)
		}
		d.zr, d.r = zr, zr
	}
	d.plain = newBehindMeter()
	return d, nil
}

// Read yields plain bytes.
func (d *Decoder) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.r.Read(p)
	_, _ = d.plain.Write(p[:n])
	switch {
	case d.plain.n > d.want.Plain.Bytes:
		// This also stops a small object that decodes to a huge one.
		d.err = d.explain("decode", fmt.Errorf("more than the %d plain bytes in the manifest", d.want.Plain.Bytes))
		return 0, d.err
	case err == io.EOF:
		d.err = d.finish()
	case err != nil:
		d.err = d.explain("decode", err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, d.err
}

// finish reads the rest of src and compares both ends.
func (d *Decoder) finish() error {
	if _, err := io.Copy(io.Discard, d.src); err != nil {
		return d.explain("decode", err)
	}
	if err := Compare("stored object", d.stored.blob(), d.want.Stored); err != nil {
		return err
	}
	plain := d.plain.close()
	d.plain = nil
	if err := Compare("snapshot", plain, d.want.Plain); err != nil {
		return err
	}
	return io.EOF
}

// Compare returns an error that names both sums if got differs from want.
func Compare(what string, got, want backup.Blob) error {
	switch {
	case got.Bytes < want.Bytes:
		return backup.Corruptf("%s is truncated: %d bytes, want %d", what, got.Bytes, want.Bytes)
	case got.Bytes > want.Bytes:
		return backup.Corruptf("%s is too long: %d bytes, want %d", what, got.Bytes, want.Bytes)
	case got.SHA256 != want.SHA256:
		return backup.Corruptf("%s is damaged: expected sha256 %s, got %s", what, want.SHA256, got.SHA256)
	}
	return nil
}

// Stored returns the size and sum of the stored bytes. They are complete once
// Read has returned io.EOF or an error that wraps [backup.ErrCorrupt].
func (d *Decoder) Stored() backup.Blob { return d.stored.blob() }

// explain distinguishes read errors from damage. It returns an error of the source
// as it is; any other error comes from a decoder and means damage. Then it reads
// the rest of the source, because the sum says more than a decoder can: whether
// the object was cut, was changed or is another one.
func (d *Decoder) explain(verb string, err error) error {
	if d.zr != nil {
		d.zr.Close() // it reads ahead
	}
	if d.src.err != nil {
		return fmt.Errorf("%s: %w", verb, d.src.err)
	}
	if _, rerr := io.Copy(io.Discard, d.src); rerr != nil {
		return fmt.Errorf("%s: %w", verb, rerr)
	}
	if cmp := Compare("stored object", d.stored.blob(), d.want.Stored); cmp != nil {
		return fmt.Errorf("%w (%s: %w)", cmp, verb, err)
	}
	return backup.Corruptf("%s: %w", verb, err)
}

// source remembers the error of its reader, because the decoders above may wrap
// or replace it.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Close releases the decoder; it does not close the source.
func (d *Decoder) Close() error {
	if d.zr != nil {
		d.zr.Close()
	}
	if d.plain != nil {
		d.plain.close()
		d.plain = nil
	}
	if d.err == nil {
		d.err = errors.New("decoder is closed")
	}
	return nil
}
