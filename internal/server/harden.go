package server

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/server/callers"
)

// harden wraps the handler of all requests: it sets headers, checks every request
// and handles panics.
func (s *Server) harden(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		defer s.finish(rec, r, time.Now())
		h := rec.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy",
			"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if p := s.front.Load().hosts.check(r); p != nil {
			p.write(rec)
			return
		}
		if p := checkOrigin(cross, r); p != nil {
			p.write(rec)
			return
		}
		next.ServeHTTP(rec, r)
	})
}

// checkOrigin refuses requests that a page of another site makes a browser send.
// That includes reads: the browser hides their answers from that page, but a prune
// plan costs work and a stream occupies a place. To follow a link is no attack.
func checkOrigin(cross *http.CrossOriginProtection, r *http.Request) *Problem {
	safe := r.Method == http.MethodGet || r.Method == http.MethodHead
	if safe && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return nil
	}
	unsafe := *r
	unsafe.Method = http.MethodPost // Check does not look at reads
	if err := cross.Check(&unsafe); err != nil {
		return newProblem(http.StatusForbidden, "%s", err).
			withHint("call the API from a program, or from a page of the same origin")
	}
	return nil
}

// finish is deferred around each request: it turns a panic into an answer and
// writes the access log.
func (s *Server) finish(rec *recorder, r *http.Request, began time.Time) {
	v := recover()
	if v != nil && v != http.ErrAbortHandler {
		s.log.Error("panic in a request", "method", r.Method, "route", r.Pattern,
			"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		if rec.status == 0 {
			newProblem(http.StatusInternalServerError, "internal error").
				withHint("the daemon's log has details; please report it").write(rec)
			v = nil
		} else {
			v = http.ErrAbortHandler // half an answer must not look whole
		}
	}
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "request",
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes), slog.String("remote", callers.Address(r)), slog.Duration("took", time.Since(began)))
	if v != nil {
		panic(v)
	}
}

// recorder remembers the status and the length of an answer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets [http.ResponseController] find the writer.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// hosts are the names that a request may use for the server. If another site's
// name is made to resolve to this address (DNS rebinding), its pages are of the
// same origin to a browser, and only the name reveals them.
type hosts map[string]bool

func newHosts(listen, allowed []string) (hosts, error) {
	h := hosts{"localhost": true}
	for _, address := range listen {
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" {
			h[canonical(host)] = true
		}
	}
	for _, name := range allowed {
		_, err := netip.ParseAddr(name)
		if name == "" || err != nil && strings.ContainsAny(name, ":/*@[] ") {
			return nil, fmt.Errorf("allowed host %q: want a host name or an address, without scheme and port", name)
		}
		h[canonical(name)] = true
	}
	return h, nil
}

// canonical returns the one spelling of a host that is compared.
func canonical(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func (h hosts) check(r *http.Request) *Problem {
	name, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(r.Host, "["), "]")
	}
	name = canonical(name)
	addr, err := netip.ParseAddr(name)
	if h[name] || err == nil && (addr.IsLoopback() || name == localHost(r)) {
		return nil
	}
	return newProblem(http.StatusMisdirectedRequest, "%q is not a name of this server", name).
		withHint("if the name is right, add it to allowed-hosts")
}

// localHost returns the local address of the request's connection.
func localHost(r *http.Request) string {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return ""
	}
	return canonical(host)
}
