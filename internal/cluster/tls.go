package cluster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// tlsFiles makes TLS configurations from the current content of the files.
type tlsFiles struct {
	base  *tls.Config
	roots *certs.Reloaded[*x509.CertPool]   // nil: the system's
	pair  *certs.Reloaded[*tls.Certificate] // nil: no client certificate
}

// Secure reports whether an endpoint is reached by TLS. If it has no scheme, it is
// reached by TLS if anything in the configuration asks for TLS.
func (c *Config) Secure(endpoint string) bool {
	if scheme, _, ok := strings.Cut(endpoint, "://"); ok {
		return scheme == "https" || scheme == "unixs"
	}
	return c.wantsTLS()
}

func (c *Config) wantsTLS() bool {
	return !c.InsecureTransport || c.InsecureSkipVerify || c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" ||
		slices.ContainsFunc(c.Endpoints, func(ep string) bool { return strings.Contains(ep, "://") && c.Secure(ep) })
}

// mayFollow returns an error if a URL that a member advertises is less secure than an
// endpoint that the operator named: anybody on the way would read the password or token,
// or anybody at an address that is not the member's any more.
func (c *Config) mayFollow(advertised string, named []string) error {
	login := c.Username+c.Token+c.TokenFile != ""
	switch {
	case slices.Contains(named, advertised) || !slices.ContainsFunc(named, c.Secure):
		return nil
	case !c.Secure(advertised):
		return &InsecureError{advertised, "which has no TLS as the endpoints have"}
	case c.InsecureSkipVerify && login:
		return &InsecureError{advertised, "and without a verified certificate nobody knows who gets the login there"}
	}
	return nil
}

// URL returns an endpoint with its scheme.
func (c *Config) URL(endpoint string) string {
	switch {
	case strings.Contains(endpoint, "://"):
		return endpoint
	case c.Secure(endpoint):
		return "https://" + endpoint
	}
	return "http://" + endpoint
}

// TLS returns the configuration for one connection to a member, with the files
// as they are now. It is nil if nothing asks for TLS.
func (c *Config) TLS() (*tls.Config, error) {
	with := *c
	with.setDefaults()
	files, err := with.tlsFiles()
	if files == nil {
		return nil, err
	}
	return files.config(), nil
}

// tlsFiles returns nil if nothing asks for TLS.
func (c *Config) tlsFiles() (*tlsFiles, error) {
	if !c.wantsTLS() && c.ServerName == "" {
		return nil, nil
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, errors.New("a client certificate and its key belong together: give --cert and --key")
	}
	f := &tlsFiles{base: &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: c.InsecureSkipVerify, // the user asked for it by this name
		ServerName:         c.ServerName,
	}}
	var err error
	if c.CAFile != "" {
		if f.roots, err = certs.LoadPool(c.Log, c.CAFile); err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
	}
	if c.CertFile != "" {
		if f.pair, err = certs.LoadPair(c.Log, c.CertFile, c.KeyFile); err != nil {
			return nil, fmt.Errorf("read client certificate and key: %w", err)
		}
	}
	return f, nil
}

// config is for one connection.
func (f *tlsFiles) config() *tls.Config {
	conf := f.base.Clone()
	if f.roots != nil {
		conf.RootCAs = f.roots.Get()
	}
	if f.pair != nil {
		pair := f.pair.Get()
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
	}
	return conf
}

func (f *tlsFiles) credentials() credentials.TransportCredentials {
	return &freshCredentials{credentials.NewTLS(f.base), f}
}

// freshCredentials are gRPC's own, made again for each connection. gRPC connects
// again by itself, over years, with the credentials that it got at the beginning.
type freshCredentials struct {
	credentials.TransportCredentials
	files *tlsFiles
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *freshCredentials) ClientHandshake(
	ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	// The client sets an authority of its own, which counts more than the name in the
	// configuration.
	authority = cmp.Or(c.files.base.ServerName, authority)
	return credentials.NewTLS(c.files.config()).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c *freshCredentials) Clone() credentials.TransportCredentials {
	return &freshCredentials{c.TransportCredentials.Clone(), c.files}
}

// passwordFile returns nil if there is none.
func (c *Config) passwordFile() (*certs.Reloaded[string], error) {
	switch {
	case c.PasswordFile == "":
		return nil, nil
	case c.Username == "":
		return nil, fmt.Errorf("password file %s: it needs a user name", c.PasswordFile)
	case c.Password != "":
		return nil, fmt.Errorf("password file %s: there is a password too: remove one of them", c.PasswordFile)
	}
	parse := func(contents [][]byte) (string, error) { return ParsePassword(contents[0]) }
	password, err := certs.Load(c.Log, parse, c.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("read password file: %w", err)
	}
	return password, nil
}

// tokenFile returns nil if there is none.
func (c *Config) tokenFile() (*certs.Reloaded[string], error) {
	switch {
	case c.TokenFile == "":
		return nil, nil
	case c.Token != "" || c.Username != "":
		return nil, fmt.Errorf("token file %s: there is a user or a token too: remove one of them", c.TokenFile)
	}
	parse := func(contents [][]byte) (string, error) { return ParsePassword(contents[0]) }
	token, err := certs.Load(c.Log, parse, c.TokenFile)
	if err != nil {
		return nil, fmt.Errorf("read token file: %w", err)
	}
	return token, nil
}

// ParsePassword returns the only line of a password file. clientv3 does not log
// in at all with an empty password, so that is an error.
func ParsePassword(raw []byte) (string, error) {
	raw = bytes.TrimRight(raw, "\r\n") // newlines are the editor's; a space may be the password's
	if len(raw) == 0 {
		return "", errors.New("the file is empty")
	}
	if bytes.ContainsAny(raw, "\r\n") {
		return "", errors.New("the file has more than one line")
	}
	return string(raw), nil
}
