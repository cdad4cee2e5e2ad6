package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"

	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/cluster/wire"
)

// connections has one client for each endpoint, made when it is first needed.
type connections struct {
	cfg      Config
	tls      *tlsFiles               // nil if nothing asks for TLS
	password *certs.Reloaded[string] // nil without a password file
	token    *certs.Reloaded[string] // nil without a token file

	mu      sync.Mutex // guards clients
	clients map[string]*clientv3.Client
}

// newConnections reads the files of cfg and connects to nothing.
func newConnections(cfg Config) (*connections, error) {
	c := &connections{cfg: cfg, clients: make(map[string]*clientv3.Client)}
	var err error
	if c.tls, err = cfg.tlsFiles(); err != nil {
		return nil, err
	}
	if c.password, err = cfg.passwordFile(); err != nil {
		return nil, err
	}
	if c.token, err = cfg.tokenFile(); err != nil {
		return nil, err
	}
	return c, nil
}

// do runs request with the client for endpoint. If etcd refuses the login of this
// client, do tries once more with a new one: the password or token may have changed.
func (c *connections) do(ctx context.Context, endpoint string, request func(*clientv3.Client) error) error {
	return c.diagnose(ctx, endpoint, c.try(ctx, endpoint, request))
}

func (c *connections) try(ctx context.Context, endpoint string, request func(*clientv3.Client) error) error {
	cl, loggedIn, err := c.client(ctx, endpoint)
	if err != nil {
		return err
	}
	for err = request(cl); err != nil && strings.Contains(err.Error(), "connection is closing"); err = request(cl) {
		if cl, loggedIn, err = c.client(ctx, endpoint); err != nil { // another request had ended it
			return err
		}
	}
	if !loggedIn && (c.password != nil || c.token != nil) && loginRefused(err) {
		c.forget(endpoint, cl)
		if cl, _, err = c.client(ctx, endpoint); err != nil {
			return err
		}
		err = request(cl)
	}
	if token := c.jwt(); token != "" && errors.Is(err, errToken) {
		return tokenFault(token, c.cfg.TokenFile, err)
	}
	return err
}

// jwt is the token, or "".
func (c *connections) jwt() string {
	if c.token != nil {
		return c.token.Get()
	}
	return c.cfg.Token
}

// client returns the client for one endpoint, and whether it has logged in just
// now. Each endpoint has its own client. With one for all, clientv3 would send a
// request to any endpoint that answers, and every question here is about one
// specific member.
func (c *connections) client(ctx context.Context, endpoint string) (cl *clientv3.Client, loggedIn bool, err error) {
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

func (c *connections) clientConfig(life context.Context, endpoint string) clientv3.Config {
	password := c.cfg.Password
	if c.password != nil {
		password = c.password.Get()
	}
	conf := clientv3.Config{
		Endpoints:            []string{endpoint},
		Username:             c.cfg.Username,
		Password:             password,
		Token:                c.jwt(),
		DialTimeout:          c.cfg.RequestTimeout,
		DialKeepAliveTime:    c.cfg.keepAliveTime(),
		DialKeepAliveTimeout: c.cfg.KeepAliveTimeout,
		MaxCallRecvMsgSize:   c.cfg.MaxCallRecvBytes,
		MaxCallSendMsgSize:   c.cfg.MaxCallSendBytes,
		// A snapshot is one long stream: windows and buffers well above the
		// 64 KiB default keep the server from waiting for us.
		DialOptions: []grpc.DialOption{
			grpc.WithInitialWindowSize(4 << 20), grpc.WithInitialConnWindowSize(8 << 20),
			grpc.WithReadBufferSize(256 << 10),
			experimental.WithBufferPool(&wire.Pool{}),
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
func (c *connections) forget(endpoint string, cl *clientv3.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.clients[endpoint] == cl {
		delete(c.clients, endpoint)
		_ = cl.Close() // only reports that the context ended
	}
}

// keepAliveTime never goes below 5 s: etcd would end the connection because of too
// many pings. etcdctl's default of 2 s is below that.
func (c *Config) keepAliveTime() time.Duration {
	return max(c.KeepAliveTime, 10*time.Second)
}

// close ends all connections.
func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ep, cl := range c.clients {
		_ = cl.Close() // only reports that the context ended
		delete(c.clients, ep)
	}
}
