package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// loadTLS returns how to speak TLS with the files that options name, or nil
// where they name none. Each handshake takes the files as they are then.
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
				// One protocol, one set of time-outs to get right.
				NextProtos: []string{"http/1.1"},
				// A resumed session would outlive the authority that vouched for it.
				SessionTicketsDisabled: true,
			}
			if authority != nil {
				// Probes come without a certificate; who needs one is told by 401.
				c.ClientAuth, c.ClientCAs = tls.VerifyClientCertIfGiven, authority.Get()
			}
			return c, nil
		},
	}, nil
}
