package s3

import (
	"fmt"
	"net"
	"os"
	"time"
)

// progressConn is a connection that fails when nothing has moved for timeout,
// in either direction. A deadline for reading alone would not do: HTTP/1 waits
// in Read for the response while a large body is still going out.
type progressConn struct {
	net.Conn
	timeout time.Duration
}

// writeChunk is small enough for a slow line to carry within the timeout:
// a Write is progress only when all of it is done.
const writeChunk = 64 << 10

func (c *progressConn) Read(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if n > 0 {
		_ = c.extend() // fails only on a closed connection, as err says
	}
	return n, c.explain(err)
}

func (c *progressConn) Write(p []byte) (int, error) {
	total := 0
	for {
		if err := c.extend(); err != nil {
			return total, err
		}
		n, err := c.Conn.Write(p[:min(len(p), writeChunk)])
		total, p = total+n, p[n:]
		if err != nil {
			return total, c.explain(err)
		}
		if len(p) == 0 {
			return total, c.extend()
		}
	}
}

// extend moves the deadline of both directions, also for a call that is
// already waiting in the other one.
func (c *progressConn) extend() error {
	return c.Conn.SetDeadline(time.Now().Add(c.timeout))
}

func (c *progressConn) explain(err error) error {
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return &stalledError{fmt.Sprintf("no byte moved in %v", c.timeout)}
	}
	return err
}

// stalledError ends an attempt that takes too long. It is a timeout, which is
// retried.
type stalledError struct{ text string }

func (e *stalledError) Error() string { return e.text }
func (e *stalledError) Timeout() bool { return true }

// Temporary makes it a net.Error.
func (e *stalledError) Temporary() bool { return true }
func (e *stalledError) Unwrap() error   { return os.ErrDeadlineExceeded }
