package behind_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/behind"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestWriter_Order writes in pieces of all sizes, in both ways.
func TestWriter_Order(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var want, got bytes.Buffer
	w := behind.NewWriter(func(p []byte) error {
		_, err := got.Write(p)
		return err
	})
	for i := range 60 {
		piece := make([]byte, rng.IntN(1<<uint(i%22)))
		for j := range piece {
			piece[j] = byte(rng.Uint32())
		}
		want.Write(piece)
		var n int64
		var err error
		if i%3 == 0 {
			n, err = w.ReadFrom(iotest.HalfReader(bytes.NewReader(piece)))
		} else {
			var k int
			k, err = w.Write(piece)
			n = int64(k)
		}
		if n != int64(len(piece)) || err != nil {
			t.Fatalf("wrote %d of %d bytes: %v", n, len(piece), err)
		}
		clear(piece) // it was copied
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("got %d bytes, want the %d written", got.Len(), want.Len())
	}
}

// endless yields zeros for ever.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestWriter_WorkFails ends the writer early, with the work's own error.
func TestWriter_WorkFails(t *testing.T) {
	full := errors.New("disk full")
	for name, fill := range map[string]func(*behind.Writer) error{
		"Write":    func(w *behind.Writer) error { _, err := io.Copy(struct{ io.Writer }{w}, endless{}); return err },
		"ReadFrom": func(w *behind.Writer) error { _, err := w.ReadFrom(endless{}); return err },
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			w := behind.NewWriter(func([]byte) error {
				if calls++; calls == 3 {
					return full
				}
				return nil
			})
			if err := fill(w); !errors.Is(err, full) {
				t.Errorf("error %v, want that of the work", err)
			}
			if err := w.Close(); !errors.Is(err, full) || calls != 3 {
				t.Errorf("close: %v after %d calls, want the error of the third", err, calls)
			}
		})
	}
}

// TestWriter_SourceFails hands over all that was read before the error.
func TestWriter_SourceFails(t *testing.T) {
	cut := errors.New("connection reset")
	var got bytes.Buffer
	w := behind.NewWriter(func(p []byte) error { _, err := got.Write(p); return err })
	n, err := w.ReadFrom(io.MultiReader(bytes.NewReader([]byte("abc")), iotest.ErrReader(cut)))
	if n != 3 || !errors.Is(err, cut) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if err := w.Close(); err != nil || got.String() != "abc" {
		t.Errorf("close: %v, got %q", err, &got)
	}
}
