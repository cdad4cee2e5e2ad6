package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/server/callers"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestNew_RefusesToBeReachableByAll(t *testing.T) {
	ca := testserver.NewAuthority(t)
	cert, key := ca.Issue(t, "server")
	tokens := tokenFile(t, readToken)
	for _, c := range []struct {
		name    string
		o       server.Options
		refused bool
	}{
		{"Plain", server.Options{}, true},
		{"TokensInTheClear", server.Options{ReadTokensFile: tokens}, true},
		{"TLSForAnybody", server.Options{CertFile: cert, KeyFile: key}, true},
		{"TLSAndReadTokens", server.Options{CertFile: cert, KeyFile: key, ReadTokensFile: tokens}, false},
		{"TLSAndOperateTokens", server.Options{CertFile: cert, KeyFile: key, OperateTokensFile: tokens}, false},
		{"TLSAndClientCertificates", server.Options{CertFile: cert, KeyFile: key, ClientCAFile: ca.File,
			Callers: []callers.Caller{{Certificate: "prometheus"}}}, false},
	} {
		for _, listen := range []string{"0.0.0.0:0", ":0", "[::]:0", "127.0.0.1:0", "localhost:0"} {
			t.Run(c.name+"/"+listen, func(t *testing.T) {
				c.o.Listen, c.o.Backend, c.o.Metrics = listen, newBackend(), metrics()
				refused := c.refused && !strings.HasPrefix(listen, "127.") && !strings.HasPrefix(listen, "localhost")
				s, err := server.New(c.o)
				if err == nil {
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				}
				if (err != nil) != refused {
					t.Fatalf("error %v, want one: %v", err, refused)
				}
				if !refused {
					return
				}
				reason, hint := new(backup.RefusedError), new(backup.HintError)
				if !errors.As(err, &reason) || !errors.As(err, &hint) || !strings.Contains(err.Error(), listen) ||
					!strings.Contains(hint.Hint, "cert-file") {
					t.Errorf("error %v, want a refusal with a hint", err)
				}
			})
		}
	}
}

func TestHeaders(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b, OperateTokensFile: tokenFile(t, operateToken)})
	for _, path := range []string{"/healthz", "/metrics", api + "/jobs", "/nothing"} {
		resp, _ := r.do(t, "GET", path, "")
		for name, want := range map[string]string{
			"X-Content-Type-Options":      "nosniff",
			"Content-Security-Policy":     "default-src 'none'",
			"Cache-Control":               "no-store",
			"Referrer-Policy":             "no-referrer",
			"Access-Control-Allow-Origin": "",
		} {
			if got := resp.Header.Get(name); !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestHost(t *testing.T) {
	r := start(t, server.Options{AllowedHosts: []string{"Backup.Example", "192.0.2.7", "2001:db8::7"}})
	for host, ok := range map[string]bool{
		"localhost":           true,
		"LOCALHOST:1":         true,
		"localhost.":          true,
		"127.0.0.1:9387":      true,
		"127.9.9.9":           true,
		"[::1]:9387":          true,
		"backup.example:9387": true,
		"192.0.2.7:80":        true,
		"[2001:DB8::7]":       true,
		"192.0.2.8":           false,
		"evil.example":        false,
		"evil.example:9387":   false,
		"localhost.evil.com":  false,
		"127.0.0.1.nip.io":    false,
		"user@localhost":      false,
	} {
		resp, body := r.do(t, "GET", "/healthz", "", "Host: "+host)
		if want := map[bool]int{true: 200, false: 421}[ok]; resp.StatusCode != want {
			t.Errorf("Host %s: %s, want %d: %s", host, resp.Status, want, body)
		}
	}
	p := r.problem(t, http.StatusMisdirectedRequest, "POST", prod+"/backups", "", "Host: evil.example")
	if !strings.Contains(p.Hint, "allowed-hosts") {
		t.Errorf("hint %q", p.Hint)
	}
	// Without a name at all.
	if status := raw(t, r, "GET /healthz HTTP/1.0\r\n\r\n"); !strings.Contains(status, "421") {
		t.Error(status)
	}
}

// A listener on all addresses is called by the one the request came in at, as
// probes and Prometheus do.
func TestHost_AllAddresses(t *testing.T) {
	own := ownAddress(t)
	ca := testserver.NewAuthority(t)
	o := server.Options{Listen: "0.0.0.0:0", ReadTokensFile: tokenFile(t, readToken)}
	o.CertFile, o.KeyFile = ca.Issue(t, "server")
	r := start(t, o)
	r.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}
	_, port, _ := net.SplitHostPort(r.Addr().String())
	r.url = "https://" + net.JoinHostPort(own, port)
	if resp, body := r.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("by its own address %s: %s: %s", own, resp.Status, body)
	}
	r.problem(t, http.StatusMisdirectedRequest, "GET", "/healthz", "", "Host: 192.0.2.8")
}

