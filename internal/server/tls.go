package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// loadTLS returns the TLS configuration from the files in the options, or nil if
// they name none. Each handshake uses the current contents of the files.
func loadTLS(o Options, log *slog.Logger) (*tls.Config, error) {
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
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
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
			return c, nil
		},
	}, nil
}
