package testserver_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestProxy(t *testing.T) {
	p := testserver.StartProxy(t, echoServer(t))

	t.Run("Stall", func(t *testing.T) {
		conn := dial(t, p)
		echo(t, conn, 1<<20)
		p.Stall()
		wantSilence(t, conn)
		wantSilence(t, dial(t, p))
		p.Resume()
		readFull(t, conn, 1) // what wantSilence sent arrives late
		echo(t, conn, 10)
	})
	t.Run("Cut", func(t *testing.T) {
		conn := dial(t, p)
		echo(t, conn, 10)
		p.Cut()
		wantEnd(t, conn)
		wantEnd(t, dial(t, p))
		p.Resume()
		echo(t, dial(t, p), 10)
	})
	t.Run("Drop", func(t *testing.T) {
		conn := dial(t, p)
		echo(t, conn, 10)
		p.Drop()
		wantEnd(t, conn)
		echo(t, dial(t, p), 10)
	})
	for name, direction := range map[string]testserver.Direction{
		"ToServer": testserver.ToServer, "ToClient": testserver.ToClient,
	} {
		t.Run("StallAfter"+name, func(t *testing.T) {
			conn := dial(t, p)
			echo(t, conn, 10)
			before := p.Bytes(direction)
			p.StallAfter(direction, 1000)
			send(t, conn, 5000)
			readFull(t, conn, 1000)
			wantSilence(t, conn)
			if got := p.Bytes(direction) - before; got != 1000 {
				t.Errorf("forwarded %d bytes, want 1000", got)
			}
			p.Resume()
			readFull(t, conn, 4001)
		})
		t.Run("CutAfter"+name, func(t *testing.T) {
			conn := dial(t, p)
			echo(t, conn, 10)
			before := p.Bytes(direction)
			p.CutAfter(direction, 1000)
			send(t, conn, 5000)
			wantEnd(t, conn)
			if got := p.Bytes(direction) - before; got != 1000 {
				t.Errorf("forwarded %d bytes, want 1000", got)
			}
			echo(t, dial(t, p), 5000)
		})
	}
}

func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return l.Addr().String()
}

func dial(t *testing.T, p *testserver.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func send(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	if _, err := conn.Write(bytes.Repeat([]byte("x"), n)); err != nil {
		t.Fatal(err)
	}
}

func readFull(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	if _, err := io.ReadFull(conn, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

func echo(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	go conn.Write(bytes.Repeat([]byte("x"), n))
	readFull(t, conn, n)
}

// wantSilence sends a byte and wants no answer and no end.
func wantSilence(t *testing.T, conn net.Conn) {
	t.Helper()
	send(t, conn, 1)
	if err := conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes and error %v, want silence", n, err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

// wantEnd wants the connection to break, with an error other than time.
func wantEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection stays open")
	}
}
