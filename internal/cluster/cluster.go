// Package cluster talks to a live etcd cluster: it asks every endpoint for its
// status, chooses the member to take a snapshot from, streams that member's
// database and checks etcd's trailer, and asks members for HashKV. It never
// writes to the cluster, but for what the request does that [Cluster.Do] is given.
package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/srv"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// Config says how to reach a cluster. Its fields mirror etcdctl's global flags.
type Config struct {
	Endpoints []string
	// DiscoverySRV is a domain whose SRV records name the endpoints. They are looked up
	// again for each survey.
	DiscoverySRV      string
	DiscoverySRVName  string
	InsecureDiscovery bool

	// CAFile, CertFile and KeyFile are read again for each connection. While one
	// of them is broken, its old content stays in use.
	CAFile, CertFile, KeyFile string
	InsecureSkipVerify        bool
	// InsecureTransport false forces TLS for endpoints without a scheme.
	InsecureTransport bool
	// ServerName is the name that the certificates of all members must be for, if it is not
	// the host of each endpoint.
	ServerName string

	Username, Password string
	// PasswordFile holds the password, instead of Password. It is read again
	// for each login.
	PasswordFile string
	Token        string // a JWT, instead of user and password
	// TokenFile holds the JWT, instead of Token. It is read again for each connection,
	// and when etcd refuses the token.
	TokenFile string

	// RequestTimeout bounds each unary request. Zero means 5 s.
	RequestTimeout time.Duration
	// StallTimeout is how long a snapshot stream may make no progress in
	// bytes, beginning with the request for it. Zero means 30 s.
	StallTimeout time.Duration
	// MaxRate bounds a snapshot stream, in bytes per second. It is at least MinMaxRate;
	// 0 sets no bound.
	MaxRate          int64
	KeepAliveTime    time.Duration
	KeepAliveTimeout time.Duration
	MaxCallRecvBytes int
	MaxCallSendBytes int
	Log              *slog.Logger
}

// MinMaxRate is the lowest bound of a stream that is sensible: while a stream is open
// etcd cannot reuse pages.
const MinMaxRate = 4 << 20

func (c *Config) setDefaults() {
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = 5 * time.Second
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxCallRecvBytes == 0 {
		c.MaxCallRecvBytes = math.MaxInt32
	}
}

// Cluster is a cluster to talk to. It keeps one connection per endpoint until Close
// ends them. All methods may be called concurrently.
type Cluster struct {
	cfg      Config // with the endpoints that were found first
	asked    Config // as it was given
	conns    *connections
	surveyor *surveyor

	mu        sync.Mutex // guards what follows
	endpoints []string
}

// New checks cfg and connects to nothing. Files it names must be readable, and SRV records
// must be there.
func New(cfg Config) (*Cluster, error) {
	cfg.setDefaults()
	if slices.ContainsFunc(cfg.Endpoints, holdsCredentials) {
		return nil, ErrCredentials
	}
	c := &Cluster{asked: cfg}
	var err error
	if c.cfg, err = cfg.Discover(); err != nil {
		return nil, err
	}
	if c.endpoints, err = c.cfg.clean(); err != nil {
		return nil, err
	}
	if c.conns, err = newConnections(c.cfg); err != nil {
		return nil, err
	}
	c.surveyor = &surveyor{conns: c.conns, timeout: cfg.RequestTimeout}
	return c, nil
}

// clean returns the endpoints, each once.
func (c *Config) clean() ([]string, error) {
	var out []string
	for _, ep := range c.Endpoints {
		ep = strings.TrimSpace(ep)
		if err := endpoint.Check(ep, secret.Show(ep)); err != nil {
			return nil, err
		}
		if !slices.Contains(out, ep) {
			out = append(out, ep)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no endpoints")
	}
	return out, nil
}

// Discover returns the configuration with the endpoints that the SRV records of its domain
// name now.
func (c Config) Discover() (Config, error) {
	if c.DiscoverySRV == "" {
		return c, nil
	}
	found, err := srv.GetClient("etcd-client", c.DiscoverySRV, c.DiscoverySRVName)
	if err != nil {
		return Config{}, backup.WithHint(fmt.Errorf("discover endpoints of %s: %w", c.DiscoverySRV, err),
			"the domain needs SRV records: dig SRV _etcd-client-ssl._tcp.%s", c.DiscoverySRV)
	}
	var eps []string
	for _, ep := range found.Endpoints {
		// As in etcdctl, a record for plain HTTP counts only if it is allowed.
		if c.InsecureDiscovery || !strings.HasPrefix(ep, "http://") {
			eps = append(eps, ep)
		}
	}
	if len(eps) == 0 && len(c.Endpoints) == 0 {
		return Config{}, fmt.Errorf("discover endpoints of %s: its SRV records name endpoints without TLS only",
			c.DiscoverySRV)
	}
	if len(eps) > 0 {
		c.Endpoints = eps
	}
	if !c.InsecureDiscovery {
		c.ServerName = c.DiscoverySRV
	}
	c.DiscoverySRV = ""
	return c, nil
}

// discover looks the endpoints up again, which may be others by now.
func (c *Cluster) discover() error {
	if c.asked.DiscoverySRV == "" {
		return nil
	}
	now, err := c.asked.Discover()
	if err != nil {
		return err
	}
	eps, err := now.clean()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endpoints = eps
	return nil
}

// ErrCredentials is the error for an endpoint that holds a user or a password. It
// does not quote the endpoint: endpoints are logged and stored in manifests.
var ErrCredentials = errors.New(
	"an endpoint must not hold a user or a password: give --user and --password (ETCDCTL_USER, ETCDCTL_PASSWORD)")

// holdsCredentials reports whether an endpoint may hold a user or a password. Without a
// scheme it is no path, and so any "@" counts.
func holdsCredentials(endpoint string) bool {
	if !strings.Contains(endpoint, "://") {
		return strings.Contains(endpoint, "@")
	}
	return secret.InAddress(endpoint)
}

// Endpoints returns the endpoints in the order they were given, or found last.
func (c *Cluster) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endpoints
}

// Close ends all connections, and what is in progress on them. A request that comes later
// connects again: it resolves names, checks certificates and logs in. Close returns no
// error.
func (c *Cluster) Close() error {
	c.conns.close()
	return nil
}
