package codec

import (
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Encoder yields the stored form of the bytes it reads. It must be closed, even
// after an error: Close ends the goroutines that compress.
type Encoder struct {
	out    io.Reader
	frames *compressor // nil without compression
	plain  *backup.Checksum
	stored *meter
}

// NewEncoder returns a reader of the stored form of src. Read returns an error of
// src, so that the store sees it and stores nothing.
func NewEncoder(src io.Reader, o Options) (*Encoder, error) {
	e := &Encoder{plain: &backup.Checksum{}, stored: newMeter()}
	plain := io.TeeReader(src, e.plain)
	out := plain
	switch o.Compress {
	case None:
	case Zstd:
		z, err := newCompressor(plain)
		if err != nil {
			return nil, fmt.Errorf("begin compression: %w", err)
		}
		e.frames, out = z, z
	default:
		return nil, fmt.Errorf("compression %q is not known", o.Compress)
	}
	if o.Recipients.Len() > 0 {
		enc, err := age.EncryptReader(out, o.Recipients.list...)
		if err != nil {
			return nil, fmt.Errorf("begin encryption: %w", err)
		}
		out = enc
	}
	if e.frames != nil {
		e.frames.begin()
	}
	e.out = io.TeeReader(out, e.stored)
	return e, nil
}

// Read yields stored bytes.
func (e *Encoder) Read(p []byte) (int, error) { return e.out.Read(p) }

// Close ends the encoding. It waits for a Read of the source.
func (e *Encoder) Close() error {
	if e.frames != nil {
		e.frames.close()
	}
	return nil
}

// Sums returns the checksum of the plain bytes that were read, and the size and
// SHA-256 of the stored bytes. It may be called once Read has returned io.EOF.
// The caller has computed the SHA-256 of the plain bytes before.
func (e *Encoder) Sums() (plain backup.Checksum, stored backup.Blob) {
	return *e.plain, e.stored.blob()
}

// Table returns the size and the sum of the seek table, or nil if there is none. It may be
// called once Read has returned io.EOF.
func (e *Encoder) Table() *backup.Blob {
	if e.frames == nil {
		return nil
	}
	return &e.frames.sum
}
