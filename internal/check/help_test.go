package check_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

func TestMain(m *testing.M) {
	if code, ok := etcddb.ChildMain(); ok {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// load parses a configuration. A % in it stands for a fresh folder.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	text = strings.ReplaceAll(text, "%", t.TempDir())
	conf, err := config.Parse("backupd.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// forCluster is a configuration of one cluster of real or fake members.
func forCluster(t *testing.T, endpoints []string, more string) *config.Config {
	t.Helper()
	return load(t, fmt.Sprintf(`
repositories: {main: {url: 'file://%%/repo'}}
clusters:
- name: prod
  endpoints: [%s]
  snapshot: {schedule: '@hourly', request-timeout: 20s}
  retention: {keep-hourly: 24}
%s
daemon:
  server: {listen: 127.0.0.1:0}
  spool: {folder: %%}
`, strings.Join(endpoints, ", "), indent(more)))
}

func indent(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString("  " + line)
	}
	return out.String()
}

// tlsOf is the part of a configuration that meets a cluster with TLS.
func tlsOf(ca, cert, key string) string {
	var parts []string
	for _, p := range [][2]string{{"ca-file", ca}, {"cert-file", cert}, {"key-file", key}} {
		if p[1] != "" {
			parts = append(parts, p[0]+": "+p[1])
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "tls: {" + strings.Join(parts, ", ") + "}\n"
}

func run(t *testing.T, conf *config.Config) []check.Finding {
	t.Helper()
	return check.Run(t.Context(), conf, check.Options{})
}

// spell writes findings as a person would read them.
func spell(findings []check.Finding) string {
	var out strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&out, "%s: %s: %s: %s -> %s\n", f.Section, f.Subject, f.Level, f.Text, f.Hint)
	}
	return out.String()
}

// want requires a finding of that section and level whose text or hint has part.
func want(t *testing.T, findings []check.Finding, section string, level check.Level, part string) {
	t.Helper()
	for _, f := range findings {
		if f.Section == section && f.Level == level && strings.Contains(f.Text+" -> "+f.Hint, part) {
			return
		}
	}
	t.Errorf("no %s of %s that says %q in:\n%s", level, section, part, spell(findings))
}

// wantNone requires that nothing in a section is worse than ok, or than what is
// allowed.
func wantNone(t *testing.T, findings []check.Finding, section string, worst check.Level) {
	t.Helper()
	for _, f := range findings {
		if f.Section == section && (f.Level == check.Failure || f.Level == check.Warning && worst == check.OK) {
			t.Errorf("unexpected: %s", spell([]check.Finding{f}))
		}
	}
}

// authority signs certificates that no real one would.
type authority struct {
	dir  string
	file string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "check test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{dir: t.TempDir(), cert: cert, key: key}
	a.file = a.write(t, "ca.pem", "CERTIFICATE", der)
	return a
}

// issue writes a certificate for 127.0.0.1, changed as the caller likes.
func (a *authority) issue(t *testing.T, name string, change func(*x509.Certificate)) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return a.write(t, name+".pem", "CERTIFICATE", der), a.write(t, name+"-key.pem", "PRIVATE KEY", raw)
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeFile makes a file with a secret in it.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
