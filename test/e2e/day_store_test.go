//go:build long

package e2e_test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// storeGate is in front of an S3 server: it can be closed, and hold requests of one kind.
type storeGate struct {
	*httptest.Server
	s3 *testserver.S3

	mu     sync.Mutex // guards what follows
	closed bool
	method string // of the requests that are held
	part   string // of their paths
	hold   chan struct{}
	held   int
}

func newStoreGate(t *testing.T) *storeGate {
	g := &storeGate{s3: testserver.StartS3(t)}
	g.Server = httptest.NewServer(g)
	t.Cleanup(func() {
		g.release()
		g.CloseClientConnections()
		g.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return g
}

// closeTo takes the store away, or brings it back.
func (g *storeGate) closeTo(closed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = closed
}

// holdFirst holds the requests of a method whose paths have a part, and returns when one waits.
func (g *storeGate) holdFirst(t *testing.T, method, part string) {
	t.Helper()
	g.mu.Lock()
	g.method, g.part, g.hold = method, part, make(chan struct{})
	g.mu.Unlock()
	waitFor(t, "a "+method+" of "+part, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.held > 0
	})
}

func (g *storeGate) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hold != nil {
		close(g.hold)
		g.hold = nil
	}
}

func (g *storeGate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	g.mu.Lock()
	closed, hold := g.closed, g.hold
	wait := hold != nil && req.Method == g.method && strings.Contains(req.URL.Path, g.part)
	if wait {
		g.held++
	}
	g.mu.Unlock()
	if closed {
		panic(http.ErrAbortHandler)
	}
	if wait {
		select {
		case <-hold:
		case <-req.Context().Done():
		}
		g.mu.Lock()
		g.held--
		g.mu.Unlock()
	}
	g.pass(w, req, body)
}

// pass sends a request on. The client's signature is about its own Host.
func (g *storeGate) pass(w http.ResponseWriter, req *http.Request, body []byte) {
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
	maps.Copy(w.Header(), resp.Header)
	if req.Method == http.MethodHead {
		w.Header().Set("Content-Length", resp.Header.Get("Content-Length"))
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the client may have gone away
}
