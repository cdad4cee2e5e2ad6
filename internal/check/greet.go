package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/config"
)

// greeting is what an endpoint shows without a login: its certificate and clock.
type greeting struct {
	chain  []*x509.Certificate // nil without TLS
	status int                 // of its answer; 0 if there was none
	offset time.Duration       // of its clock from ours, at least
	dated  bool                // the offset is known
	err    error               // why there was no answer
}

// greet asks the member at a URL for its version, which needs no login. It keeps
// the certificate and does not verify it, so that the caller can report all that
// is wrong with it. A port that speaks only gRPC shows its certificate too. Then
// it gives no sensible answer, which is no mistake.
func greet(ctx context.Context, base string, conf *tls.Config) greeting {
	var g greeting
	conf = conf.Clone()
	conf.InsecureSkipVerify = true //nolint:gosec // we send no secret; verify does it
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		g.chain = s.PeerCertificates
		return nil
	}
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{Transport: transport, CheckRedirect: stay}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/version", nil)
	if err != nil {
		g.err = err
		return g
	}
	sent := time.Now()
	resp, err := client.Do(req)
	received := time.Now()
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not in time: %w", err)
		}
		g.err = err
		return g
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 1<<10) // so that it ends in good order
	g.status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		g.offset, g.dated = clockOffset(date, sent, received), true
	}
	return g
}

// ending returns the error with which the other side ends a connection on which we
// send nothing. In TLS 1.3 a refused certificate causes an alert after the
// handshake. A client that writes first may never read it.
func ending(ctx context.Context, address string, conf *tls.Config) error {
	conf = conf.Clone()
	conf.InsecureSkipVerify = true //nolint:gosec // we send no secret
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(alertTimeout)) // an open connection has one
	_, err = conn.Read(make([]byte, 1))
	return err
}

// alertTimeout is how long an alert may be on its way.
const alertTimeout = 2 * time.Second

// clockOffset returns the least difference of a clock from ours, when it showed
// date, in whole seconds, at some moment between sent and received.
func clockOffset(date, sent, received time.Time) time.Duration {
	if ahead := date.Sub(received); ahead > 0 {
		return ahead
	}
	return min(0, date.Add(time.Second).Sub(sent))
}

// verify checks the certificates that the member host showed, and reports whether
// they are good.
func verify(l *list, chain []*x509.Certificate, roots *x509.CertPool, host string, now time.Time) bool {
	leaf := chain[0]
	if level, text := validity(leaf, now); level == backup.LevelFailure {
		l.fail("renew the member's certificate; if it is good, set the clock of this host",
			"the member's certificate %s", text)
		return false
	} else if level == backup.LevelWarning {
		l.warn("renew the member's certificate", "the member's certificate %s", text)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		l.fail("name the member as its certificate does, or issue a certificate with this name or address",
			"the member's certificate is for %s, and not for %s", names(leaf), host)
		return false
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		l.fail("name the file with the CA of the members in tls.ca-file",
			"the member's certificate was issued by %q, and this host does not trust that authority", leaf.Issuer)
	case err != nil:
		l.fail("look at the certificate: openssl x509 -text -noout -in FILE",
			"the member's certificate is not accepted: %v", err)
	}
	return err == nil
}

// names spells the hosts that a certificate is for.
func names(cert *x509.Certificate) string {
	out := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		return "nobody (it has no subject alternative name)"
	}
	return strings.Join(out, ", ")
}

// refused reports whether the other side ended TLS because of us.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// whyRefused returns a hint on how to correct a client certificate.
func whyRefused(conf *config.TLS, now time.Time) string {
	if conf.CertFile == "" {
		return "name a client certificate in tls.cert-file and tls.key-file"
	}
	const ca = "it must be issued by the CA that the members have as --trusted-ca-file"
	chain, err := certs.Read(conf.CertFile)
	if err != nil {
		return ca
	}
	if level, text := validity(chain[0], now); level == backup.LevelFailure {
		return fmt.Sprintf("renew %s: it %s", conf.CertFile, text)
	}
	usages := chain[0].ExtKeyUsage
	forClients := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny }
	if len(usages) > 0 && !slices.ContainsFunc(usages, forClients) {
		return fmt.Sprintf("issue %s again with the extended key usage clientAuth", conf.CertFile)
	}
	return ca
}
