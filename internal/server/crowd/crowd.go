// Package crowd bounds the connections of an HTTP server, so that strangers starve nobody.
package crowd

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// Limits of connections. A stranger that opens them and says nothing must starve neither
// callers with credentials nor probes.
const (
	maxConnections = 256
	maxPerAddress  = 64
)

// Listener takes connections for which there is room. Where there are too many, the oldest of a caller
// that has shown no credentials makes room: of the same address if that has too many, or
// else of the address with most of them.
type Listener struct {
	listener net.Listener
	mu       sync.Mutex
	open     []*conn // the oldest first
}

// New bounds the connections of a listener.
func New(ln net.Listener) *Listener { return &Listener{listener: ln} }

// Close closes the listener.
func (c *Listener) Close() error { return c.listener.Close() }

// Addr is the address that is listened on.
func (c *Listener) Addr() net.Addr { return c.listener.Addr() }

// conn is one connection of a [Listener].
type conn struct {
	net.Conn
	of      *Listener
	host    string
	trusted atomic.Bool // its caller has shown credentials, or needs none
}

func (c *conn) Close() error {
	c.of.remove(c)
	return c.Conn.Close()
}

// Accept returns the next connection for which there is room.
func (c *Listener) Accept() (net.Conn, error) {
	for {
		raw, err := c.listener.Accept()
		if err != nil {
			return nil, err
		}
		in := &conn{Conn: raw, of: c, host: addressOf(raw.RemoteAddr())}
		out, ok := c.add(in)
		if !ok {
			out = in
		}
		if out != nil {
			_ = out.Conn.Close() // nothing was promised to it
		}
		if ok {
			return in, nil
		}
	}
}

// add takes a connection in and returns the one that made room for it, if one had to. It
// returns false if none can.
func (c *Listener) add(in *conn) (out *conn, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := map[string]int{in.host: 1}
	for _, other := range c.open {
		counts[other.host]++
	}
	if counts[in.host] > maxPerAddress || len(c.open) >= maxConnections {
		crowded := func(other *conn) bool { return counts[in.host] <= maxPerAddress || other.host == in.host }
		leaves := -1
		for i, other := range c.open {
			if !other.trusted.Load() && crowded(other) && (leaves < 0 || counts[other.host] > counts[c.open[leaves].host]) {
				leaves = i
			}
		}
		if leaves < 0 {
			return nil, false
		}
		out = c.open[leaves]
		c.open = slices.Delete(c.open, leaves, leaves+1)
	}
	c.open = append(c.open, in)
	return out, true
}

func (c *Listener) remove(gone *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = slices.DeleteFunc(c.open, func(other *conn) bool { return other == gone })
}

// addressOf returns by which address a caller is counted: of IPv6 the network of 64 bits,
// of which one host has all.
func addressOf(a net.Addr) string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	ip := at.Addr().Unmap()
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return ip.String()
	}
	return network.String()
}

type connKey struct{}

// Context is for http.Server.ConnContext: it lets [Trust] find the connection of a request.
func Context(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// Trust marks the connection of a request: its caller has shown credentials.
func Trust(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		c.trusted.Store(true)
	}
}