func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	return "127.0.0.1" // a machine without a network
}

func TestCrossOrigin(t *testing.T) {
	r := start(t, server.Options{})
	origin := "Origin: " + r.url
	for _, c := range []struct {
		method  string
		headers []string
		ok      bool
	}{
		{"POST", nil, true}, // not a browser
		{"POST", []string{"Sec-Fetch-Site: same-origin"}, true},
		{"POST", []string{"Sec-Fetch-Site: cross-site"}, false},
		{"POST", []string{"Sec-Fetch-Site: same-site"}, false},
		{"POST", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"}, false},
		{"POST", []string{origin}, true},
		{"POST", []string{"Origin: http://evil.example"}, false},
		{"POST", []string{"Origin: null"}, false},
		{"GET", nil, true},
		{"GET", []string{"Sec-Fetch-Site: same-origin"}, true},
		{"GET", []string{"Sec-Fetch-Site: none", "Sec-Fetch-Dest: document"}, true},
		{"GET", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: document"}, true}, // a link
		{"GET", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"}, false},
		{"GET", []string{"Origin: http://evil.example"}, false},
	} {
		path := map[string]string{"GET": "/prune-plan", "POST": "/backups"}[c.method]
		resp, body := r.do(t, c.method, prod+path, "", c.headers...)
		if forbidden := resp.StatusCode == http.StatusForbidden; forbidden == c.ok {
			t.Errorf("%s with %q: %s: %s", c.method, c.headers, resp.Status, body)
		}
	}
}

func TestPanic(t *testing.T) {
	b := newBackend()
	b.panics = true
	r := start(t, server.Options{Backend: b})
	p := r.problem(t, http.StatusInternalServerError, "GET", api+"/clusters", "")
	if strings.Contains(p.Detail, "defect") {
		t.Errorf("the caller learns internals: %q", p.Detail)
	}
	if log := r.log.String(); !strings.Contains(log, "panic in a request") || !strings.Contains(log, "a defect") ||
		!strings.Contains(log, "help_test.go") {
		t.Errorf("the log has no panic with its stack:\n%s", log)
	}
	if resp, _ := r.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
}

// Half an answer does not look whole.
func TestPanic_InTheMiddle(t *testing.T) {
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "backupd_up 1")
		panic("a defect")
	})
	r := start(t, server.Options{Metrics: metrics})
	resp, err := r.client.Get(r.url + "/metrics")
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("an answer that was cut off ends well: %q", body)
		}
	}
}

// raw sends bytes as they are and returns all that comes back.
func raw(t *testing.T, r *running, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn) // a reset is an end as well
	return string(answer)
}

func TestLimits(t *testing.T) {
	r := start(t, server.Options{})
	if got := raw(t, r, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x",
		40<<10)+"\r\n\r\n"); !strings.Contains(got, "431") {
		t.Errorf("a header of 40 KiB: %.100q", got)
	}
	for _, bad := range []string{"nonsense\r\n\r\n", "GET /healthz HTTP/1.1\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"} {
		if got := raw(t, r, bad); !strings.Contains(got, "400 Bad Request") {
			t.Errorf("%q: %.100q", bad, got)
		}
	}
	// Chunked bodies have no length to be refused by.
	body := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", 70<<10, strings.Repeat(" ", 70<<10))
	if got := raw(t, r, "POST "+prod+"/backups HTTP/1.1\r\nHost: localhost\r\nContent-Type: "+
		"application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+body); !strings.Contains(got, "413") {
		t.Errorf("a chunked body of 70 KiB: %.100q", got)
	}
	for _, m := range []string{"OPTIONS * HTTP/1.1", "CONNECT localhost:80 HTTP/1.1",
		"GET http://localhost/nothing HTTP/1.1"} {
		if got := raw(t, r, m+"\r\nHost: localhost\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "404 Not Found") {
			t.Errorf("%s: %.100q", m, got)
		}
	}
}

// What is being answered when the server stops is answered.
func TestRun_LetsRequestsFinish(t *testing.T) {
	b := newBackend()
	b.block, b.blocked = make(chan struct{}), make(chan struct{}, 1)
	r := start(t, server.Options{Backend: b})
	status := make(chan string, 1)
	go func() {
		resp, err := r.client.Get(r.url + prod + "/snapshots")
		if err != nil {
			status <- err.Error()
			return
		}
		resp.Body.Close()
		status <- resp.Status
	}()
	<-b.blocked
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	// The address is given back at once; the answer is still owed.
	for {
		conn, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	close(b.block)
	if got := <-status; got != "200 OK" {
		t.Errorf("the last request got %s", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRun_ListenerFails(t *testing.T) {
	s, err := server.New(server.Options{Listen: "127.0.0.1:0", Backend: newBackend(), Metrics: metrics()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "serve HTTP on 127.0.0.1:") {
		t.Errorf("Run on a closed listener: %v", err)
	}
}
