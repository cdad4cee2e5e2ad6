package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server/callers"
	"github.com/etcd-backupd/backupd/internal/server/crowd"
)

// side is a part of the server with an address of its own.
type side string

const (
	apiSide     side = "API"
	metricsSide side = "metrics"
)

// door is one address that is listened on.
type door struct {
	address  string // as it is configured
	listener net.Listener
	server   *http.Server // nil: it is not served yet
	handler  http.Handler
	secure   func() *tls.Config // the TLS of the next connection; nil: none
}

// Change is a checked change of a [Server], which is made by Apply or dropped by Discard.
type Change struct {
	server *Server
	front  *front
	opened map[side]*door
	closed []side
}

// Prepare checks new options and opens the addresses that they add. Backend, metrics, log
// and version stay as they are. Nothing is changed before [Change.Apply].
func (s *Server) Prepare(o Options) (*Change, error) {
	f := &front{}
	var err error
	if f.tls, err = loadTLS(o, s.log); err != nil {
		return nil, err
	}
	if f.guard, err = callers.New(o.callers(), o.ClientCAFile != "", s.log); err != nil {
		return nil, err
	}
	if f.hosts, err = newHosts([]string{o.Listen, o.MetricsListen}, o.AllowedHosts); err != nil {
		return nil, err
	}
	c := &Change{server: s, front: f, opened: map[side]*door{}}
	if err := errors.Join(c.open(apiSide, o.Listen, s.api), c.open(metricsSide, o.MetricsListen, s.metrics)); err != nil {
		c.Discard()
		return nil, err
	}
	return c, nil
}

// open opens the address of one side, unless it is open already.
func (c *Change) open(of side, address string, handler http.Handler) error {
	c.server.mu.Lock()
	old := c.server.doors[of]
	c.server.mu.Unlock()
	switch {
	case old != nil && address == "":
		c.closed = append(c.closed, of)
		return nil
	case address == "":
		return nil
	case old != nil && old.address == address:
		return c.check(of, address, old.listener)
	}
	ln, err := listen(address)
	if errors.Is(err, syscall.EADDRINUSE) && c.listensAt(address) {
		return backup.WithHint(err, "this daemon itself has that port now: change the port, or start the daemon again")
	}
	if err != nil {
		return err
	}
	if err := c.check(of, address, ln); err != nil {
		_ = ln.Close() // it was never used
		return err
	}
	d := &door{address: address, listener: ln, handler: handler}
	if of == apiSide {
		d.secure = c.server.nextTLS
	}
	c.opened[of] = d
	return nil
}

// listensAt reports whether the server has the port of an address.
func (c *Change) listensAt(address string) bool {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	_, port, _ := net.SplitHostPort(address) // it was listened on
	for _, d := range s.doors {
		if _, own, _ := net.SplitHostPort(d.listener.Addr().String()); own == port {
			return true
		}
	}
	return false
}

// check refuses an API that strangers reach. Only where an address is listened on it is
// known what its name resolves to.
func (c *Change) check(of side, address string, ln net.Listener) error {
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if of != apiSide || !ok || tcp.IP.IsLoopback() || c.front.tls != nil && c.front.guard.Demands() {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("listen on %s: "+
		"an address that other hosts can reach needs TLS, and tokens or client certificates", address)},
		"set cert-file and key-file, and read-tokens-file, operate-tokens-file or callers; or listen on 127.0.0.1")
}

// Discard closes the addresses that were opened.
func (c *Change) Discard() {
	for _, d := range c.opened {
		_ = d.listener.Close() // it was never used
	}
}

// Apply makes the change. Requests and streams of an address that is left may end; what is
// asked from now on is judged by the new options, on connections that are open too.
func (c *Change) Apply() {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		c.Discard()
		return
	}
	s.front.Store(c.front)
	for _, of := range c.closed {
		s.leave(s.doors[of])
		delete(s.doors, of)
	}
	for of, d := range c.opened {
		if old := s.doors[of]; old != nil {
			s.leave(old)
		}
		s.doors[of] = d
		if s.life != nil {
			s.serve(d)
		}
	}
}

// leave closes a door for new connections while the server goes on. The caller holds s.mu.
func (s *Server) leave(d *door) {
	if l := s.life; l != nil {
		l.wg.Go(func() { s.shut(d, l.base, true) })
		return
	}
	_ = d.listener.Close() // it was never served
}

// nextTLS returns the TLS configuration of the next connection, or nil for none.
func (s *Server) nextTLS() *tls.Config {
	if make := s.front.Load().tls; make != nil {
		return make()
	}
	return nil
}

// Accept returns the next connection, with TLS if that is configured now.
func (d *door) Accept() (net.Conn, error) {
	c, err := d.listener.Accept()
	if err != nil || d.secure == nil {
		return c, err
	}
	if conf := d.secure(); conf != nil {
		return tls.Server(c, conf), nil
	}
	return c, nil
}

// Close closes the listener.
func (d *door) Close() error { return d.listener.Close() }

// Addr is the address that is listened on.
func (d *door) Addr() net.Addr { return d.listener.Addr() }

// serve serves a door until it is shut. The caller holds s.mu.
func (s *Server) serve(d *door) {
	l := s.life
	d.listener = crowd.New(d.listener)
	d.server = &http.Server{
		Handler:                      d.handler,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		BaseContext:                  func(net.Listener) context.Context { return l.base },
		ConnContext:                  crowd.Context,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true,
	}
	l.wg.Go(func() {
		if err := d.server.Serve(d); !errors.Is(err, http.ErrServerClosed) {
			select {
			case l.failed <- fmt.Errorf("serve HTTP on %s: %w", d.Addr(), err):
			default: // it ends already
			}
		}
	})
}

// shut closes a door. Requests get some seconds to finish if they are to.
func (s *Server) shut(d *door, base context.Context, gently bool) {
	if gently {
		grace, done := context.WithTimeout(base, shutdownGrace)
		defer done()
		if err := d.server.Shutdown(grace); err != nil {
			s.log.Warn("requests were cut off", "err", err)
		}
	}
	_ = d.server.Close() // this cuts off requests that did not finish
}

// openRoutes are the routes that need no credentials where an address of their own was
// asked for.
func openRoutes(table []route) []route {
	out := slices.DeleteFunc(slices.Clone(table), func(t route) bool {
		return t.scope != callers.None &&
			t.path != "/metrics"
	})
	for i := range out {
		out[i].scope, out[i].whole = callers.None, false
	}
	return out
}

func listen(address string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	if err == nil {
		return ln, nil
	}
	err = fmt.Errorf("start the HTTP server: %w", err)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = backup.WithHint(err, "another backupd, or another program, listens there: stop it or choose another address")
	}
	return nil, err
}
