package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"
)

// fresh is what some files hold, read again for each use: certificates and
// passwords are renewed while a daemon runs. While they cannot be read, because
// they are just being written say, what they held before is used.
type fresh[T any] struct {
	read func() (T, error)
	log  *slog.Logger

	mu     sync.Mutex
	good   T      // guarded by mu
	warned string // what was last logged, until all is well again; guarded by mu
}

func newFresh[T any](log *slog.Logger, read func() (T, error)) (*fresh[T], error) {
	good, err := read()
	if err != nil {
		return nil, err
	}
	return &fresh[T]{read: read, log: log, good: good}, nil
}

func (f *fresh[T]) get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.read()
	if err == nil {
		f.good, f.warned = now, ""
		return now
	}
	if text := err.Error(); text != f.warned {
		f.log.Warn("a file cannot be read again: what it held before is used", "err", err)
		f.warned = text
	}
	return f.good
}

// tlsFiles makes TLS configurations of what the files hold at the moment.
type tlsFiles struct {
	base  *tls.Config
	roots *fresh[*x509.CertPool]   // nil: the system's
	pair  *fresh[*tls.Certificate] // nil: no client certificate
}

// tlsFiles returns nil when nothing asks for TLS.
func (c *Config) tlsFiles() (*tlsFiles, error) {
	wanted := !c.InsecureTransport || c.InsecureSkipVerify || c.CAFile != "" || c.CertFile != "" || c.KeyFile != ""
	for _, ep := range c.Endpoints {
		wanted = wanted || strings.HasPrefix(ep, "https://") || strings.HasPrefix(ep, "unixs://")
	}
	if !wanted && c.DiscoverySRV == "" {
		return nil, nil
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("a client certificate and its key belong together: give --cert and --key")
	}
	f := &tlsFiles{base: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: c.InsecureSkipVerify, //nolint:gosec // the user asked for it by this name
	}}
	if c.DiscoverySRV != "" && !c.InsecureDiscovery {
		f.base.ServerName = c.DiscoverySRV
	}
	var err error
	if c.CAFile != "" {
		f.roots, err = newFresh(c.Log, func() (*x509.CertPool, error) { return readCAs(c.CAFile) })
		if err != nil {
			return nil, err
		}
	}
	if c.CertFile != "" {
		f.pair, err = newFresh(c.Log, func() (*tls.Certificate, error) { return readPair(c.CertFile, c.KeyFile) })
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func readCAs(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("CA file %s holds no certificate", file)
	}
	for block, rest := pem.Decode(raw); ; block, rest = pem.Decode(rest) {
		if block == nil && bytes.Contains(rest, []byte("-----BEGIN")) {
			return nil, fmt.Errorf("CA file %s: its last certificate is cut off", file)
		}
		if block == nil {
			return pool, nil
		}
	}
}

func readPair(certFile, keyFile string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read client certificate %s and key %s: %w", certFile, keyFile, err)
	}
	return &pair, nil
}

// config is for one connection.
func (f *tlsFiles) config() *tls.Config {
	conf := f.base.Clone()
	if f.roots != nil {
		conf.RootCAs = f.roots.get()
	}
	if f.pair != nil {
		pair := f.pair.get()
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return conf
}

func (f *tlsFiles) credentials() credentials.TransportCredentials {
	return &freshCredentials{credentials.NewTLS(f.base), f}
}

// freshCredentials are gRPC's own, made anew for each connection. gRPC
// connects again by itself, over years, with the credentials it once got.
type freshCredentials struct {
	credentials.TransportCredentials
	files *tlsFiles
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *freshCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(c.files.config()).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c *freshCredentials) Clone() credentials.TransportCredentials {
	return &freshCredentials{c.TransportCredentials.Clone(), c.files}
}

// passwordFile returns nil where there is none.
func (c *Config) passwordFile() (*fresh[string], error) {
	switch {
	case c.PasswordFile == "":
		return nil, nil
	case c.Username == "":
		return nil, fmt.Errorf("password file %s: no user name is given to go with it", c.PasswordFile)
	case c.Password != "":
		return nil, fmt.Errorf("password file %s: a password is given too: one of them must go", c.PasswordFile)
	}
	return newFresh(c.Log, func() (string, error) { return readPassword(c.PasswordFile) })
}

// readPassword takes a file's first and only line. clientv3 does not log in at
// all with an empty password, so that is an error.
func readPassword(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	raw = bytes.TrimRight(raw, "\r\n")
	if len(raw) == 0 {
		return "", fmt.Errorf("password file %s is empty", file)
	}
	if bytes.ContainsAny(raw, "\r\n") {
		return "", fmt.Errorf("password file %s: want one line", file)
	}
	return string(raw), nil
}
