package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// loadTLS returns a function that makes the TLS configuration of one connection, from the
// current contents of the files in the options, or nil if they name none.
func loadTLS(o Options, log *slog.Logger) (func() *tls.Config, error) {
	if o.CertFile == "" && o.KeyFile == "" && o.ClientCAFile == "" {
		return nil, nil
	}
	if o.CertFile == "" || o.KeyFile == "" {
		return nil, errors.New("configure TLS: cert-file and key-file belong together, and client-ca-file needs both")
	}
	pair, err := certs.LoadPair(log, o.CertFile, o.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read server certificate: %w", err)
	}
	var authority *certs.Reloaded[*x509.CertPool]
	if o.ClientCAFile != "" {
		if authority, err = certs.LoadPool(log, o.ClientCAFile); err != nil {
			return nil, fmt.Errorf("read CA of clients: %w", err)
		}
	}
	return func() *tls.Config {
		c := &tls.Config{
			MinVersion:   tls.VersionTLS12,
			Certificates: []tls.Certificate{*pair.Get()},
			// One protocol means one set of time-outs.
			NextProtos: []string{"http/1.1"},
			// A resumed session would stay valid after its authority was removed.
			SessionTicketsDisabled: true,
		}
		if authority != nil {
			// Probes have no certificate. A route that needs one answers 401.
			c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, authority.Get()
		}
		return c
	}, nil
}
