package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/check/greet"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
)

// unreachableError says that a connection to a member failed.
type unreachableError struct {
	said string
	met  bool // somebody was there
}

func (e *unreachableError) Error() string { return "unreachable: " + e.said }

// newUnreachable drops the words that gRPC puts around the cause.
func newUnreachable(said string) error {
	if inner, ok := strings.CutPrefix(said, "connection error: desc = "); ok {
		if text, err := strconv.Unquote(inner); err == nil {
			said = text
		}
	}
	cause, alone := strings.CutPrefix(said, "transport: Error while dialing: ")
	cause = strings.TrimPrefix(cause, "transport: authentication handshake failed: ")
	return &unreachableError{strings.TrimPrefix(cause, "error reading server preface: "), !alone}
}

// diagnose finds out why a member could not be talked to. gRPC tells it in words, if at
// all: a refused client certificate may show as a broken pipe.
func (c *connections) diagnose(ctx context.Context, address string, err error) error {
	var lost *unreachableError
	if !errors.As(err, &lost) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	u, parseErr := url.Parse(c.cfg.URL(address))
	if parseErr != nil || u.Scheme != "http" && u.Scheme != "https" {
		return err
	}
	if proxy := endpoint.Proxy(u.Host); proxy != "" {
		return backup.WithHint(fmt.Errorf("%w (through the proxy %s, which HTTPS_PROXY names)", err, proxy),
			"if etcd is reached without the proxy, name it in NO_PROXY: NO_PROXY=%s", u.Hostname())
	}
	if lost == nil || !lost.met || ctx.Err() != nil {
		return err
	}
	if u.Scheme == "http" {
		return c.faultOf(greet.Diagnose(ctx, u.Host, nil), err)
	}
	return c.faultOf(greet.Diagnose(ctx, u.Host, c.tls.config()), err)
}

// faultOf says what a diagnosis has found, or returns err if it has found nothing.
func (c *connections) faultOf(found greet.Trouble, err error) error {
	switch found.Fault {
	case greet.NeedsTLS:
		return backup.WithHints(errors.New("the member speaks TLS at this address, and was asked without"),
			"write the endpoint with https://, and give --cacert, --cert and --key",
			"write the endpoint with https://, and name ca-file, cert-file and key-file in tls")
	case greet.NoTLS:
		return backup.WithHint(errors.New("the member does not speak TLS at this address"),
			"write the endpoint with http://, or give the member a certificate")
	case greet.NoEtcd:
		return backup.WithHint(fmt.Errorf("no etcd answers there, but a server of HTTP (%s)", found.Status),
			"name the client URL of the member, as in its --advertise-client-urls")
	case greet.Untrusted:
		leaf, also := found.Chain[0], ""
		if certs.Alone(found.Chain) {
			also = fmt.Sprintf("; if %q is an intermediate authority, append its certificate to the member's --cert-file",
				leaf.Issuer)
		}
		return backup.WithHints(fmt.Errorf("this host does not trust the member's certificate, which %q has issued: %w",
			leaf.Issuer, found.Err), "give the CA of the members with --cacert"+also,
			"name the CA of the members in tls.ca-file"+also)
	case greet.Refused:
		refused := fmt.Errorf("the member refuses this client: %w", found.Err)
		if c.cfg.CertFile == "" {
			return backup.WithHints(refused, "the member demands a client certificate: give --cert and --key",
				"the member demands a client certificate: name cert-file and key-file in tls")
		}
		return backup.WithHint(refused, "the client certificate is not accepted: %s",
			certs.WhyRefused(c.cfg.CertFile, time.Now()))
	}
	return err
}

// tokenFault says why etcd refuses a token, as far as the token itself tells. It comes from a
// file if that has a name.
func tokenFault(token, file string, err error) error {
	text := "etcd does not accept the token"
	if end := certs.TokenExpiry(token); !end.IsZero() && time.Now().After(end) {
		text = "the token expired on " + end.Format("2006-01-02 15:04 UTC")
	} else if errors.Is(err, errOldToken) {
		text = "users or roles have changed since the token was issued"
	}
	if file != "" {
		return backup.WithHint(fmt.Errorf("%w: %s", err, text),
			"get a new token, and write it to %s, the token-file of the cluster: it is read again by itself", file)
	}
	return backup.WithHint(fmt.Errorf("%w: %s", err, text),
		"get a new token, and give it with --auth-jwt-token (ETCDCTL_AUTH_JWT_TOKEN)")
}
