package codec

import (
	"github.com/etcd-backupd/backupd/internal/backup"
)

// hashBuffers is how many buffers of hashBytes each a [behindMeter] has.
const (
	hashBuffers = 3
	hashBytes   = 512 << 10
)

// behindMeter is a meter that hashes a copy in a goroutine of its own: hashing
// takes as long as decoding, and neither needs to wait for the other. It has one
// writer, which must close it.
type behindMeter struct {
	n    int64
	buf  []byte // being filled
	free chan []byte
	full chan []byte
	done chan backup.Digest
}

func newBehindMeter() *behindMeter {
	b := &behindMeter{
		free: make(chan []byte, hashBuffers), full: make(chan []byte, hashBuffers),
		done: make(chan backup.Digest, 1),
	}
	for range hashBuffers {
		b.free <- make([]byte, 0, hashBytes)
	}
	go func() {
		m := newMeter()
		for p := range b.full {
			_, _ = m.Write(p) // a hash does not fail
			b.free <- p[:0]
		}
		b.done <- m.blob().SHA256
	}()
	return b
}

// Write adds p. The caller may change p afterwards.
func (b *behindMeter) Write(p []byte) (int, error) {
	b.n += int64(len(p))
	for rest := p; len(rest) > 0; {
		if b.buf == nil {
			b.buf = <-b.free
		}
		k := min(len(rest), cap(b.buf)-len(b.buf))
		b.buf = append(b.buf, rest[:k]...)
		rest = rest[k:]
		if len(b.buf) == cap(b.buf) {
			b.full <- b.buf
			b.buf = nil
		}
	}
	return len(p), nil
}

// close ends the goroutine and returns the size and sum of all that was written.
// It must be called once.
func (b *behindMeter) close() backup.Blob {
	if len(b.buf) > 0 {
		b.full <- b.buf
	}
	close(b.full)
	return backup.Blob{Bytes: b.n, SHA256: <-b.done}
}
