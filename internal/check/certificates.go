package check

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/config"
)

// checkCertificates checks the certificate files of the configuration.
func checkCertificates(conf *config.Config, now time.Time) []backup.Finding {
	l := list{section: SectionConfiguration, subject: "certificates"}
	for _, path := range conf.CertificateFiles() {
		if bundle, err := certs.Read(path); err == nil { // else checkFiles reported it
			checkBundle(&l, path, bundle, now)
		}
	}
	return l.findings
}

// checkBundle checks one file. In a bundle an expired authority often stays
// beside its successor, so it is a failure only when no certificate is good.
func checkBundle(l *list, path string, bundle []*x509.Certificate, now time.Time) {
	const renew = "renew it; backupd reads the file again by itself"
	slices.SortStableFunc(bundle, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	var good []*x509.Certificate
	for _, cert := range bundle {
		if level, _ := certificate.Validity(cert, now); level != backup.LevelFailure {
			good = append(good, cert)
		}
	}
	if len(good) == 0 || len(bundle) == 1 {
		level, text := certificate.Validity(bundle[len(bundle)-1], now)
		hint := ""
		if level != backup.LevelOK {
			hint = renew
		}
		l.add(level, hint, "%s: the certificate %s", path, text)
		return
	}
	if len(good) < len(bundle) {
		_, text := certificate.Validity(bundle[0], now)
		l.warn("remove it if a newer one has taken its place, else renew it",
			"%s: one of %d certificates, of %s, %s", path, len(bundle), certificate.Subject(bundle[0]), text)
		return
	}
	level, text := certificate.Validity(good[0], now)
	hint := ""
	if level != backup.LevelOK {
		hint = renew
	}
	l.add(level, hint, "%s: the first of %d certificates to expire, of %s, %s",
		path, len(bundle), certificate.Subject(good[0]), text)
}
