package check

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
)

// verify checks the certificates that the member host showed, and reports whether
// they are good.
func verify(l *list, chain []*x509.Certificate, roots *x509.CertPool, host string, now time.Time) bool {
	leaf := chain[0]
	if level, text := certificate.Validity(leaf, now); level == backup.LevelFailure {
		l.fail("renew the member's certificate; if it is good, set the clock of this host",
			"the member's certificate %s", text)
		return false
	} else if level == backup.LevelWarning {
		l.warn("renew the member's certificate", "the member's certificate %s", text)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		l.fail("name the member as its certificate does, or issue a certificate with this name or address",
			"the member's certificate is for %s, and not for %s", certificate.Hosts(leaf), host)
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
		hint := "name the file with the CA of the members in tls.ca-file"
		if certs.Alone(chain) {
			hint += "; if that authority is an intermediate one, the member must show its certificate too: " +
				"append it to the member's --cert-file"
		}
		l.fail(hint, "the member's certificate was issued by %q, and this host does not trust that authority", leaf.Issuer)
	case err != nil:
		l.fail("look at the certificate: openssl x509 -text -noout -in FILE",
			"the member's certificate is not accepted: %v", err)
	}
	return err == nil
}
