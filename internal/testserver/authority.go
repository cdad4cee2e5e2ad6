package testserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority whose files lie in one folder.
type Authority struct {
	File string            // its own certificate, PEM
	Cert *x509.Certificate // the same, parsed

	dir string
	key *ecdsa.PrivateKey
}

// NewAuthority makes an authority that nobody trusts yet.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	return newAuthority(t, t.TempDir())
}

func newAuthority(t testing.TB, dir string) *Authority {
	t.Helper()
	template := certTemplate(t, "backupd test CA")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	a := &Authority{dir: dir, File: filepath.Join(dir, "ca.pem")}
	a.Cert, a.key = certify(t, a.File, template, nil)
	return a
}

// Issue writes a certificate for cn and its key, good for a server on loopback
// and for a client, and returns the two paths. change may make it another
// certificate: expired, for another host, for servers only. Files of the same
// name are replaced, each as a whole, as in a rotation.
func (a *Authority) Issue(t testing.TB, cn string, change ...func(*x509.Certificate)) (certFile, keyFile string) {
	t.Helper()
	template := certTemplate(t, cn)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	// etcd's peers are servers and clients to each other with one certificate.
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, f := range change {
		f(template)
	}
	certFile = filepath.Join(a.dir, cn+".pem")
	keyFile = filepath.Join(a.dir, cn+"-key.pem")
	_, key := certify(t, certFile, template, a)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, "encode a key", err)
	writePEM(t, keyFile, "PRIVATE KEY", pkcs8)
	return certFile, keyFile
}

// Between makes an authority whose certificate a has issued. Its files hold single
// certificates, as those of an administrator who has forgotten the intermediate one.
func (a *Authority) Between(t testing.TB) *Authority {
	t.Helper()
	template := certTemplate(t, "backupd test intermediate CA")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign
	dir := t.TempDir()
	b := &Authority{dir: dir, File: filepath.Join(dir, "ca.pem")}
	b.Cert, b.key = certify(t, b.File, template, a)
	return b
}

// Pool trusts the authority and nobody else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// certify writes a certificate to a file. It is signed by an authority, or by
// itself if by is nil.
func certify(
	t testing.TB, file string, template *x509.Certificate, by *Authority,
) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "generate a key", err)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, "make a certificate", err)
	cert, err := x509.ParseCertificate(der)
	must(t, "make a certificate", err)
	writePEM(t, file, "CERTIFICATE", der)
	return cert, key
}

func certTemplate(t testing.TB, cn string) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	must(t, "draw a serial number", err)
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cn},
		// Machines of a test lab disagree about the time by a little.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(24 * time.Hour),
	}
}

// writePEM replaces a file as a whole.
func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	must(t, "write "+path, os.WriteFile(path+".new", data, 0o600))
	must(t, "write "+path, os.Rename(path+".new", path))
}
