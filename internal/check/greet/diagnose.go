package greet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// Fault is what keeps a client from talking to a server that can be reached.
type Fault int

// Faults.
const (
	Unknown   Fault = iota
	NeedsTLS        // it speaks TLS, and the client does not
	NoTLS           // it does not speak TLS, and the client does
	Untrusted       // the client does not trust its certificate
	Refused         // it does not trust the client, or has no certificate of it
	NoEtcd          // it speaks HTTP, and no etcd answers there
)

// Trouble is the result of a [Diagnosis].
type Trouble struct {
	Fault
	Err    error               // what was said, if it was
	Chain  []*x509.Certificate // that the server showed
	Status string              // of the HTTP answer of what is no etcd
}

// Diagnose connects to a host once more, without a login, and finds out why a client could
// not talk to it. Errors of gRPC tell that in words at best. conf is the client's TLS
// configuration, or nil if it speaks none.
func Diagnose(ctx context.Context, host string, conf *tls.Config) Trouble {
	if conf == nil {
		if g := Member(ctx, "https://"+host, &tls.Config{MinVersion: tls.VersionTLS12}); g.Chain != nil {
			return Trouble{Fault: NeedsTLS, Chain: g.Chain}
		}
		return noEtcd(Member(ctx, "http://"+host, &tls.Config{MinVersion: tls.VersionTLS12}))
	}
	g := Member(ctx, "https://"+host, conf)
	if g.Chain == nil && !WasRefused(g.Err) {
		// Of those that speak no TLS some answer to HTTP, and some only gRPC.
		if errors.As(g.Err, new(tls.RecordHeaderError)) || errors.Is(g.Err, http.ErrSchemeMismatch) ||
			Member(ctx, "http://"+host, conf).Status != 0 {
			return Trouble{Fault: NoTLS}
		}
		return Trouble{Err: g.Err}
	}
	if err := verify(g.Chain, host, conf); err != nil {
		return Trouble{Fault: Untrusted, Err: err, Chain: g.Chain}
	}
	if g.Err != nil && !WasRefused(g.Err) {
		g.Err = Ending(ctx, host, conf)
	}
	if WasRefused(g.Err) {
		return Trouble{Fault: Refused, Err: g.Err, Chain: g.Chain}
	}
	return noEtcd(g)
}

// noEtcd judges an answer by HTTP: an etcd tells its version, or speaks gRPC only.
func noEtcd(g Answer) Trouble {
	if g.Status != 0 && g.Status != http.StatusOK && g.Status != http.StatusBadRequest {
		return Trouble{Fault: NoEtcd, Status: http.StatusText(g.Status)}
	}
	return Trouble{Err: g.Err}
}

// verify verifies a chain as a client with that configuration does.
func verify(chain []*x509.Certificate, address string, conf *tls.Config) error {
	if conf.InsecureSkipVerify || len(chain) == 0 {
		return nil
	}
	host := conf.ServerName
	if host == "" {
		host = hostOf(address)
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: conf.RootCAs, Intermediates: between, DNSName: host})
	return err
}
