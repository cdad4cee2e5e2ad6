package greet

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
)

// HasV2Keys reports whether the member at a URL serves keys of etcd's v2 API, to which a
// snapshot is blind. A member that asks for a login of that API serves some. It is false
// where the member does not speak that API, or does not answer.
//
// The root lists no key that begins with "_". Of these only those of etcd's own discovery
// service are asked for. The counters of the v2 store are no sign of others: they count
// the start of each member, too.
func HasV2Keys(ctx context.Context, base string, conf *tls.Config) bool {
	transport := &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{Transport: transport, CheckRedirect: stay}
	return hasV2Keys(ctx, client, base, "/", `"dir":true,"nodes":[{`) ||
		hasV2Keys(ctx, client, base, "/_etcd", `"key":"/_etcd","dir":true,"nodes":[{`)
}

// hasV2Keys reports whether a listing of a folder begins like that of one with keys.
func hasV2Keys(ctx context.Context, client *http.Client, base, folder, begins string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/v2/keys"+folder, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	// The listing may be long. What tells is at its beginning.
	head, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	switch resp.StatusCode {
	case http.StatusOK:
		return bytes.HasPrefix(head, []byte(`{"action":"get","node":{`+begins))
	case http.StatusUnauthorized, http.StatusForbidden:
		return resp.Header.Get("X-Etcd-Cluster-Id") != ""
	}
	return false
}
