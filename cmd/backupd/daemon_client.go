package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/secret"
	"github.com/etcd-backupd/backupd/internal/server"
)

// daemonFlags say how to reach a running daemon. Those of the same names that
// every command has are etcd's.
type daemonFlags struct {
	server, tokenFile         string
	caFile, certFile, keyFile string
}

func (f *daemonFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.server, "server", "http://127.0.0.1:9387", "address of the daemon")
	fs.StringVar(&f.tokenFile, "token-file", "", "file whose first line is a bearer token")
	fs.StringVar(&f.caFile, "cacert", "",
		"CA bundle that the daemon's certificate is verified against; default: the system's")
	fs.StringVar(&f.certFile, "cert", "", "client certificate file")
	fs.StringVar(&f.keyFile, "key", "", "client key file")
}

// daemonClient asks a running daemon.
type daemonClient struct {
	base  string
	token string
	http  *http.Client
}

func (f *daemonFlags) client(timeout time.Duration) (*daemonClient, error) {
	if secret.InAddress(f.server) {
		return nil, &usageError{errors.New("--server must not hold a user or a password: give --token-file, or --cert")}
	}
	u, err := url.Parse(f.server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, &usageError{fmt.Errorf("--server %q: want http://HOST:PORT or https://HOST:PORT",
			secret.Show(f.server))}
	}
	d := &daemonClient{base: u.Scheme + "://" + u.Host}
	if f.tokenFile != "" {
		if d.token, err = readToken(f.tokenFile); err != nil {
			return nil, err
		}
		if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && !ip.IsLoopback() {
			return nil, &usageError{fmt.Errorf("--server %s: a token is not sent in the clear; use https", f.server)}
		}
	}
	conf, err := f.tls()
	if err != nil {
		return nil, err
	}
	d.http = &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf},
		// The daemon never redirects: who does is somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return d, nil
}

func readToken(file string) (string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	token, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n")
	if token = strings.TrimSpace(token); token == "" {
		return "", fmt.Errorf("read token: %s is empty", file)
	}
	return token, nil
}

func (f *daemonFlags) tls() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caFile != "" {
		var err error
		if conf.RootCAs, err = certs.ReadPool(f.caFile); err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
	}
	if (f.certFile == "") != (f.keyFile == "") {
		return nil, &usageError{errors.New("--cert and --key belong together")}
	}
	if f.certFile != "" {
		pair, err := certs.ReadPair(f.certFile, f.keyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{*pair}
	}
	return conf, nil
}

func (d *daemonClient) close() { d.http.CloseIdleConnections() }

const maxAnswer = 64 << 20

// get reads what is at a path of the API into v.
func (d *daemonClient) get(ctx context.Context, path string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/api/v1"+path, nil)
	if err != nil {
		return fmt.Errorf("ask the daemon: %w", err)
	}
	if d.token != "" {
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return d.unreachable(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return d.unreachable(err)
	}
	if resp.Header.Get("Content-Type") == server.ProblemType {
		return d.problem(resp.StatusCode, raw)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(raw, v); err == nil {
			return nil
		}
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n")
	err = fmt.Errorf("ask the daemon at %s: it answers %s, %.200q: this is no backupd daemon", d.base, resp.Status, text)
	return backup.WithHint(err, "check --server; a daemon with a certificate needs https://")
}

// problem turns what the daemon says is wrong into an error.
func (d *daemonClient) problem(status int, raw []byte) error {
	p := server.Problem{Status: status, Title: http.StatusText(status)}
	_ = json.Unmarshal(raw, &p) // what it does not say stays as it is
	err := fmt.Errorf("ask the daemon at %s: %w", d.base, &p)
	switch status {
	case http.StatusUnauthorized:
		return backup.WithHint(err, "give --token-file, with a token of the daemon's token files")
	case http.StatusMisdirectedRequest:
		return backup.WithHint(err, "give --server a name that the daemon goes by, or add this one to its allowed-hosts")
	}
	if p.Hint != "" {
		return backup.WithHint(err, "%s", p.Hint)
	}
	return err
}

func (d *daemonClient) unreachable(err error) error {
	var asked *url.Error
	if errors.As(err, &asked) {
		err = asked.Err // it names the address once more
	}
	var untrusted *tls.CertificateVerificationError
	hint := "check --server; a daemon with a certificate needs https://"
	switch {
	case errors.As(err, &untrusted):
		hint = "give the authority of the daemon's certificate by --cacert"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "is 'backupd run' running there? --server or BACKUPD_SERVER tells where it listens"
	case errors.Is(err, context.DeadlineExceeded):
		hint = "a longer --command-timeout may help"
	case errors.Is(err, http.ErrSchemeMismatch):
		hint = "the daemon has no certificate: use http://"
	}
	return backup.WithHint(fmt.Errorf("reach the daemon at %s: %w", d.base, err), "%s", hint)
}
