// Package kubeapi reads Secrets of Kubernetes by name from an API server: by a kubeconfig, or as
// the service account of this pod. What it cannot do as it is told it refuses with the line of the
// file. Its errors hold nothing of a Secret, of a token or of an answer, and are the same each time
// that the same is wrong.
package kubeapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

const (
	// maxAnswer bounds an answer: a Secret has at most 1 MiB of data, and all else that it holds
	// fits into a request of 3 MiB.
	maxAnswer = 6 << 20
	// maxHeader bounds the header of an answer.
	maxHeader = 64 << 10
	// connections is how many connections there are to one server.
	connections = 4
)

// access says where an API server is, whom it is trusted by, and who asks it.
type access struct {
	server *url.URL
	tls    *tls.Config
	// token returns the token of now, or nothing if a certificate says who asks.
	token func() (string, error)
	// trust and who say where the authorities and the name of who asks come from.
	trust, who string
}

// Client asks one API server.
type Client struct {
	access
	http *http.Client
}

// Open reads a kubeconfig, or for "" what is known of this pod. It connects to nothing. The error
// of a kubeconfig is a [*FileError], and outside of a pod it is [ErrNoPod].
func Open(kubeconfig string) (*Client, error) {
	var a access
	var err error
	if kubeconfig == "" {
		a, err = podAccount(accountDir)
	} else {
		a, err = readConfig(kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	a.tls.MinVersion = tls.VersionTLS12
	return &Client{a, &http.Client{
		Transport: &http.Transport{
			// Without a proxy: what the environment says of one is for other programs.
			DialContext: (&net.Dialer{}).DialContext, TLSClientConfig: a.tls, MaxConnsPerHost: connections,
			MaxResponseHeaderBytes: maxHeader, DisableCompression: true,
		},
		// A redirect would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close ends the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Secret reads one Secret by its name. The error is one line, and can be shown to everybody.
func (c *Client) Secret(ctx context.Context, namespace, name string) (*Secret, error) {
	at := c.server.JoinPath("api/v1/namespaces", namespace, "secrets", name)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, errors.New("its name makes no address")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "backupd")
	token, err := c.token()
	if err != nil {
		return nil, fmt.Errorf("the token cannot be read: %w", err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(err)
	}
	defer resp.Body.Close() // only read from
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, c.refused(resp.StatusCode, raw, namespace, name)
	case err != nil:
		return nil, c.failed(err)
	case len(raw) > maxAnswer:
		return nil, fmt.Errorf("%s answers more than %d MiB, which no Secret has", c.address(), maxAnswer>>20)
	}
	s, err := parse(raw, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("%s answers %w", c.address(), err)
	}
	return s, nil
}

// address names the server in errors, as it is in a kubeconfig but for its path.
func (c *Client) address() string { return "the API server at https://" + c.server.Host }

// printable reports whether a text can be a token in a header.
func printable(token string) bool {
	return !strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })
}
