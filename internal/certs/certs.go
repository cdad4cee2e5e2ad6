// Package certs reads certificates and other secrets from files. It reads them
// once, or again while a daemon runs, because such files are renewed in place.
package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// errNone is returned for files without a certificate.
var errNone = errors.New("it holds no certificate in PEM")

// ParsePool returns the authorities in a bundle. A bundle whose last certificate
// is cut off is an error: somebody is just writing it.
func ParsePool(bundle []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(bundle) {
		return nil, errNone
	}
	for block, rest := pem.Decode(bundle); ; block, rest = pem.Decode(rest) {
		if block == nil && bytes.Contains(rest, []byte("-----BEGIN")) {
			return nil, errors.New("its last certificate is cut off")
		}
		if block == nil {
			return pool, nil
		}
	}
}

// Parse returns all certificates in a bundle, in its order.
func Parse(bundle []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d: %w", len(out)+1, err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, errNone
	}
	return out, nil
}

// ReadPool returns the authorities in a file, as [ParsePool] does.
func ReadPool(file string) (*x509.CertPool, error) { return read(parsePool, file) }

// ReadPair returns the certificate in one file with its key in another.
func ReadPair(certFile, keyFile string) (*tls.Certificate, error) {
	return read(parsePair, certFile, keyFile)
}

// Read returns all certificates in a file, in its order.
func Read(file string) ([]*x509.Certificate, error) {
	return read(func(contents [][]byte) ([]*x509.Certificate, error) { return Parse(contents[0]) }, file)
}

func parsePool(contents [][]byte) (*x509.CertPool, error) { return ParsePool(contents[0]) }

func parsePair(contents [][]byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	return &pair, nil
}

func read[T any](parse func([][]byte) (T, error), files ...string) (T, error) {
	contents, err := readAll(files)
	if err != nil {
		var none T
		return none, err
	}
	value, err := parse(contents)
	if err != nil {
		return value, fmt.Errorf("%s: %w", names(files), err)
	}
	return value, nil
}

func readAll(files []string) ([][]byte, error) {
	contents := make([][]byte, len(files))
	for i, name := range files {
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		contents[i] = raw
	}
	return contents, nil
}

func names(files []string) string { return strings.Join(files, ", ") }

// FirstExpiry returns when the first of some certificates expires. There must be
// one at least.
func FirstExpiry(all []*x509.Certificate) time.Time {
	first := all[0].NotAfter
	for _, cert := range all[1:] {
		if cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	return first
}

// Due returns the certificate of a bundle that must be renewed now, or nil. An expired
// authority often stays in a bundle beside its successor: it counts only if no other
// one is valid.
func Due(bundle []*x509.Certificate, now time.Time) *x509.Certificate {
	var first, last *x509.Certificate // to expire, of the valid ones; of all
	for _, cert := range bundle {
		if last == nil || cert.NotAfter.After(last.NotAfter) {
			last = cert
		}
		if cert.NotAfter.After(now) && (first == nil || cert.NotAfter.Before(first.NotAfter)) {
			first = cert
		}
	}
	switch {
	case first == nil:
		return last
	case now.After(RenewBy(first)):
		return first
	}
	return nil
}

// warnBefore is how long before its end people should hear of a certificate.
const warnBefore = 30 * 24 * time.Hour

// RenewBy returns the time from which people should hear that a certificate is not
// renewed yet: 30 days before it expires. A certificate that lives for days is
// renewed by a program in about the last third of its life. For such a certificate
// it is the beginning of the last quarter.
func RenewBy(cert *x509.Certificate) time.Time {
	return cert.NotAfter.Add(-min(warnBefore, cert.NotAfter.Sub(cert.NotBefore)/4))
}
