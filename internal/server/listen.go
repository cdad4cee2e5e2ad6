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

// Limits of what a caller may take.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second // a stream of events has its own
	workTimeout       = 50 * time.Second // of the backend, so that there is time to say so
	idleTimeout       = 120 * time.Second
	shutdownGrace     = 10 * time.Second
	maxHeaderBytes    = 16 << 10
	maxBodyBytes      = 64 << 10
	maxConnections    = 256
)

// Options say what a [Server] does.
type Options struct {
	// Listen is host:port. Anything but loopback needs TLS and credentials.
	Listen string
	// CertFile and KeyFile are the server's; ClientCAFile is the authority of
	// client certificates, which may do everything. All are read again when they
	// change, and so are the tokens.
	CertFile, KeyFile, ClientCAFile string
	// Token files hold bearer tokens, one a line, at most two each. Where there
	// is any, or a ClientCAFile, credentials are demanded on loopback too.
	ReadTokensFile, OperateTokensFile string
	// AllowedHosts are the names callers may use besides those that Listen
	// implies, without scheme and port.
	AllowedHosts []string
	Backend      Backend      // required
	Metrics      http.Handler // required; answers GET /metrics
	Log          *slog.Logger // nil: no log
	Version      string       // of backupd, for the OpenAPI document
}

// Server is the HTTP side of one daemon. It holds its address from [New] on.
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

// New checks everything, reads the files, and takes the address, which
// [Server.Run] or [Server.Close] gives back. It connects to nothing and answers
// nothing. An address that is not loopback is refused with a
// [backup.RefusedError] where callers would not be kept out.
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
			err = backup.WithHint(err, "another backupd, or another program, listens there: stop it or choose another address")
		}
		return nil, err
	}
	// What a name resolves to is known only now. Nothing is answered yet.
	if tcp, ok := ln.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && (s.tls == nil || !s.guard.demands()) {
		_ = ln.Close() // it was never used
		return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("listen on %s: an address that others reach needs TLS, and tokens or client certificates", address)},
			"set cert-file and key-file, and read-tokens-file, operate-tokens-file or client-ca-file; or listen on 127.0.0.1")
	}
	return ln, nil
}

// Addr returns the address the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close gives the address of a server back that is never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is done, ends streams of events, and lets other requests
// finish for some seconds. It may be called once.
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
	defer srv.Close() // what did not finish is cut off
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
