package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// HandlerForTest returns the handler of a server that is not run.
func HandlerForTest(t testing.TB, o Options) http.Handler {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return s.api
}

// ServeForTest hands one request to a handler, as net/http parses it off the
// wire, without a connection. It returns nil where net/http refuses it.
func ServeForTest(h http.Handler, method, target, body, kind, host string) (*http.Response, []byte) {
	wire := method + " " + target + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: " + kind +
		"\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(wire)))
	if err != nil {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), http.LocalAddrContextKey,
		net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})))
	cancel() // streams of events end at once
	w := &wireless{ResponseRecorder: httptest.NewRecorder()}
	h.ServeHTTP(w, r.WithContext(ctx))
	resp := w.Result()
	raw, _ := io.ReadAll(resp.Body)
	return resp, raw
}

// wireless accepts deadlines, having no connection they could be of.
type wireless struct{ *httptest.ResponseRecorder }

func (w *wireless) SetReadDeadline(time.Time) error  { return nil }
func (w *wireless) SetWriteDeadline(time.Time) error { return nil }
