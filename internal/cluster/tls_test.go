package cluster_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
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

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func writeFile(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	writeFile(t, to, readFile(t, from))
}

// TestProbe_Advertised: what a member advertises is asked only as securely as the endpoints.
func TestProbe_Advertised(t *testing.T) {
	const named = "https://127.0.0.1:1"
	for name, c := range map[string]struct {
		conf cluster.Config
		url  string
		ok   bool
	}{
		"Plain":      {cluster.Config{Endpoints: []string{named}}, "http://127.0.0.1:2", false},
		"Socket":     {cluster.Config{Endpoints: []string{named}}, "unix:///none", false},
		"TLS":        {cluster.Config{Endpoints: []string{named}}, "https://127.0.0.1:2", true},
		"NamedPlain": {cluster.Config{Endpoints: []string{named, "http://127.0.0.1:2"}}, "http://127.0.0.1:2", true},
		"NoTLS":      {cluster.Config{Endpoints: []string{"http://127.0.0.1:1"}}, "http://127.0.0.1:2", true},
		"Mixed":      {cluster.Config{Endpoints: []string{"http://127.0.0.1:1", named}}, "http://127.0.0.1:2", false},
		"Unverified": {cluster.Config{Endpoints: []string{named}, InsecureSkipVerify: true}, "https://127.0.0.1:2", true},
		"UnverifiedToken": {cluster.Config{Endpoints: []string{named}, InsecureSkipVerify: true, Token: "x"},
			"https://127.0.0.1:2", false},
		"UnverifiedLogin": {cluster.Config{Endpoints: []string{named}, InsecureSkipVerify: true, Username: "u",
			Password: "p"}, "https://127.0.0.1:2", false},
	} {
		c.conf.RequestTimeout = 50 * time.Millisecond
		_, _, err := testserver.Connect(t, c.conf).Probe(t.Context(), c.url) // nobody is there
		if refused := errors.As(err, new(*cluster.InsecureError)); refused == c.ok || err == nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestTLS_Rotation: a cluster gets certificates of another authority, first its
// server's and then its clients', while one Cluster lives.
func TestTLS_Rotation(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{TLS: true})
	other := testserver.StartCluster(t, testserver.Options{TLS: true})
	member, dir := real.Members[0], t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	copyFile(t, real.CAFile, ca)
	copyFile(t, real.CertFile, cert)
	copyFile(t, real.KeyFile, key)
	log := &logText{}
	c := testserver.Connect(t, cluster.Config{
		Endpoints: real.Endpoints(), CAFile: ca, CertFile: cert, KeyFile: key,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	// All connections end by it; which files the server reads again does
	// not matter then.
	restart := func() {
		member.Kill()
		member.Restart(t)
	}
	fails := func(want string) {
		t.Helper()
		testserver.Eventually(t, want, func() bool {
			_, err := c.Survey(t.Context())
			return err != nil && strings.Contains(err.Error(), want)
		})
	}
	works := func(what string) {
		t.Helper()
		testserver.Eventually(t, what, func() bool {
			_, err := c.Survey(t.Context())
			return err == nil
		})
		readAll(t, c, member.ClientURL)
	}
	works("with the first certificates")

	for _, name := range []string{"test-server.pem", "test-server-key.pem"} {
		copyFile(t, filepath.Join(filepath.Dir(other.CAFile), name), filepath.Join(filepath.Dir(real.CAFile), name))
	}
	restart()
	fails("unknown authority")
	newCA := readFile(t, other.CAFile)
	writeFile(t, ca, newCA)
	works("with the server's new CA")

	copyFile(t, other.CAFile, real.CAFile) // by which the server knows its clients
	restart()
	fails("unknown certificate authority")
	copyFile(t, other.CertFile, cert) // the key is still the old one's
	fails("unknown certificate authority")
	if log.count("private key does not match") == 0 || log.count("level=WARN") == 0 {
		t.Errorf("no warning of a certificate without its key in the log:\n%s", log.buf.String())
	}
	copyFile(t, other.KeyFile, key)
	works("with the new client certificate")

	writeFile(t, ca, append(newCA, newCA[:len(newCA)/2]...))
	writeFile(t, key, nil)
	restart()
	works("with files half written")
	if log.count("is cut off") != 1 {
		t.Errorf("want one warning of the CA file in the log:\n%s", log.buf.String())
	}
}

// TestPasswordFile: the password changes while one Cluster lives, and each of
// its methods is the first to notice.
func TestPasswordFile(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Args: []string{"--bcrypt-cost=4"}})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 10})
	password := "first"
	real.EnableAuth(t, password)
	url, file := real.Members[0].ClientURL, filepath.Join(t.TempDir(), "password")
	writeFile(t, file, []byte(password+"\n"))
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, Username: "root", PasswordFile: file})
	change := func(to string) {
		t.Helper()
		if _, err := real.ClientAs(t, "root", password).UserChangePassword(t.Context(), "root", to); err != nil {
			t.Fatal(err)
		}
		password = to
	}
	survey(t, c)
	for name, use := range map[string]func(){
		"Survey": func() { survey(t, c) },
		"Stream": func() { readAll(t, c, url) },
		"HashKV": func() {
			if _, err := c.HashKV(t.Context(), memberAt(t, c, url), backup.Revision(filled.Revision)); err != nil {
				t.Error(err)
			}
		},
	} {
		change("changed for " + name)
		if _, err := c.Survey(t.Context()); !errors.Is(err, cluster.ErrPermission) {
			t.Errorf("%s: with the old password: got %v", name, err)
		}
		writeFile(t, file, []byte(password))
		use()
		writeFile(t, file, []byte("once more "+name+"\r\n"))
		use() // the login of before is still good
		change("once more " + name)
		use()
	}
	// A file that is being written: the last password is still right.
	writeFile(t, file, nil)
	real.Members[0].Kill()
	real.Members[0].Restart(t)
	testserver.Eventually(t, "a login while the file is empty", func() bool {
		_, err := c.Survey(t.Context())
		return err == nil
	})
}

