package wire

import (
	"sync"
)

// frameBytes is the size of an HTTP/2 data frame as gRPC sends them.
const frameBytes = 16 << 10

// Pool recycles the buffers that gRPC reads frames into. gRPC's own pool
// clears each buffer before it is used, which for a snapshot of a gigabyte
// costs as much as its SHA-256.
type Pool struct{ frames, messages sync.Pool }

func (p *Pool) pool(n int) (*sync.Pool, int) {
	switch {
	case n <= frameBytes:
		return &p.frames, frameBytes
	case n <= 4*frameBytes:
		return &p.messages, 4 * frameBytes
	}
	return nil, n
}

// Get implements mem.BufferPool.
func (p *Pool) Get(n int) *[]byte {
	pool, size := p.pool(n)
	if pool != nil {
		if b, ok := pool.Get().(*[]byte); ok {
			*b = (*b)[:n]
			return b
		}
	}
	b := make([]byte, n, size)
	return &b
}

// Put implements mem.BufferPool.
func (p *Pool) Put(b *[]byte) {
	if pool, size := p.pool(cap(*b)); pool != nil && cap(*b) == size {
		pool.Put(b)
	}
}
