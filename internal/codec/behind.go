package codec

import (
	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/behind"
)

// behindMeter is a meter that hashes a copy in a goroutine of its own: hashing
// takes as long as decoding, and neither needs to wait for the other. It has one
// writer, which must close it.
type behindMeter struct {
	n     int64
	meter *meter
	w     *behind.Writer
}

func newBehindMeter() *behindMeter {
	m := newMeter()
	return &behindMeter{meter: m, w: behind.NewWriter(func(p []byte) error {
		_, err := m.Write(p)
		return err
	})}
}

// Write adds p. The caller may change p afterwards.
func (b *behindMeter) Write(p []byte) (int, error) {
	b.n += int64(len(p))
	return b.w.Write(p)
}

// close ends the goroutine and returns the size and the sum of all bytes. It
// must be called once.
func (b *behindMeter) close() backup.Blob {
	_ = b.w.Close() // a hash does not fail
	return b.meter.blob()
}