func TestNew_PasswordFile(t *testing.T) {
	dir := t.TempDir()
	empty, two, good := filepath.Join(dir, "empty"), filepath.Join(dir, "two"), filepath.Join(dir, "good")
	writeFile(t, empty, []byte("\n"))
	writeFile(t, two, []byte("a\nb\n"))
	writeFile(t, good, []byte("a\n"))
	for name, c := range map[string]struct {
		conf cluster.Config
		want string
	}{
		"Missing": {cluster.Config{Username: "u", PasswordFile: filepath.Join(dir, "none")}, "no such file"},
		"Empty":   {cluster.Config{Username: "u", PasswordFile: empty}, "is empty"},
		"Lines":   {cluster.Config{Username: "u", PasswordFile: two}, "one line"},
		"NoUser":  {cluster.Config{PasswordFile: good}, "needs a user name"},
		"Both":    {cluster.Config{Username: "u", Password: "p", PasswordFile: good}, "one of them"},
	} {
		c.conf.Endpoints = []string{"a:1"}
		if _, err := cluster.New(c.conf); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestConfig_Secure(t *testing.T) {
	plain, secured := cluster.Config{InsecureTransport: true}, cluster.Config{InsecureTransport: true, CAFile: "ca"}
	mixed := cluster.Config{InsecureTransport: true, Endpoints: []string{"a:1", "https://b:1"}}
	for _, c := range []struct {
		conf     cluster.Config
		endpoint string
		want     string
	}{
		{plain, "a:1", "http://a:1"},
		{plain, "http://a:1", "http://a:1"},
		{plain, "https://a:1", "https://a:1"},
		{secured, "a:1", "https://a:1"},
		{secured, "http://a:1", "http://a:1"},
		{mixed, "a:1", "https://a:1"},
	} {
		if got := c.conf.URL(c.endpoint); got != c.want {
			t.Errorf("%+v: %s: got %s, want %s", c.conf, c.endpoint, got, c.want)
		}
		if got := c.conf.Secure(c.endpoint); got != strings.HasPrefix(c.want, "https") {
			t.Errorf("%+v: %s: secure: %v", c.conf, c.endpoint, got)
		}
	}
	if conf, err := plain.TLS(); conf != nil || err != nil {
		t.Errorf("no TLS: got %v, %v", conf, err)
	}
	if conf, err := mixed.TLS(); conf == nil || err != nil {
		t.Errorf("with TLS: got %v, %v", conf, err)
	}
	if !endpoint.Same("https://A:1/", "a:1") || endpoint.Same("a:1", "a:2") {
		t.Error("wrong endpoints are the same")
	}
}
