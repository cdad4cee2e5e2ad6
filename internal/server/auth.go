package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
)

// scope is the right that a caller has or a route needs.
type scope int

const (
	scopeNone    scope = iota // health
	scopeRead                 // read
	scopeOperate              // start jobs and pin; includes scopeRead
)

func (s scope) String() string { return [...]string{"none", "read", "operate"}[s] }

const minTokenLength = 16

// The form of a bearer token (RFC 6750).
var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// guard checks the credentials of callers.
type guard struct {
	tokens   map[scope]*certs.Reloaded[[]digest]
	certs    bool // client certificates are accepted
	failures failures
	log      *slog.Logger
}

// digest is the SHA-256 of a token: it has the same length for all tokens, and is
// useless to a reader of a core dump.
type digest [sha256.Size]byte

func newGuard(o Options, log *slog.Logger) (*guard, error) {
	g := &guard{tokens: map[scope]*certs.Reloaded[[]digest]{}, certs: o.ClientCAFile != "", log: log}
	for s, file := range map[scope]string{scopeRead: o.ReadTokensFile, scopeOperate: o.OperateTokensFile} {
		if file == "" {
			continue
		}
		var err error
		if g.tokens[s], err = certs.Load(log, parseTokens, file); err != nil {
			return nil, backup.WithHint(fmt.Errorf("read %s tokens: %w", s, err),
				"the file holds one or two tokens, one a line; 'openssl rand -hex 32' makes a good one")
		}
	}
	return g, nil
}

// demands reports whether callers need credentials.
func (g *guard) demands() bool { return g.certs || len(g.tokens) > 0 }

// parseTokens reads one token a line, at most two: the old and the new one during
// a change. Its errors never hold a token.
func parseTokens(contents [][]byte) ([]digest, error) {
	var out []digest
	n := 0
	for line := range strings.Lines(string(contents[0])) {
		n++
		token := strings.TrimSpace(line)
		switch {
		case token == "":
			continue
		case len(token) < minTokenLength:
			return nil, fmt.Errorf("line %d: a token of %d characters: want at least %d", n, len(token), minTokenLength)
		case !tokenPattern.MatchString(token):
			return nil, fmt.Errorf("line %d: a token is made of letters, digits and -._~+/, with = at its end only", n)
		}
		out = append(out, sha256.Sum256([]byte(token)))
	}
	if len(out) == 0 {
		return nil, errors.New("holds no token")
	}
	if len(out) > 2 {
		return nil, fmt.Errorf("holds %d tokens: want at most two", len(out))
	}
	return out, nil
}

// check returns nil if the caller has the scope need, or the problem if not.
func (g *guard) check(r *http.Request, need scope) *Problem {
	if need == scopeNone || !g.demands() {
		return nil
	}
	addr := remoteHost(r)
	if g.failures.exceeded(addr) {
		return newProblem(http.StatusTooManyRequests, "too many wrong tokens from %s", addr).
			withHint("wait a second").withHeader("Retry-After", "1")
	}
	has := scopeNone
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		has = scopeOperate
	}
	token, given := bearer(r)
	if has == scopeNone && given {
		if has = g.scopeOf(token); has == scopeNone {
			if g.failures.count(addr) {
				g.log.Warn("wrong bearer token", "remote", addr)
			}
			return newProblem(http.StatusUnauthorized, "the bearer token is not valid").
				withHint("compare it with the daemon's token files").
				withHeader("WWW-Authenticate", `Bearer realm="backupd", error="invalid_token"`)
		}
	}
	switch {
	case has == scopeNone:
		certificate := map[bool]string{true: " or a client certificate"}[g.certs]
		return newProblem(http.StatusUnauthorized, "this needs a bearer token%s", certificate).
			withHint("send 'Authorization: Bearer TOKEN'; 'backupd status' takes --token-file").
			withHeader("WWW-Authenticate", `Bearer realm="backupd"`)
	case has < need:
		return newProblem(http.StatusForbidden, "this needs the scope %s; the token has %s", need, has).
			withHint("use a token of operate-tokens-file").
			withHeader("WWW-Authenticate",
				fmt.Sprintf(`Bearer realm="backupd", error="insufficient_scope", scope="%s"`, need))
	}
	return nil
}

// scopeOf returns the largest scope of token. It always compares with every token.
func (g *guard) scopeOf(token string) scope {
	sum, has := sha256.Sum256([]byte(token)), scopeNone
	for s, tokens := range g.tokens {
		for _, d := range tokens.Get() {
			if subtle.ConstantTimeCompare(sum[:], d[:]) == 1 {
				has = max(has, s)
			}
		}
	}
	return has
}

// bearer returns the request's token, and whether it shows any credentials.
func bearer(r *http.Request) (token string, given bool) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return "", false
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", true
	}
	return strings.TrimSpace(token), true
}

func remoteHost(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// Limits of one second: wrong tokens of one address, and addresses that are
// counted. Further addresses are not counted, because a caller with a thousand
// addresses must not be able to lock others out.
const (
	maxFailures  = 10
	maxAddresses = 1000
)

// failures counts wrong tokens by address in the current second.
type failures struct {
	mu     sync.Mutex // guards what follows
	second int64
	counts map[string]int
}

func (f *failures) exceeded(addr string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	return f.counts[addr] >= maxFailures
}

// count counts a wrong token. It returns false if there was no room for addr.
func (f *failures) count(addr string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	if _, known := f.counts[addr]; !known && len(f.counts) >= maxAddresses {
		return false
	}
	f.counts[addr]++
	return true
}

func (f *failures) turn() {
	if now := time.Now().Unix(); now != f.second || f.counts == nil {
		f.second, f.counts = now, map[string]int{}
	}
}
