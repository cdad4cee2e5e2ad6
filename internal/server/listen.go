package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Limits of a caller.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second // streams of events have their own
	workTimeout       = 50 * time.Second // of the backend; it leaves time to report it
	idleTimeout       = 120 * time.Second
	shutdownGrace     = 10 * time.Second
	maxHeaderBytes    = 16 << 10
	maxBodyBytes      = 64 << 10
	maxConnections    = 256
)

// Options configure a [Server].
type Options struct {
	// Listen is host:port. Anything but loopback needs TLS and credentials.
	Listen string
	// CertFile and KeyFile are the server's certificate and key. ClientCAFile is
	// the authority of client certificates, which allow everything. These files
	// and those of tokens are read again when they change.
	CertFile, KeyFile, ClientCAFile string
	// Token files hold bearer tokens, one a line, at most two each. With a token
	// file or a ClientCAFile, credentials are needed on loopback too.
	ReadTokensFile, OperateTokensFile string
	// AllowedHosts are the names that callers may use, without scheme and port,
	// besides those that follow from Listen.
	AllowedHosts []string
	Backend      Backend      // required
	Metrics      http.Handler // required; answers GET /metrics
	Log          *slog.Logger // nil: no log
	Version      string       // of backupd, for the OpenAPI document
}

// Server is the HTTP side of one daemon. It owns its address from [New] on.
type Server struct {
	backend  Backend
	log      *slog.Logger
	listener net.Listener
	tls      *tls.Config // nil: plain HTTP
	guard    *guard
	hosts    hosts
	handler  http.Handler
	document []byte // OpenAPI

	hub      hub
	streams  chan struct{} // one for each stream of events
	stopping chan struct{} // closed when Run ends
}

// New checks the options, reads the files and opens the listener, which
// [Server.Run] or [Server.Close] closes. It connects to nothing and answers no
// request. Without TLS and credentials it refuses an address that is not loopback
// with a [backup.RefusedError].
func New(o Options) (*Server, error) {
	s := &Server{
		backend:  o.Backend,
		log:      o.Log,
		streams:  make(chan struct{}, maxStreams),
		stopping: make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.tls, err = loadTLS(o, s.log); err != nil {
		return nil, err
	}
	if s.guard, err = newGuard(o, s.log); err != nil {
		return nil, err
	}
	if s.hosts, err = newHosts(o.Listen, o.AllowedHosts); err != nil {
		return nil, err
	}
	table := routes(o.Metrics)
	if s.document, err = newDocument(table, o.Version); err != nil {
		return nil, err
	}
	s.handler = s.harden(s.mux(table))
	if s.listener, err = s.listen(o.Listen); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) listen(address string) (net.Listener, error) {
	if address == "" {
		return nil, errors.New("start the HTTP server: no address to listen on")
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		err = fmt.Errorf("start the HTTP server: %w", err)
		if errors.Is(err, syscall.EADDRINUSE) {
			err = backup.WithHint(err,
				"another backupd, or another program, listens there: stop it or choose another address")
		}
		return nil, err
	}
	// Only now it is known what a name resolves to. No request is answered yet.
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && (s.tls == nil || !s.guard.demands()) {
		_ = ln.Close() // it was never used
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("listen on %s: "+
			"an address that other hosts can reach needs TLS, and tokens or client certificates", address)},
			"set cert-file and key-file, and read-tokens-file, operate-tokens-file or client-ca-file; "+
				"or listen on 127.0.0.1")
	}
	return ln, nil
}

// Addr returns the address the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close closes the listener of a server that is never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is done. Then it ends streams of events, and gives other
// requests some seconds to finish. It may be called once.
func (s *Server) Run(ctx context.Context) error { return s.serve(ctx, s.listener) }

func (s *Server) serve(ctx context.Context, ln net.Listener) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler:                      s.handler,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		DisableGeneralOptionsHandler: true,
	}
	ln = netutil.LimitListener(ln, maxConnections)
	if s.tls != nil {
		ln = tls.NewListener(ln, s.tls)
	}
	var wg sync.WaitGroup
	subscribed, unsubscribe := context.WithCancel(ctx)
	wg.Go(func() { s.backend.Subscribe(subscribed, s.hub.publish) })
	failed := make(chan error, 1)
	wg.Go(func() { failed <- srv.Serve(ln) })
	defer wg.Wait()
	defer unsubscribe()
	defer srv.Close() // this cuts off requests that did not finish
	defer cut()

	select {
	case err := <-failed:
		close(s.stopping)
		return fmt.Errorf("serve HTTP on %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	close(s.stopping)
	grace, done := context.WithTimeout(base, shutdownGrace)
	defer done()
	if err := srv.Shutdown(grace); err != nil {
		s.log.Warn("requests were cut off", "err", err)
	}
	return nil
}
