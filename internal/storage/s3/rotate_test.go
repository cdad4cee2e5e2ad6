package s3_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage/s3"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// logText is a log to read while it is written.
type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logText) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// TestTLS_Rotation: the service gets a certificate of another authority while
// one Store lives.
func TestTLS_Rotation(t *testing.T) {
	p := startProxy(t)
	issue := func(change ...func(*x509.Certificate)) (*tls.Certificate, []byte) {
		a := testserver.NewAuthority(t)
		pair, err := tls.LoadX509KeyPair(a.Issue(t, "service", change...))
		if err != nil {
			t.Fatal(err)
		}
		ca, err := os.ReadFile(a.File)
		if err != nil {
			t.Fatal(err)
		}
		return &pair, ca
	}
	first, firstCA := issue()
	second, secondCA := issue()
	foreign, foreignCA := issue(func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = nil,
			[]string{"other.example"}
	})
	var serving atomic.Pointer[tls.Certificate]
	serving.Store(first)
	front := httptest.NewUnstartedServer(p)
	front.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*serving.Load()}, NextProtos: []string{"http/1.1"}}, nil
	}}
	front.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail here on purpose
	front.StartTLS()
	defer front.Close()

	file, text := filepath.Join(t.TempDir(), "ca"), &logText{}
	trust := func(ca []byte) {
		t.Helper()
		if err := os.WriteFile(file, ca, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust(firstCA)
	s := p.open(t, func(o *s3.Options) {
		o.Endpoint, o.CAFile, o.Logger = front.URL, file, slog.New(slog.NewTextHandler(text, nil))
	})
	n := 0
	create := func() error {
		n++
		return s.Create(t.Context(), "key-"+strings.Repeat("x", n), stream(content(small)))
	}
	works := func(what string) {
		t.Helper()
		if err := create(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if err := create(); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: got error %v", what, err)
		}
	}
	serve := func(c *tls.Certificate) {
		serving.Store(c)
		front.CloseClientConnections()
	}
	works("the first authority")
	serve(second)
	refused("an authority that is not trusted")
	trust(append(firstCA, secondCA...))
	works("both authorities")
	trust(secondCA)
	works("the second authority alone")
	serve(first)
	refused("an authority that is not trusted any more")
	serve(second)
	trust(append(secondCA, firstCA[:len(firstCA)/2]...))
	works("a file half written")
	works("a file half written, once more")
	trust(nil)
	works("an empty file")
	if text.count("cut off") != 1 || text.count("no certificate in PEM") != 1 {
		t.Errorf("want one warning of each in the log:\n%s", text.buf.String())
	}
	serve(foreign)
	trust(foreignCA)
	refused("a certificate of another host")
}

// TestCredentials_Rotation: new keys in the file are used a minute later.
func TestCredentials_Rotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := func(id string) string { return "[default]\naws_access_key_id=" + id + "\naws_secret_access_key=s\n" }
		file := write(t, "creds", keys("first"))
		creds := s3.FileCredentials(file)
		want := func(id string) {
			t.Helper()
			got, err := creds.Retrieve(t.Context())
			if err != nil || got.AccessKeyID != id {
				t.Errorf("got key %q, error %v, want %q", got.AccessKeyID, err, id)
			}
		}
		want("first")
		if err := os.WriteFile(file, []byte(keys("second")), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		want("first")
		time.Sleep(2 * time.Second)
		want("second")
	})
}
