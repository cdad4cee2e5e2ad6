// Package endpoint reads what people and members write as the address of a member.
package endpoint

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// ErrMore is the error for an endpoint that does not end with its port. It does not quote
// the endpoint: endpoints are logged and stored, and what follows the port may be a token.
var ErrMore = errors.New("an endpoint ends with its port: write https://10.0.0.1:2379, with no path and no query")

// Check returns an error for an endpoint that no client can use, or that has more than a
// client uses. shown is how the error quotes it.
func Check(ep, shown string) error {
	if ep == "" {
		return errors.New("an endpoint is empty")
	}
	if More(ep) {
		return ErrMore
	}
	if !strings.Contains(ep, "://") {
		return nil
	}
	u, err := url.Parse(ep)
	if err != nil {
		return fmt.Errorf("endpoint %q is not a URL", shown) // the error quotes it
	}
	switch u.Scheme {
	case "http", "https", "unix", "unixs":
		return nil
	}
	return fmt.Errorf("endpoint %q: scheme %q is not known: want http, https, unix or unixs", shown, u.Scheme)
}

// More reports whether anything but one slash follows the host and the port of an endpoint.
// That of a socket is a path.
func More(ep string) bool {
	scheme, rest, ok := strings.Cut(ep, "://")
	switch strings.ToLower(scheme) {
	case "unix", "unixs":
		return false
	}
	if !ok {
		rest = ep
	}
	return strings.ContainsAny(strings.TrimSuffix(rest, "/"), "/?#")
}

// Same reports whether two endpoints name the same address, whatever
// their schemes are.
func Same(a, b string) bool { return address(a) == address(b) }

// address is an endpoint without its scheme.
func address(endpoint string) string {
	if _, after, ok := strings.Cut(endpoint, "://"); ok {
		endpoint = after
	}
	return strings.ToLower(strings.TrimSuffix(endpoint, "/"))
}

// Proxy returns the proxy through which gRPC connects to a host, or "": it goes by the same
// variables as HTTP does, and not only for the store.
func Proxy(host string) string {
	u, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
	if err != nil || u == nil {
		return ""
	}
	return u.Host
}
