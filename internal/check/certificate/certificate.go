// Package certificate says in words for whom and for how long a certificate is good.
package certificate

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
)

// Validity reports for how long a certificate is still valid.
func Validity(cert *x509.Certificate, now time.Time) (backup.Level, string) {
	left := cert.NotAfter.Sub(now)
	switch {
	case now.Before(cert.NotBefore):
		return backup.LevelFailure, "is not valid before " + Stamp(cert.NotBefore)
	case left <= 0:
		return backup.LevelFailure, "expired on " + Stamp(cert.NotAfter)
	case now.After(certs.RenewBy(cert)):
		return backup.LevelWarning, fmt.Sprintf("expires in %s, on %s", Span(left), Stamp(cert.NotAfter))
	}
	return backup.LevelOK, "is valid until " + Stamp(cert.NotAfter)
}

// Stamp spells a moment.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Span spells a distance in its largest unit or two.
func Span(d time.Duration) string {
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

// Subject names a certificate by its subject.
func Subject(cert *x509.Certificate) string {
	if name := cert.Subject.String(); name != "" {
		return name
	}
	return "serial number " + cert.SerialNumber.Text(16)
}

// Hosts spells the hosts that a certificate is for.
func Hosts(cert *x509.Certificate) string {
	out := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		out = append(out, ip.String())
	}
	if len(out) == 0 {
		return "nobody (it has no subject alternative name)"
	}
	return strings.Join(out, ", ")
}
