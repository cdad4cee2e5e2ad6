// Package greet asks a member of etcd what it shows to everybody, without a login:
// its certificate, its clock, and whether it has keys of the v2 API. It reports how the connection ended, so that the
// caller can say all that is wrong with it.
package greet

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
	"time"
)

// Answer is what an endpoint shows without a login: its certificate and clock.
type Answer struct {
	Chain  []*x509.Certificate // nil without TLS
	Status int                 // of its answer; 0 if there was none
	Offset time.Duration       // of its clock from ours, at least
	Dated  bool                // the offset is known
	Err    error               // why there was no answer
}

// Member asks the member at a URL for its version, which needs no login. It keeps
// the certificate and does not verify it, so that the caller can report all that
// is wrong with it. A port that speaks only gRPC shows its certificate too. Then
// it gives no sensible answer, which is no mistake.
func Member(ctx context.Context, base string, conf *tls.Config) Answer {
	var g Answer
	conf = conf.Clone()
	conf.InsecureSkipVerify = true // we send no secret; the caller verifies it
	conf.VerifyConnection = func(s tls.ConnectionState) error {
		g.Chain = s.PeerCertificates
		return nil
	}
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{Transport: transport, CheckRedirect: stay}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/version", nil)
	if err != nil {
		g.Err = err
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
		g.Err = err
		return g
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 1<<10) // so that it ends in good order
	g.Status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		g.Offset, g.Dated = clockOffset(date, sent, received), true
	}
	return g
}

// Ending returns why the other side ends a connection on which we send nothing.
// In TLS 1.3 a refused certificate causes an alert after the handshake. A client
// that writes first may never read it.
func Ending(ctx context.Context, address string, conf *tls.Config) error {
	conf = conf.Clone()
	conf.InsecureSkipVerify = true // we send no secret
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

// WasRefused reports whether the other side ended TLS because of us.
func WasRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// Unreachable reports whether err is about the network, and not an answer of the
// other side.
func Unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, context.DeadlineExceeded)
}

// hostOf is an address without its port.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}
