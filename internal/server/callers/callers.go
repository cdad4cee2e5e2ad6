// Package callers tells who calls the HTTP server, and what the caller may do.
package callers

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
)

const minTokenLength = 16

// The form of a bearer token (RFC 6750).
var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// Caller is somebody who may call the API, known by a certificate or by a token. Exactly
// one of Certificate and TokensFile is set.
type Caller struct {
	// Certificate is a name in the client certificate: its common name, or a DNS name, a
	// mail address or a URI among its alternative names.
	Certificate string
	// TokensFile holds bearer tokens, one a line, at most two.
	TokensFile string
	// Operate allows to start jobs and to pin, besides reading.
	Operate bool
	// Clusters are the names of the clusters that the caller may know of; empty: all.
	Clusters []string
}

func (c *Caller) grant() grant {
	g := grant{scope: Read, clusters: c.Clusters}
	if c.Operate {
		g.scope = Operate
	}
	return g
}

// Guard checks the credentials of callers.
type Guard struct {
	tokens   []tokens
	names    map[string]Rights // by a name in client certificates
	failures *failures
	log      *slog.Logger
}

type tokens struct {
	grant
	digests *certs.Reloaded[[]digest]
}

// digest is the SHA-256 of a token: it has the same length for all tokens, and is
// useless to a reader of a core dump.
type digest [sha256.Size]byte

// New reads the files of tokens, which are read again when they change. certificates says
// whether client certificates are verified at all.
func New(callers []Caller, certificates bool, log *slog.Logger) (*Guard, error) {
	g := &Guard{names: map[string]Rights{}, failures: &failures{}, log: log}
	for _, c := range callers {
		switch {
		case c.Certificate != "" && c.TokensFile != "", c.Certificate == "" && c.TokensFile == "":
			return nil, errors.New("a caller is known by a certificate or by a file of tokens: give one of them")
		case c.Certificate != "" && !certificates:
			return nil, fmt.Errorf("caller %q: a client certificate needs client-ca-file", c.Certificate)
		case c.Certificate != "":
			g.names[c.Certificate] = append(g.names[c.Certificate], c.grant())
			continue
		}
		digests, err := certs.Load(log, parseTokens, c.TokensFile)
		if err != nil {
			return nil, backup.WithHint(fmt.Errorf("read %s tokens: %w", c.grant().scope, err),
				"the file holds one or two tokens, one a line; 'openssl rand -hex 32' makes a good one")
		}
		g.tokens = append(g.tokens, tokens{c.grant(), digests})
	}
	if certificates && len(g.names) == 0 {
		return nil, errors.New("client-ca-file is given, but no caller with a certificate: name those who may call")
	}
	return g, nil
}

// Demands reports whether callers need credentials.
func (g *Guard) Demands() bool { return len(g.names) > 0 || len(g.tokens) > 0 }

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

// ByCertificate reports whether some caller is known by a certificate.
func (g *Guard) ByCertificate() bool { return len(g.names) > 0 }

// Errors of [Guard.Rights].
var (
	ErrWrong   = errors.New("the bearer token is not valid")
	ErrTooMany = errors.New("too many wrong tokens from this address")
)

// Rights returns what the caller of a request may do. A wrong token is [ErrWrong] or
// [ErrTooMany].
func (g *Guard) Rights(r *http.Request) (Rights, error) {
	if !g.Demands() {
		return everything, nil
	}
	has := g.ofCertificate(r)
	token, given := bearer(r)
	if !given {
		return has, nil
	}
	if by := g.ofToken(token); len(by) > 0 {
		return append(has, by...), nil
	}
	if len(has) > 0 {
		return has, nil
	}
	// The right token is never held up: whoever shares an address with a guesser, behind a
	// proxy or a gateway, must not be locked out.
	addr := Address(r)
	if g.failures.count(addr) {
		return nil, ErrTooMany
	}
	g.log.Warn("wrong bearer token", "remote", addr)
	return nil, ErrWrong
}

// ofToken returns the rights of a token. It always compares with every token.
func (g *Guard) ofToken(token string) Rights {
	sum := sha256.Sum256([]byte(token))
	var has Rights
	for _, t := range g.tokens {
		for _, d := range t.digests.Get() {
			if subtle.ConstantTimeCompare(sum[:], d[:]) == 1 {
				has = append(has, t.grant)
			}
		}
	}
	return has
}

// ofCertificate returns the rights of the names in the client certificate.
func (g *Guard) ofCertificate(r *http.Request) Rights {
	var has Rights
	for _, name := range Names(r) {
		has = append(has, g.names[name]...)
	}
	return has
}

// Verified reports whether the caller has shown a genuine client certificate.
func Verified(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }

// Names returns the names in a client certificate that was verified.
func Names(r *http.Request) []string {
	if !Verified(r) {
		return nil
	}
	leaf := r.TLS.VerifiedChains[0][0]
	out := slices.Concat(leaf.DNSNames, leaf.EmailAddresses)
	for _, u := range leaf.URIs {
		out = append(out, u.String())
	}
	if name := leaf.Subject.CommonName; name != "" && !slices.Contains(out, name) {
		out = append(out, name)
	}
	return out
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

// Address returns the address of a caller, without the port.
func Address(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		return host
	}
	return r.RemoteAddr
}

// Limits of one second: wrong tokens of one address that are looked at and logged, and
// addresses that are counted. Further addresses are not counted.
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

// count counts a wrong token, and reports whether its address has sent too many of them.
func (f *failures) count(addr string) (tooMany bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now().Unix(); now != f.second || f.counts == nil {
		f.second, f.counts = now, map[string]int{}
	}
	if _, known := f.counts[addr]; !known && len(f.counts) >= maxAddresses {
		return true // each address more would be a line more in the log
	}
	f.counts[addr]++
	return f.counts[addr] > maxFailures
}
