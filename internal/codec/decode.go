package codec

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ErrNoIdentity is returned for encrypted bytes that none of the given identities
// can decrypt.
var ErrNoIdentity = errors.New("no identity decrypts this snapshot")

// Decoder yields the plain form of stored bytes. Read returns io.EOF only if both
// ends had exactly the promised size and SHA-256, and the seek table told of
// exactly the frames before it.
type Decoder struct {
	src    *source
	pieces *pieces
	want   Want
	stored *meter
	unread []byte
	err    error
}

// Want holds the sizes and sums that the manifest promises of both ends.
type Want struct {
	Plain, Stored backup.Blob
	Table         *backup.Blob // of the seek table; nil if none is promised
}

// NewDecoder returns a reader of the plain form of src. It reads src to its end.
// The error wraps [ErrNoIdentity] if ids cannot decrypt src, and
// [backup.ErrCorrupt] if its beginning cannot be parsed.
func NewDecoder(src io.Reader, enc backup.Encoding, want Want, ids Identities) (*Decoder, error) {
	d := &Decoder{want: want, stored: newMeter()}
	d.src = &source{r: io.TeeReader(src, d.stored)}
	r := io.Reader(d.src)
	if enc.Encryption == "age" {
		if len(ids) == 0 {
			return nil, noIdentity(enc)
		}
		plain, err := age.Decrypt(r, ids...)
		if err = wrongIdentity(err, enc); errors.Is(err, ErrNoIdentity) {
			return nil, err
		}
		if err != nil {
			return nil, d.explain("decrypt", err)
		}
		r = plain
	}
	cut, err := newCutter(r, enc.Compression, want)
	if err != nil {
		return nil, d.explain("decompress", err)
	}
	d.pieces = newPieces(cut)
	return d, nil
}

func noIdentity(enc backup.Encoding) error {
	to := fmt.Sprintf("with the secret key of one of: %v", enc.Recipients)
	return backup.WithHints(fmt.Errorf("decrypt: %w: none was given", ErrNoIdentity),
		"give --identity FILE (or BACKUPD_IDENTITY) "+to, "give verify.identity-files "+to)
}

// wrongIdentity is an error of age, with the keys that would have helped.
func wrongIdentity(err error, enc backup.Encoding) error {
	var mismatch *age.NoIdentityMatchError
	if !errors.As(err, &mismatch) {
		return err
	}
	return backup.WithHint(fmt.Errorf("decrypt: %w", ErrNoIdentity), "it was encrypted to: %v", enc.Recipients)
}

// Read yields plain bytes.
func (d *Decoder) Read(p []byte) (int, error) {
	if err := d.fill(); err != nil {
		return 0, err
	}
	n := copy(p, d.unread)
	d.unread = d.unread[n:]
	return n, nil
}

// WriteTo writes all plain bytes to w, in large pieces and without a copy. It returns no error
// only where Read would return io.EOF.
func (d *Decoder) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := d.fill(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(d.unread)
		total += int64(n)
		d.unread = d.unread[n:]
		if err != nil {
			return total, err
		}
	}
}

// fill waits for plain bytes, if none are left.
func (d *Decoder) fill() error {
	if len(d.unread) > 0 {
		return nil
	}
	if d.err != nil {
		return d.err
	}
	piece, err := d.pieces.next()
	switch {
	case err == io.EOF:
		d.err = d.finish()
	case err != nil:
		d.err = d.explain("decode", err)
	default:
		d.unread = piece
	}
	return d.err
}

// finish reads the rest of src and compares both ends.
func (d *Decoder) finish() error {
	plain := d.pieces.close()
	if _, err := io.Copy(io.Discard, d.src); err != nil {
		return d.explain("decode", err)
	}
	if err := Compare("stored object", d.stored.blob(), d.want.Stored); err != nil {
		return err
	}
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
	if d.pieces != nil {
		d.pieces.close() // it reads ahead
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

// Close releases the decoder; it does not close the source, and waits for a Read of it.
func (d *Decoder) Close() error {
	d.pieces.close()
	d.unread = nil
	if d.err == nil {
		d.err = errors.New("decoder is closed")
	}
	return nil
}
