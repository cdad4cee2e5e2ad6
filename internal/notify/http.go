package notify

import (
	"bytes"
	"context"
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
)

// tryTimeout bounds one request.
const tryTimeout = 10 * time.Second

// client follows a redirect only if the request stays the same and no other host
// sees it: the body and the URL may hold secrets.
var client = &http.Client{
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

// place is a URL, or a file with a URL that is read each time. A URL is a secret:
// it is enough to post there.
type place struct{ url, file string }

func (p place) read() (*url.URL, error) {
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
func post(ctx context.Context, u *url.URL, contentType string, body []byte, token string) error {
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
	after := resp.Header.Get("Retry-After")
	if seconds, e := strconv.Atoi(after); e == nil && seconds >= 0 {
		return fmt.Errorf("%w: %w", err, backoff.RetryAfter(seconds))
	}
	if at, e := http.ParseTime(after); e == nil && time.Until(at) > 0 {
		return fmt.Errorf("%w: %w", err, &backoff.RetryAfterError{Duration: time.Until(at)})
	}
	return err
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
