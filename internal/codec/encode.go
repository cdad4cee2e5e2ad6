package codec

import (
	"bufio"
	"fmt"
	"io"
	"runtime"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
)

const (
	// pipeBytes is how much stored output is buffered: a pipe switches goroutines
	// at each write.
	pipeBytes = 256 << 10
	// windowBytes stays in a processor's cache and bounds the memory of a decoder.
	windowBytes = 1 << 20
)

// Encoder yields the stored form of the bytes it reads. It must be closed, even
// after an error: Close ends the goroutine that encodes.
type Encoder struct {
	pr     *io.PipeReader
	done   chan struct{}
	plain  backup.Checksum
	stored *meter
}

// NewEncoder returns a reader of the stored form of src. Read returns an error of
// src, so that the store sees it and stores nothing.
func NewEncoder(src io.Reader, o Options) (*Encoder, error) {
	pr, pw := io.Pipe()
	e := &Encoder{pr: pr, done: make(chan struct{}), stored: newMeter()}
	out := bufio.NewWriterSize(io.MultiWriter(e.stored, pw), pipeBytes)
	w, err := encodeTo(out, o)
	if err != nil {
		return nil, err
	}
	go func() {
		defer close(e.done)
		_, err := io.CopyBuffer(io.MultiWriter(&e.plain, w), onlyReader{src}, make([]byte, pipeBytes))
		// The writer is closed even after an error: zstd holds goroutines.
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = out.Flush()
		}
		pw.CloseWithError(err) // nil means EOF
	}()
	return e, nil
}

// onlyReader hides WriteTo, so that CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// encodeTo returns a writer that compresses into a writer that encrypts into out.
func encodeTo(out io.Writer, o Options) (io.WriteCloser, error) {
	var w io.WriteCloser = nopCloser{out}
	if o.Recipients.Len() > 0 {
		enc, err := age.Encrypt(out, o.Recipients.list...)
		if err != nil {
			return nil, fmt.Errorf("begin encryption: %w", err)
		}
		w = enc
	}
	switch o.Compress {
	case None:
		return w, nil
	case Zstd:
		// SpeedFastest keeps up with etcd's stream on one core.
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(min(runtime.GOMAXPROCS(0), 4)), zstd.WithWindowSize(windowBytes))
		if err != nil {
			return nil, fmt.Errorf("begin compression: %w", err)
		}
		return &stacked{Writer: z, closers: []io.Closer{z, w}}, nil
	}
	return nil, fmt.Errorf("compression %q is not known", o.Compress)
}

// Read yields stored bytes.
func (e *Encoder) Read(p []byte) (int, error) { return e.pr.Read(p) }

// Close ends the encoding. A later Read returns an error.
func (e *Encoder) Close() error {
	err := e.pr.Close()
	<-e.done
	return err
}

// Sums returns the checksum of the plain bytes that were read, and the size and
// SHA-256 of the stored bytes. They are complete after Read has returned io.EOF.
// The caller has computed the SHA-256 of the plain bytes before.
func (e *Encoder) Sums() (plain backup.Checksum, stored backup.Blob) {
	<-e.done
	return e.plain, e.stored.blob()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// stacked closes a stack of writers from the inside out.
type stacked struct {
	io.Writer
	closers []io.Closer
}

func (s *stacked) Close() error {
	var first error
	for _, c := range s.closers {
		if err := c.Close(); first == nil {
			first = err
		}
	}
	return first
}
