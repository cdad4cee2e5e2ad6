// Package cluster talks to a live etcd cluster: it asks every endpoint for its
// status, chooses the member to take a snapshot from, streams that member's
// database and checks etcd's trailer, and asks members for HashKV. It never
// writes to the cluster; [Cluster.Defragment] rewrites the members' files and
// does not change their content.
package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/srv"
)

// Config says how to reach a cluster. Its fields mirror etcdctl's global flags.
type Config struct {
	Endpoints []string
	// DiscoverySRV is a domain whose SRV records name the endpoints.
	DiscoverySRV      string
	DiscoverySRVName  string
	InsecureDiscovery bool

	// CAFile, CertFile and KeyFile are read again for each connection. While one
	// of them is broken, its old content stays in use.
	CAFile, CertFile, KeyFile string
	InsecureSkipVerify        bool
	// InsecureTransport false forces TLS for endpoints without a scheme.
	InsecureTransport bool

	Username, Password string
	// PasswordFile holds the password, instead of Password. It is read again
	// for each login.
	PasswordFile string
	Token        string // a JWT, instead of user and password

	// RequestTimeout bounds each unary request. Zero means 5 s.
	RequestTimeout time.Duration
	// StallTimeout is how long a snapshot stream may make no progress in
	// bytes, beginning with the request for it. Zero means 30 s.
	StallTimeout     time.Duration
	KeepAliveTime    time.Duration
	KeepAliveTimeout time.Duration
	MaxCallRecvBytes int
	MaxCallSendBytes int
	Log              *slog.Logger
}

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

// Cluster is a cluster to talk to. It keeps one connection per endpoint; Close
// ends them. All methods may be called concurrently.
type Cluster struct {
	cfg       Config
	endpoints []string
	conns     *connections
	surveyor  *surveyor
}

// New checks cfg and connects to nothing. Files it names must be readable.
func New(cfg Config) (*Cluster, error) {
	cfg.setDefaults()
	c := &Cluster{cfg: cfg}
	if slices.ContainsFunc(cfg.Endpoints, holdsCredentials) {
		return nil, ErrCredentials
	}
	eps, err := cfg.endpoints()
	if err != nil {
		return nil, err
	}
	for _, ep := range eps {
		ep = strings.TrimSpace(ep)
		if err := checkEndpoint(ep); err != nil {
			return nil, err
		}
		if !slices.Contains(c.endpoints, ep) {
			c.endpoints = append(c.endpoints, ep)
		}
	}
	if len(c.endpoints) == 0 {
		return nil, errors.New("no endpoints")
	}
	if c.conns, err = newConnections(cfg); err != nil {
		return nil, err
	}
	c.surveyor = &surveyor{conns: c.conns, endpoints: c.endpoints, timeout: cfg.RequestTimeout}
	return c, nil
}

func (c *Config) endpoints() ([]string, error) {
	if c.DiscoverySRV == "" {
		return c.Endpoints, nil
	}
	found, err := srv.GetClient("etcd-client", c.DiscoverySRV, c.DiscoverySRVName)
	if err != nil {
		return nil, fmt.Errorf("discover endpoints of %s: %w", c.DiscoverySRV, err)
	}
	var eps []string
	for _, ep := range found.Endpoints {
		// As in etcdctl, a record for plain HTTP counts only if it is allowed.
		if c.InsecureDiscovery || !strings.HasPrefix(ep, "http://") {
			eps = append(eps, ep)
		}
	}
	if len(eps) == 0 {
		return c.Endpoints, nil
	}
	return eps, nil
}

// ErrCredentials is the error for an endpoint that holds a user or a password. It
// does not quote the endpoint: endpoints are logged and stored in manifests.
var ErrCredentials = errors.New(
	"an endpoint must not hold a user or a password: give --user and --password (ETCDCTL_USER, ETCDCTL_PASSWORD)")

// holdsCredentials reports whether an endpoint may hold a user or a password. Any
// "@" counts, because a password may hold whatever ends the host of a URL; but
// paths of sockets may have one, and names of abstract sockets begin with it.
func holdsCredentials(endpoint string) bool {
	scheme, rest, ok := strings.Cut(strings.TrimSpace(endpoint), "://")
	if ok && (scheme == "unix" || scheme == "unixs") {
		host, _, _ := strings.Cut(rest, "/")
		return strings.LastIndex(host, "@") > 0
	}
	return strings.Contains(endpoint, "@")
}

func checkEndpoint(ep string) error {
	if ep == "" {
		return errors.New("an endpoint is empty")
	}
	if !strings.Contains(ep, "://") {
		return nil
	}
	u, err := url.Parse(ep)
	if err != nil {
		return fmt.Errorf("endpoint %q: %w", ep, err)
	}
	switch u.Scheme {
	case "http", "https", "unix", "unixs":
		return nil
	}
	return fmt.Errorf("endpoint %q: scheme %q is not known: want http, https, unix or unixs", ep, u.Scheme)
}

// Endpoints returns the endpoints in the order they were given.
func (c *Cluster) Endpoints() []string { return c.endpoints }

// Close ends all connections.
func (c *Cluster) Close() error {
	c.conns.close()
	return nil
}
