package check

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/config"
)

// validity reports for how long a certificate is still valid.
func validity(cert *x509.Certificate, now time.Time) (backup.Level, string) {
	left := cert.NotAfter.Sub(now)
	switch {
	case now.Before(cert.NotBefore):
		return backup.LevelFailure, "is not valid before " + stamp(cert.NotBefore)
	case left <= 0:
		return backup.LevelFailure, "expired on " + stamp(cert.NotAfter)
	case now.After(certs.RenewBy(cert)):
		return backup.LevelWarning, fmt.Sprintf("expires in %s, on %s", span(left), stamp(cert.NotAfter))
	}
	return backup.LevelOK, "is valid until " + stamp(cert.NotAfter)
}

// stamp spells a moment.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// span spells a distance in its largest unit or two.
func span(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	}
	return d.Round(time.Second).String()
}

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
		if level, _ := validity(cert, now); level != backup.LevelFailure {
			good = append(good, cert)
		}
	}
	if len(good) == 0 || len(bundle) == 1 {
		level, text := validity(bundle[len(bundle)-1], now)
		hint := ""
		if level != backup.LevelOK {
			hint = renew
		}
		l.add(level, hint, "%s: the certificate %s", path, text)
		return
	}
	if len(good) < len(bundle) {
		_, text := validity(bundle[0], now)
		l.warn("remove it if a newer one has taken its place, else renew it",
			"%s: one of %d certificates, of %s, %s", path, len(bundle), nameOf(bundle[0]), text)
		return
	}
	level, text := validity(good[0], now)
	hint := ""
	if level != backup.LevelOK {
		hint = renew
	}
	l.add(level, hint, "%s: the first of %d certificates to expire, of %s, %s",
		path, len(bundle), nameOf(good[0]), text)
}

func nameOf(cert *x509.Certificate) string {
	if name := cert.Subject.String(); name != "" {
		return name
	}
	return "serial number " + cert.SerialNumber.Text(16)
}
