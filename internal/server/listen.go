package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcd-backupd/backupd/internal/server/callers"
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
)

// Options configure a [Server].
type Options struct {
	// Listen is host:port. Anything but loopback needs TLS and credentials. Without it
	// nothing but MetricsListen is served.
	Listen string
	// MetricsListen is host:port of a second address, which answers GET /metrics, /healthz
	// and /readyz alone, in plain HTTP and without credentials.
	MetricsListen string
	// CertFile and KeyFile are the server's certificate and key. ClientCAFile is the
	// authority of client certificates. These files and those of tokens are read again
	// when they change.
	CertFile, KeyFile, ClientCAFile string
	// Callers are those who may call, besides the holders of the following tokens. Where
	// there is any, credentials are needed on loopback too.
	Callers []callers.Caller
	// Token files hold bearer tokens for all clusters, one a line, at most two each.
	ReadTokensFile, OperateTokensFile string
	// AllowedHosts are the names that callers may use, without scheme and port, besides
	// those that follow from the addresses.
	AllowedHosts []string
	Backend      Backend      // required
	Metrics      http.Handler // required; answers GET /metrics
	Log          *slog.Logger // nil: no log
	Version      string       // of backupd, for the OpenAPI document
}

// Server is the HTTP side of one daemon. It owns its addresses from [New] on.
type Server struct {
	backend  Backend
	log      *slog.Logger
	front    atomic.Pointer[front]
	api      http.Handler
	metrics  http.Handler
	document []byte // OpenAPI

	hub      hub
	streams  chan struct{} // one for each stream of events
	stopping chan struct{} // closed when Run ends

	mu    sync.Mutex // guards what follows
	doors map[side]*door
	life  *life // nil: it does not run yet
	ended bool
}

// front is what a configuration says of callers. It can be replaced while the server runs.
type front struct {
	tls   func() *tls.Config // nil: plain HTTP
	guard *callers.Guard
	hosts hosts
}

// New checks the options, reads the files and opens the listeners, which [Server.Run] or
// [Server.Close] closes. It connects to nothing and answers no request. Without TLS and
// credentials it refuses an address that is not loopback with a [backup.RefusedError].
func New(o Options) (*Server, error) {
	s := &Server{
		backend:  o.Backend,
		log:      o.Log,
		streams:  make(chan struct{}, maxStreams),
		stopping: make(chan struct{}),
		doors:    map[side]*door{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	table := routes(o.Metrics)
	var err error
	if s.document, err = newDocument(table, o.Version); err != nil {
		return nil, err
	}
	s.api, s.metrics = s.harden(s.mux(table)), s.harden(s.mux(openRoutes(table)))
	change, err := s.Prepare(o)
	if err != nil {
		return nil, err
	}
	change.Apply()
	return s, nil
}

// Addr returns the address of the API, or nil if it is not served.
func (s *Server) Addr() net.Addr { return s.addr(apiSide) }

// MetricsAddr returns the address of metrics and probes alone, or nil if there is none.
func (s *Server) MetricsAddr() net.Addr { return s.addr(metricsSide) }

func (s *Server) addr(of side) net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.doors[of]; d != nil {
		return d.listener.Addr()
	}
	return nil
}

// Close closes the listeners of a server that is never run.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for _, d := range s.doors {
		err = errors.Join(err, d.listener.Close())
	}
	return err
}

// life is what is shared by all that runs.
type life struct {
	base   context.Context // of all requests
	failed chan error
	wg     sync.WaitGroup
}

// Run serves until ctx is done. Then it ends streams of events, and gives other
// requests some seconds to finish. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	l := &life{base: base, failed: make(chan error, 1)}
	subscribed, unsubscribe := context.WithCancel(ctx)
	l.wg.Go(func() { s.backend.Subscribe(subscribed, s.hub.publish) })
	s.mu.Lock()
	s.life = l
	for _, d := range s.doors {
		s.serve(d)
	}
	s.mu.Unlock()
	defer l.wg.Wait()
	defer unsubscribe()
	defer cut()

	var err error
	select {
	case err = <-l.failed:
	case <-ctx.Done():
	}
	close(s.stopping)
	s.mu.Lock()
	s.ended = true // no door opens any more
	doors := maps.Clone(s.doors)
	s.mu.Unlock()
	var closing sync.WaitGroup
	for _, d := range doors {
		closing.Go(func() { s.shut(d, base, err == nil) })
	}
	closing.Wait()
	return err
}
