// Package cluster talks to a live etcd cluster: it asks every endpoint for its
// status, chooses the member to take a snapshot from, streams that member's
// database and checks etcd's trailer, and asks members for HashKV. It never
// writes to the cluster; [Cluster.Defragment] rewrites the members' files and
// does not change their content.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/srv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"

	"github.com/etcd-backupd/backupd/internal/certs"
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
	tls       *tlsFiles               // nil if nothing asks for TLS
	password  *certs.Reloaded[string] // nil without a password file

	mu      sync.Mutex // guards clients
	clients map[string]*clientv3.Client
}

// New checks cfg and connects to nothing. Files it names must be readable.
func New(cfg Config) (*Cluster, error) {
	cfg.setDefaults()
	c := &Cluster{cfg: cfg, clients: make(map[string]*clientv3.Client)}
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
	if c.tls, err = cfg.tlsFiles(); err != nil {
		return nil, err
	}
	if c.password, err = cfg.passwordFile(); err != nil {
		return nil, err
	}
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

// do runs request with the client for endpoint. If etcd refuses the login of this
// client, do tries once more with a new one: the password may have changed.
func (c *Cluster) do(ctx context.Context, endpoint string, request func(*clientv3.Client) error) error {
	cl, loggedIn, err := c.client(ctx, endpoint)
	if err != nil {
		return err
	}
	err = request(cl)
	if loggedIn || c.password == nil || !loginRefused(err) {
		return err
	}
	c.forget(endpoint, cl)
	if cl, _, err = c.client(ctx, endpoint); err != nil {
		return err
	}
	return request(cl)
}

// client returns the client for one endpoint, and whether it has logged in just
// now. Each endpoint has its own client. With one for all, clientv3 would send a
// request to any endpoint that answers, and every question here is about one
// specific member.
func (c *Cluster) client(ctx context.Context, endpoint string) (cl *clientv3.Client, loggedIn bool, err error) {
	c.mu.Lock()
	cl = c.clients[endpoint]
	c.mu.Unlock()
	if cl != nil {
		return cl, false, nil
	}
	// The client lives on after this call, but its login must end with it.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	cl, err = clientv3.New(c.clientConfig(life, endpoint)) // logs in here if there is a user
	if !stop() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		end()
		if cl != nil {
			_ = cl.Close() // only reports that its context ended
		}
		return nil, false, explain(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.clients[endpoint]; other != nil {
		_ = cl.Close()
		return other, false, nil
	}
	c.clients[endpoint] = cl
	return cl, true, nil
}

func (c *Cluster) clientConfig(life context.Context, endpoint string) clientv3.Config {
	password := c.cfg.Password
	if c.password != nil {
		password = c.password.Get()
	}
	conf := clientv3.Config{
		Endpoints:            []string{endpoint},
		Username:             c.cfg.Username,
		Password:             password,
		Token:                c.cfg.Token,
		DialTimeout:          c.cfg.RequestTimeout,
		DialKeepAliveTime:    c.keepAliveTime(),
		DialKeepAliveTimeout: c.cfg.KeepAliveTimeout,
		MaxCallRecvMsgSize:   c.cfg.MaxCallRecvBytes,
		MaxCallSendMsgSize:   c.cfg.MaxCallSendBytes,
		// A snapshot is one long stream: windows and buffers well above the
		// 64 KiB default keep the server from waiting for us.
		DialOptions: []grpc.DialOption{
			grpc.WithInitialWindowSize(4 << 20), grpc.WithInitialConnWindowSize(8 << 20),
			grpc.WithReadBufferSize(256 << 10),
			experimental.WithBufferPool(&framePool{}),
		},
		Context: life,
		Logger:  zap.NewNop(),
	}
	if c.tls != nil && !strings.HasPrefix(endpoint, "http://") {
		// Not by its field TLS, which is one configuration for all connections.
		conf.DialOptions = append(conf.DialOptions, grpc.WithTransportCredentials(c.tls.credentials()))
	}
	return conf
}

// forget ends the connection to one endpoint. The next request makes another.
func (c *Cluster) forget(endpoint string, cl *clientv3.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[endpoint] == cl {
		delete(c.clients, endpoint)
		_ = cl.Close() // only reports that the context ended
	}
}

// keepAliveTime never goes below 5 s: etcd would end the connection because of too
// many pings. etcdctl's default of 2 s is below that.
func (c *Cluster) keepAliveTime() time.Duration {
	return max(c.cfg.KeepAliveTime, 10*time.Second)
}

// Close ends all connections.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ep, cl := range c.clients {
		_ = cl.Close() // only reports that the context ended
		delete(c.clients, ep)
	}
	return nil
}
