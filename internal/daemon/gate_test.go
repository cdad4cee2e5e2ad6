package daemon_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// gate is in front of an S3 server, and holds up or refuses requests.
type gate struct {
	*httptest.Server
	t  *testing.T
	s3 *testserver.S3

	mu    sync.Mutex
	rules []*rule
}

// rule is for the requests of a method whose path, or prefix of a listing, holds
// a text.
type rule struct {
	gate         *gate
	method, part string
	answered     bool // the server does it, and its answer is held: that to the first request alone
	spent        bool
	refuse       bool          // it is answered in the server's place
	arrived      chan struct{} // gets one for each request, as far as there is room
	open         chan struct{} // closed when all may pass
}

// gated puts the repository behind a gate.
func (h *house) gated() *gate {
	h.t.Helper()
	g := &gate{t: h.t, s3: shared.S3(h.t)}
	g.Server = httptest.NewServer(g)
	h.t.Cleanup(func() {
		g.mu.Lock()
		rules := slices.Clone(g.rules)
		g.mu.Unlock()
		for _, r := range rules {
			r.release()
		}
		g.CloseClientConnections()
		g.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	h.repo = h.bucket(g.s3, "x", g.URL)
	h.configure("@yearly", "")
	h.init("main")
	return g
}

// bucket is a repository's mapping in YAML.
func (h *house) bucket(s *testserver.S3, prefix, endpoint string) string {
	h.t.Helper()
	file := filepath.Join(h.dir, "credentials")
	h.must(os.WriteFile(file, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
		s.AccessKey, s.SecretKey), 0o600))
	return fmt.Sprintf("{url: %s, s3: {endpoint: %q, region: %s, credentials-file: %s}}", s.URL(prefix), endpoint,
		s.Region, file)
}

// hold holds up such requests until it is released.
func (g *gate) hold(method, part string) *rule { return g.add(&rule{method: method, part: part}) }

// holdAnswer lets the server do what it is asked for, and holds the answer to
// the first such request.
func (g *gate) holdAnswer(method, part string) *rule {
	return g.add(&rule{method: method, part: part, answered: true})
}

// refuse refuses such requests until it is released.
func (g *gate) refuse(method, part string) *rule {
	return g.add(&rule{method: method, part: part, refuse: true})
}

func (g *gate) add(r *rule) *rule {
	g.mu.Lock()
	defer g.mu.Unlock()
	r.gate, r.arrived, r.open = g, make(chan struct{}, 100), make(chan struct{})
	g.rules = append(g.rules, r)
	return r
}

// reached waits for a request that the rule is for.
func (r *rule) reached() {
	r.gate.t.Helper()
	select {
	case <-r.arrived:
	case <-time.After(time.Minute):
		r.gate.t.Fatalf("no %s of %s", r.method, r.part)
	}
}

// release lets all requests pass, those that are held and those to come.
func (r *rule) release() {
	r.gate.mu.Lock()
	defer r.gate.mu.Unlock()
	before := len(r.gate.rules)
	if r.gate.rules = slices.DeleteFunc(r.gate.rules,
		func(o *rule) bool { return o == r }); len(r.gate.rules) < before {
		close(r.open)
	}
}

func (g *gate) find(req *http.Request) *rule {
	g.mu.Lock()
	defer g.mu.Unlock()
	text := req.URL.Path + " " + req.URL.Query().Get("prefix")
	for _, r := range g.rules {
		if r.method == req.Method && strings.Contains(text, r.part) && !r.spent {
			r.spent = r.answered
			return r
		}
	}
	return nil
}

func (g *gate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r := g.find(req)
	if r != nil {
		select {
		case r.arrived <- struct{}{}:
		default:
		}
	}
	switch {
	case r == nil:
		g.pass(w, req, body, nil)
	case r.refuse:
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no
not you</Message></Error>`)
	case r.answered:
		g.pass(w, req, body, r)
	default:
		r.wait(req)
		g.pass(w, req, body, nil)
	}
}

func (r *rule) wait(req *http.Request) {
	select {
	case <-r.open:
	case <-req.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// pass sends a request on. The client's signature is about its own Host.
func (g *gate) pass(w http.ResponseWriter, req *http.Request, body []byte, before *rule) {
	out, err := http.NewRequestWithContext(req.Context(), req.Method, g.s3.Endpoint+req.URL.RequestURI(),
		bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header, out.Host = req.Header.Clone(), req.Host
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if before != nil {
		before.wait(req)
	}
	maps.Copy(w.Header(), resp.Header)
	if req.Method == http.MethodHead {
		w.Header().Set("Content-Length", resp.Header.Get("Content-Length"))
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer) // the client may have gone away
}
