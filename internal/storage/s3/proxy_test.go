package s3_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// proxy is between a store and the real server. The faults for an
// operation strike its first requests, one each; the rest pass.
type proxy struct {
	*httptest.Server
	server *testserver.S3

	mu     sync.Mutex
	faults map[string][]fault // guarded by mu
	seen   []string           // operations in order; guarded by mu
	ending chan struct{}      // closed at the end of the test
}

// fault answers a request in its own way. body is what the client sent.
type fault func(p *proxy, w http.ResponseWriter, r *http.Request)

func startProxy(t *testing.T) *proxy {
	t.Helper()
	p := &proxy{server: testserver.StartS3(t), faults: make(map[string][]fault), ending: make(chan struct{})}
	p.Server = httptest.NewServer(p)
	t.Cleanup(func() {
		close(p.ending)
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

// open returns a store that goes through the proxy, and does not wait long.
func (p *proxy) open(t *testing.T, change ...func(*s3.Options)) *s3.Store {
	t.Helper()
	o := options(t, p.server)
	o.Endpoint = p.URL
	for _, c := range change {
		c(&o)
	}
	return open(t, o).Hurry()
}

func (p *proxy) fail(op string, faults ...fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[op] = append(p.faults[op], faults...)
}

// reset takes back the faults of an operation that have not struck.
func (p *proxy) reset(op string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.faults, op)
}

// count returns how many requests of an operation there were.
func (p *proxy) count(op string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, s := range p.seen {
		if s == op {
			n++
		}
	}
	return n
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := operation(r)
	p.mu.Lock()
	p.seen = append(p.seen, op)
	answer := fault(pass)
	if queue := p.faults[op]; len(queue) > 0 {
		answer, p.faults[op] = queue[0], queue[1:]
	}
	p.mu.Unlock()
	answer(p, w, r)
}

// operation names what a request is, as S3's documentation does.
func operation(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "UploadPart"
	case r.Method == http.MethodPut:
		return "PutObject"
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost:
		return "CompleteMultipartUpload"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == http.MethodDelete:
		return "DeleteObject"
	case r.Method == http.MethodHead:
		return "HeadObject"
	case q.Has("uploads"):
		return "ListMultipartUploads"
	case q.Has("list-type"):
		return "ListObjectsV2"
	case q.Has("versioning"):
		return "GetBucketVersioning"
	case q.Has("object-lock"):
		return "GetObjectLockConfiguration"
	case q.Has("lifecycle"):
		return "GetBucketLifecycleConfiguration"
	}
	return "GetObject"
}

// forward sends the request on. The client's signature is about its own Host.
func (p *proxy) forward(r *http.Request, body []byte) (*http.Response, error) {
	url := p.server.Endpoint + r.URL.RequestURI()
	req, err := http.NewRequestWithContext(r.Context(), r.Method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header.Clone()
	req.Host = r.Host
	return http.DefaultTransport.RoundTrip(req)
}

func pass(p *proxy, w http.ResponseWriter, r *http.Request) { passBody(p, w, r, readBody(r)) }

func passBody(p *proxy, w http.ResponseWriter, r *http.Request, body []byte) {
	resp, err := p.forward(r, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	copyHeader(w, resp)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the client may have gone away
}

func copyHeader(w http.ResponseWriter, resp *http.Response) {
	for name, values := range resp.Header {
		w.Header()[name] = slices.Clone(values)
	}
	if resp.ContentLength >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(resp.ContentLength, 10))
	}
}

func readBody(r *http.Request) []byte {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return body
}

// dropResponse lets the server do it and cuts the connection.
func dropResponse(p *proxy, _ http.ResponseWriter, r *http.Request) {
	if resp, err := p.forward(r, readBody(r)); err == nil {
		resp.Body.Close()
	}
	panic(http.ErrAbortHandler)
}

// dropRequest cuts the connection before the server hears of anything.
func dropRequest(*proxy, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// answer replies in the server's place.
func answer(status int, code, message string) fault {
	return func(_ *proxy, w http.ResponseWriter, r *http.Request) {
		readBody(r)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message)
	}
}

// stall neither reads nor answers.
func stall(p *proxy, _ http.ResponseWriter, _ *http.Request) { <-p.ending }

// cutAfter sends n bytes of the server's answer and then cuts the connection.
func cutAfter(n int64) fault { return partly(n, dropRequest) }

// stallAfter sends n bytes of the server's answer and then nothing.
func stallAfter(n int64) fault { return partly(n, stall) }

func partly(n int64, then fault) fault {
	return func(p *proxy, w http.ResponseWriter, r *http.Request) {
		resp, err := p.forward(r, readBody(r))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer resp.Body.Close()
		copyHeader(w, resp)
		w.WriteHeader(resp.StatusCode)
		_, _ = io.CopyN(w, resp.Body, n)
		_ = http.NewResponseController(w).Flush()
		then(p, w, r)
	}
}

// flipBit damages the body on its way.
func flipBit(p *proxy, w http.ResponseWriter, r *http.Request) {
	body := readBody(r)
	body[len(body)/2] ^= 1
	passBody(p, w, r, body)
}

func repeat(n int, f fault) []fault { return slices.Repeat([]fault{f}, n) }
