package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// tryTimeout bounds one request.
const tryTimeout = 10 * time.Second

// client trusts the system's authorities.
var client = newClient(nil)

// newClient returns a client that trusts some authorities; nil: the system's. It follows
// a redirect only if the request stays the same and no other host sees it: the body and
// the URL may hold secrets.
func newClient(roots *x509.CertPool) *http.Client {
	c := &http.Client{
		Timeout: tryTimeout,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			first := via[0]
			switch {
			case r.URL.Host != first.URL.Host || r.URL.Scheme != first.URL.Scheme:
				return backoff.Permanent(fmt.Errorf("it redirects to another host (%s): give the URL it redirects to",
					mask(r.URL)))
			case r.Method != first.Method:
				return backoff.Permanent(fmt.Errorf("it redirects a %s to a %s: give the URL it redirects to",
					first.Method, r.Method))
			case len(via) > 5:
				return backoff.Permanent(errors.New("it redirects in circles"))
			}
			return nil
		},
	}
	if roots != nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
		c.Transport = transport
	}
	return c
}

// trust is a file of authorities, which is read at each use; without one it is the
// system's. One request uses it at a time.
type trust struct {
	file   string
	roots  *x509.CertPool
	client *http.Client // trusts roots
}

func (t *trust) current() (*http.Client, error) {
	if t.file == "" {
		return client, nil
	}
	roots, err := certs.ReadPool(t.file)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	if t.client == nil || !roots.Equal(t.roots) {
		if t.client != nil {
			t.client.CloseIdleConnections()
		}
		t.roots, t.client = roots, newClient(roots)
	}
	return t.client, nil
}

// place is a URL, or a file with a URL that is read each time, and who is trusted there.
// A URL is a secret: it is enough to post there.
type place struct {
	url, file string
	trust     trust
}

// check reads all files.
func (p *place) check() error {
	if _, err := p.read(); err != nil {
		return err
	}
	_, err := p.trust.current()
	return err
}

func (p *place) read() (*url.URL, error) {
	raw := p.url
	switch {
	case p.url != "" && p.file != "":
		return nil, errors.New("both a URL and a file with a URL are given: give one of them")
	case p.file != "":
		b, err := os.ReadFile(p.file)
		if err != nil {
			return nil, fmt.Errorf("read url: %w", err)
		}
		raw = strings.TrimSpace(string(b))
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		if p.file != "" {
			return nil, fmt.Errorf("%s does not hold an http or https URL", p.file)
		}
		return nil, errors.New("want an http or https URL (the given one is not shown, because it may be a secret)")
	}
	return u, nil
}

// mask returns the part of a URL that is no secret.
func mask(u *url.URL) string { return u.Scheme + "://" + u.Host + "/***" }

// post sends a body, or calls the URL with a GET if the body is empty. Its errors
// hold neither the URL nor the token, even if the receiver returns them.
func (p *place) post(ctx context.Context, u *url.URL, contentType string, body []byte, token string) error {
	client, err := p.trust.current()
	if err != nil {
		return err
	}
	method := http.MethodPost
	if len(body) == 0 {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(fmt.Errorf("%s: the request cannot be made", mask(u)))
	}
	r.Header.Set("User-Agent", "backupd")
	if len(body) > 0 {
		r.Header.Set("Content-Type", contentType)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(r)
	if err != nil {
		// A url.Error shows the URL.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return fmt.Errorf("%s %s: %w", method, mask(u), err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // for the message, and to reuse the connection
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err = fmt.Errorf("%s %s: %s%s", method, mask(u), resp.Status, excerpt(string(answer), u, token))
	return retryable(err, resp)
}

// retryable marks the error of an answer: whether to try again, and when.
func retryable(err error, resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
	default:
		return backoff.Permanent(err)
	}
	if pause := pauseOf(resp.Header.Get("Retry-After"), time.Now()); pause > 0 {
		return fmt.Errorf("%w: %w", err, &backoff.RetryAfterError{Duration: pause})
	}
	return err
}

// maxPause is the longest pause that a receiver may ask for. After a longer one the
// delivery would have been given up without another try.
const maxPause = 2 * time.Minute

// pauseOf returns the pause that a Retry-After asks for, or 0: it holds seconds or a
// date.
func pauseOf(after string, now time.Time) time.Duration {
	if at, err := http.ParseTime(after); err == nil {
		return max(0, min(at.Sub(now), maxPause))
	}
	seconds, err := strconv.ParseInt(after, 10, 64)
	if errors.Is(err, strconv.ErrRange) && seconds > 0 {
		return maxPause
	}
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int64(maxPause/time.Second))) * time.Second
}

// excerpt returns a server's answer for an error message, if it is short and holds
// no part of the URL or the token.
func excerpt(answer string, u *url.URL, token string) string {
	answer = strings.TrimSpace(answer)
	if answer == "" || len(answer) > 200 || strings.ContainsAny(answer, "\r\n<") {
		return ""
	}
	parts := strings.FieldsFunc(u.Path+"/"+u.RawQuery, func(r rune) bool { return strings.ContainsRune("/&=", r) })
	for _, secret := range append(parts, token) {
		if len(secret) >= 4 && strings.Contains(answer, secret) {
			return ""
		}
	}
	return ": " + answer
}
