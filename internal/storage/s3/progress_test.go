package s3_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// A pipe is the slowest of lines: nothing moves that the other end does not take.

func TestProgressConn_Stalls(t *testing.T) {
	for name, use := range map[string]func(net.Conn) error{
		"Read":  func(c net.Conn) error { _, err := c.Read(make([]byte, 10)); return err },
		"Write": func(c net.Conn) error { _, err := c.Write(make([]byte, 10)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				defer there.Close()
				c := s3.ProgressConn(here, time.Minute)
				defer c.Close()
				start := time.Now()
				err := use(c)
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("got error %v", err)
				}
				if took := time.Since(start); took != time.Minute {
					t.Fatalf("took %v", took)
				}
			})
		})
	}
}

// TestProgressConn_SlowUpload is the case for which a read timeout is wrong:
// HTTP waits for the response in Read while a slow upload makes progress.
func TestProgressConn_SlowUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := s3.ProgressConn(here, time.Minute)
		defer c.Close()
		const size = 5*64<<10 + 100
		go func() {
			for taken := 0; taken < size; {
				time.Sleep(50 * time.Second) // of the bubble's clock
				n, _ := io.ReadFull(there, make([]byte, min(64<<10, size-taken)))
				taken += n
			}
			time.Sleep(50 * time.Second)
			_, _ = there.Write([]byte("done"))
		}()
		answered := make(chan error)
		go func() {
			got := make([]byte, 4)
			_, err := io.ReadFull(c, got)
			answered <- err
		}()
		if n, err := c.Write(make([]byte, size)); n != size || err != nil {
			t.Fatalf("wrote %d of %d bytes: %v", n, size, err)
		}
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	})
}

// TestProgressConn_BusyReader: bytes that come in are progress for a write that
// waits.
func TestProgressConn_BusyReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := s3.ProgressConn(here, time.Minute)
		defer c.Close()
		go func() { _, _ = c.Read(make([]byte, 1)) }()
		go func() {
			time.Sleep(50 * time.Second)
			_, _ = there.Write([]byte("x"))
			time.Sleep(50 * time.Second)
			_, _ = io.ReadFull(there, make([]byte, 10))
		}()
		if _, err := c.Write(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	})
}

// TestProgressConn_SlowReader: a consumer that pauses between reads is not a
// network that stalls.
func TestProgressConn_SlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer there.Close()
		c := s3.ProgressConn(here, time.Minute)
		defer c.Close()
		go func() { _, _ = there.Write(make([]byte, 3)) }()
		for range 3 {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
		}
	})
}

func TestBackoff(t *testing.T) {
	for attempt, limit := range map[int]time.Duration{
		1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 4: 2 * time.Second, 9: 30 * time.Second,
		1000: 30 * time.Second,
	} {
		most := time.Duration(0)
		for range 1000 {
			most = max(most, s3.Pause(attempt))
		}
		if most > limit || most < limit*9/10 {
			t.Errorf("attempt %d: pauses of up to %v, want %v", attempt, most, limit)
		}
	}
}
