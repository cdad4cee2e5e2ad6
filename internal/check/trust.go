package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/config"
)

// verify checks the certificates that the member host showed, and reports whether
// they are good.
func verify(l *list, chain []*x509.Certificate, roots *x509.CertPool, host string, now time.Time) bool {
	leaf := chain[0]
	if level, text := validity(leaf, now); level == backup.LevelFailure {
		l.fail("renew the member's certificate; if it is good, set the clock of this host",
			"the member's certificate %s", text)
		return false
	} else if level == backup.LevelWarning {
		l.warn("renew the member's certificate", "the member's certificate %s", text)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		l.fail("name the member as its certificate does, or issue a certificate with this name or address",
			"the member's certificate is for %s, and not for %s", names(leaf), host)
		return false
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now})
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &unknown):
		l.fail("name the file with the CA of the members in tls.ca-file",
			"the member's certificate was issued by %q, and this host does not trust that authority", leaf.Issuer)
	case err != nil:
		l.fail("look at the certificate: openssl x509 -text -noout -in FILE",
			"the member's certificate is not accepted: %v", err)
	}
	return err == nil
}

// names spells the hosts that a certificate is for.
func names(cert *x509.Certificate) string {
	out := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		return "nobody (it has no subject alternative name)"
	}
	return strings.Join(out, ", ")
}

// whyRefused returns a hint on how to correct a client certificate.
func whyRefused(conf *config.TLS, now time.Time) string {
	if conf.CertFile == "" {
		return "name a client certificate in tls.cert-file and tls.key-file"
	}
	const ca = "it must be issued by the CA that the members have as --trusted-ca-file"
	chain, err := certs.Read(conf.CertFile)
	if err != nil {
		return ca
	}
	if level, text := validity(chain[0], now); level == backup.LevelFailure {
		return fmt.Sprintf("renew %s: it %s", conf.CertFile, text)
	}
	usages := chain[0].ExtKeyUsage
	forClients := func(u x509.ExtKeyUsage) bool { return u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny }
	if len(usages) > 0 && !slices.ContainsFunc(usages, forClients) {
		return fmt.Sprintf("issue %s again with the extended key usage clientAuth", conf.CertFile)
	}
	return ca
}
