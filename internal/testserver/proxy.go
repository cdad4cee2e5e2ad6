package testserver

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Direction is one way through a [Proxy].
type Direction int

const (
	ToServer Direction = iota // what the client sends: uploads
	ToClient                  // what the server sends: downloads
)

// Proxy is a TCP proxy in front of a server that can fail as networks do. It
// forwards until a test makes it fail.
type Proxy struct {
	Addr string // "127.0.0.1:port"; the address to give to the client
	URL  string // Addr with "http://" before it

	listener net.Listener
	ctx      context.Context // ends with the test
	group    sync.WaitGroup

	mu      sync.Mutex
	target  string                // of new connections
	changed chan struct{}         // closed and replaced when the state below changes
	conns   map[net.Conn]struct{} // both ends of what is open
	opened  int
	refuse  bool
	stalled [2]bool
	limits  [2]limit
	bytes   [2]int64
}

// A limit says what happens once some more bytes went one way.
type limit struct {
	armed bool
	left  int64
	cut   bool // else stall
}

// StartProxy starts a proxy in front of target ("127.0.0.1:port"). It ends
// with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, "start a proxy", err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &Proxy{
		Addr: l.Addr().String(), URL: "http://" + l.Addr().String(),
		listener: l, ctx: ctx, target: target,
		changed: make(chan struct{}), conns: make(map[net.Conn]struct{}),
	}
	p.group.Go(p.serve)
	t.Cleanup(func() {
		cancel()
		_ = l.Close() // ends serve, which is all it is for
		p.dropAll()
		p.group.Wait()
	})
	return p
}

// Stall keeps connections open, accepts new ones, and forwards nothing.
func (p *Proxy) Stall() { p.set(func() { p.stalled = [2]bool{true, true} }) }

// Cut closes all connections, and every new one as soon as it is accepted.
func (p *Proxy) Cut() {
	p.set(func() { p.refuse = true })
	p.dropAll()
}

// Drop closes all connections; new ones work.
func (p *Proxy) Drop() { p.dropAll() }

// Redirect leads new connections to another server, as a name does that has moved.
// Those that are open stay with the old one.
func (p *Proxy) Redirect(target string) { p.set(func() { p.target = target }) }

// Resume forwards again, after Stall, Cut or a limit. Connections that were
// stalled go on where they were.
func (p *Proxy) Resume() {
	p.set(func() { p.stalled, p.refuse, p.limits = [2]bool{}, false, [2]limit{} })
}

// StallAfter stalls the one direction, on all connections, once n more bytes
// went that way.
func (p *Proxy) StallAfter(d Direction, n int64) {
	p.set(func() { p.limits[d] = limit{armed: true, left: n} })
}

// CutAfter closes all connections once n more bytes went in the direction. The
// last of these bytes may be lost. That happens one time; new connections work, as
// when a network path breaks and comes back.
func (p *Proxy) CutAfter(d Direction, n int64) {
	p.set(func() { p.limits[d] = limit{armed: true, left: n, cut: true} })
}

// Bytes returns how many bytes were forwarded in the direction so far.
func (p *Proxy) Bytes(d Direction) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes[d]
}

// Opened returns how many connections were accepted so far.
func (p *Proxy) Opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

func (p *Proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.group.Go(func() { p.handle(client) })
	}
}

func (p *Proxy) handle(client net.Conn) {
	defer client.Close()
	if !p.add(client) {
		return
	}
	defer p.remove(client)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	d := net.Dialer{Timeout: 5 * time.Second}
	server, err := d.DialContext(p.ctx, "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.add(server) {
		return
	}
	defer p.remove(server)
	p.mu.Lock()
	p.opened++
	p.mu.Unlock()

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(ToServer, server, client) })
	pumps.Go(func() { p.pump(ToClient, client, server) })
	pumps.Wait()
}

// add remembers a connection for dropAll, unless all are to be refused.
func (p *Proxy) add(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.ctx.Err() != nil {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) remove(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) dropAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		// A reset rather than an orderly end: a peer must not take what it has
		// so far for everything.
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	clear(p.conns)
}

// pump forwards one way until either end is gone.
func (p *Proxy) pump(d Direction, dst, src net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if p.forward(d, dst, buf[:n]) != nil {
			_ = src.Close() // so that the other pump ends too
			return
		}
		if err == nil {
			continue
		}
		if tcp, ok := dst.(*net.TCPConn); ok && err == io.EOF {
			_ = tcp.CloseWrite() // a half-closed connection stays half open
			return
		}
		_ = dst.Close()
		return
	}
}

// forward writes data, as much at a time as the limits allow.
func (p *Proxy) forward(d Direction, dst net.Conn, data []byte) error {
	for len(data) > 0 {
		n, drop, err := p.take(d, len(data))
		if err != nil {
			return err
		}
		if _, err := dst.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
		if drop {
			p.dropAll()
			return net.ErrClosed
		}
	}
	return nil
}

// take waits while the direction is stalled, then claims up to want bytes. drop
// reports that all connections must be closed after these bytes.
func (p *Proxy) take(d Direction, want int) (n int, drop bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled[d] {
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-p.ctx.Done():
		}
		p.mu.Lock()
		if err := p.ctx.Err(); err != nil {
			return 0, false, err
		}
	}
	n = want
	if l := &p.limits[d]; l.armed {
		n = int(min(int64(want), l.left))
		l.left -= int64(n)
		if l.left == 0 {
			l.armed = false
			drop, p.stalled[d] = l.cut, !l.cut
		}
	}
	p.bytes[d] += int64(n)
	return n, drop, nil
}
