package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Alone reports whether a chain is one certificate that another authority has issued. The
// other side trusts it only if it knows that very authority.
func Alone(chain []*x509.Certificate) bool {
	return len(chain) == 1 && !bytes.Equal(chain[0].RawIssuer, chain[0].RawSubject)
}

// WhyRefused returns what may be wrong with the client certificate in a file, if the other
// side refuses it.
func WhyRefused(file string, now time.Time) string {
	const ca = "it must be issued by the CA that the members have as --trusted-ca-file"
	chain, err := Read(file)
	if err != nil {
		return ca
	}
	leaf := chain[0]
	forClients := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny }
	switch day := "2006-01-02 15:04 UTC"; {
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("renew %s: it expired on %s", file, leaf.NotAfter.UTC().Format(day))
	case now.Before(leaf.NotBefore):
		return fmt.Sprintf("wait, or set the clocks: %s is not valid before %s", file, leaf.NotBefore.UTC().Format(day))
	case len(leaf.ExtKeyUsage) > 0 && !slices.ContainsFunc(leaf.ExtKeyUsage, forClients):
		return fmt.Sprintf("issue %s again with the extended key usage clientAuth", file)
	case Alone(chain):
		return fmt.Sprintf("%s; %s is issued by %q and holds no other certificate: if that is an intermediate authority, "+
			"append its certificate to the file", ca, file, leaf.Issuer)
	}
	return ca
}

// TokenExpiry returns when a JWT expires, or zero if it does not tell.
func TokenExpiry(token string) time.Time {
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if parts := strings.Split(token, "."); len(parts) == 3 {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1]) // what is no token has no claims
		_ = json.Unmarshal(raw, &claims)
	}
	if claims.Expires <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expires), 0).UTC()
}
