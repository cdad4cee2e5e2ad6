package check

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"time"
)

// warnBefore is how long before its end a certificate is warned about. One that
// lives for days is renewed by a program, which begins in the last third or so of
// its life: for those it is the last quarter.
const warnBefore = 30 * 24 * time.Hour

// validity tells how long a certificate is still good.
func validity(cert *x509.Certificate, now time.Time) (Level, string) {
	left := cert.NotAfter.Sub(now)
	soon := min(warnBefore, cert.NotAfter.Sub(cert.NotBefore)/4)
	switch {
	case now.Before(cert.NotBefore):
		return Failure, "is not valid before " + stamp(cert.NotBefore)
	case left <= 0:
		return Failure, "expired on " + stamp(cert.NotAfter)
	case left < soon:
		return Warning, fmt.Sprintf("expires in %s, on %s", span(left), stamp(cert.NotAfter))
	}
	return OK, "is valid until " + stamp(cert.NotAfter)
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

// readCertificates returns all certificates of a PEM file.
func readCertificates(path string) ([]*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	return out, nil
}

// checkCertificates looks at the certificate files of the configuration.
func (c *checker) checkCertificates(context.Context) []Finding {
	l := list{section: SectionConfiguration, subject: "certificates"}
	for _, path := range c.conf.CertificateFiles() {
		if certs, err := readCertificates(path); err == nil { // else checkFiles has told
			checkBundle(&l, path, certs, c.now)
		}
	}
	return l.findings
}

// checkBundle looks at one file. In a bundle of authorities an expired one is
// often left behind beside its successor, which is why it is a failure only
// when nothing good is left.
func checkBundle(l *list, path string, certs []*x509.Certificate, now time.Time) {
	const renew = "renew it; backupd reads the file again by itself"
	slices.SortStableFunc(certs, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	var good []*x509.Certificate
	for _, cert := range certs {
		if level, _ := validity(cert, now); level != Failure {
			good = append(good, cert)
		}
	}
	if len(good) == 0 || len(certs) == 1 {
		level, text := validity(certs[len(certs)-1], now)
		hint := ""
		if level != OK {
			hint = renew
		}
		l.add(level, hint, "%s: the certificate %s", path, text)
		return
	}
	if len(good) < len(certs) {
		_, text := validity(certs[0], now)
		l.warn("remove it if a newer one has taken its place, else renew it", "%s: one of %d certificates, of %s, %s", path, len(certs), nameOf(certs[0]), text)
		return
	}
	level, text := validity(good[0], now)
	hint := ""
	if level != OK {
		hint = renew
	}
	l.add(level, hint, "%s: the first of %d certificates to expire, of %s, %s", path, len(certs), nameOf(good[0]), text)
}

func nameOf(cert *x509.Certificate) string {
	if name := cert.Subject.String(); name != "" {
		return name
	}
	return "serial number " + cert.SerialNumber.Text(16)
}
