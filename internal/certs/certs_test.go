package certs_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func write(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestParsePool(t *testing.T) {
	first, second := read(t, testserver.NewAuthority(t).File), read(t, testserver.NewAuthority(t).File)
	both := append(bytes.Clone(first), second...)
	pool, err := certs.ParsePool(both)
	if err != nil {
		t.Fatal(err)
	}
	want := x509.NewCertPool()
	want.AppendCertsFromPEM(first)
	want.AppendCertsFromPEM(second)
	if !pool.Equal(want) {
		t.Error("it does not hold both")
	}
	for want, bundle := range map[string][]byte{
		"holds no certificate":            []byte("a secret"),
		"its last certificate is cut off": both[:len(both)-len(second)/2],
	} {
		if _, err := certs.ParsePool(bundle); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestRead(t *testing.T) {
	a := testserver.NewAuthority(t)
	late, _ := a.Issue(t, "late")
	early, earlyKey := a.Issue(t, "early", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Minute) })
	bundle := filepath.Join(t.TempDir(), "bundle")
	write(t, bundle, bytes.Join([][]byte{read(t, late), read(t, earlyKey), read(t, early)}, nil))
	all, err := certs.Read(bundle)
	if err != nil || len(all) != 2 || all[0].Subject.CommonName != "late" || all[1].Subject.CommonName != "early" {
		t.Fatalf("got %d certificates, %v", len(all), err)
	}
	if first := certs.FirstExpiry(all); !first.Equal(all[1].NotAfter) {
		t.Errorf("the first expires at %s, want %s", first, all[1].NotAfter)
	}
	for path, want := range map[string]string{earlyKey: "holds no certificate",
		filepath.Join(t.TempDir(), "missing"): "no such file"} {
		if _, err := certs.Read(path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("got %v, want %q and the path", err, want)
		}
	}
	if _, err := certs.ReadPair(late, earlyKey); err == nil ||
		!strings.Contains(err.Error(), "private key does not match") {
		t.Errorf("the key of another: got %v", err)
	}
	if pair, err := certs.ReadPair(early, earlyKey); err != nil || !bytes.Equal(pair.Certificate[0], all[1].Raw) {
		t.Errorf("got %v", err)
	}
	if _, err := certs.ReadPool(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRenewBy(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for life, before := range map[time.Duration]time.Duration{
		365 * 24 * time.Hour: 30 * 24 * time.Hour,
		24 * time.Hour:       6 * time.Hour,
	} {
		cert := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(life)}
		if got, want := certs.RenewBy(cert), cert.NotAfter.Add(-before); !got.Equal(want) {
			t.Errorf("a life of %s: got %s, want %s", life, got, want)
		}
	}
}

// TestReloaded_Pair: a pair changes file by file, and only a whole one is used.
func TestReloaded_Pair(t *testing.T) {
	a := testserver.NewAuthority(t)
	oldCert, oldKey := a.Issue(t, "old")
	newCert, newKey := a.Issue(t, "new")
	var log bytes.Buffer
	r, err := certs.LoadPair(slog.New(slog.NewTextHandler(&log, nil)), oldCert, oldKey)
	if err != nil {
		t.Fatal(err)
	}
	want := func(what, name, logged string) {
		t.Helper()
		for range 2 { // the log has it once
			if got := r.Get().Leaf.Subject.CommonName; got != name {
				t.Errorf("%s: got %s, want %s", what, got, name)
			}
		}
		if got := log.String(); strings.Count(got, "\n") != min(1, len(logged)) || !strings.Contains(got, logged) {
			t.Errorf("%s: logged %q, want one line with %q", what, got, logged)
		}
		log.Reset()
	}
	want("unchanged", "old", "")
	write(t, oldCert, read(t, newCert))
	want("a new certificate with the old key", "old", "private key does not match")
	write(t, oldKey, read(t, newKey))
	want("a new pair", "new", "level=INFO")
	if err := os.Remove(oldKey); err != nil {
		t.Fatal(err)
	}
	want("no key", "new", "level=WARN")
	write(t, oldKey, read(t, newKey))
	want("the key is back", "new", "")
	write(t, oldKey, nil)
	want("an empty key", "new", "old contents stay in use")
}

// TestReloaded_Bad: at the beginning the files must be good.
func TestReloaded_Bad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, []byte("nonsense"))
	log := slog.New(slog.DiscardHandler)
	if _, err := certs.LoadPool(log, file); err == nil || !strings.HasPrefix(err.Error(), file+": ") {
		t.Errorf("got %v", err)
	}
	if _, err := certs.LoadPair(log, file, file+".key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
