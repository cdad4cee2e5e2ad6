package cluster_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// issuer signs tokens that an etcd with --auth-token=jwt accepts.
type issuer struct{ key *rsa.PrivateKey }

// newIssuer makes a key and returns it with the flag that makes etcd know it.
func newIssuer(t *testing.T) (*issuer, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, pub := filepath.Join(dir, "key"), filepath.Join(dir, "pub")
	writeFile(t, private, pem.EncodeToMemory(
		&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	writeFile(t, pub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	return &issuer{key}, "--auth-token=jwt,pub-key=" + pub + ",priv-key=" + private + ",sign-method=RS256,ttl=1h"
}

func (i *issuer) token(t *testing.T, user string, revision uint64, expires time.Time) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{"username": user, "revision": revision, "exp": expires.Unix()})
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + enc.EncodeToString(sig)
}

// TestJWT: a token that etcd does not take any more is named as such, and a file with a
// new one is read while the connection lives.
func TestJWT(t *testing.T) {
	issuer, flag := newIssuer(t)
	real := testserver.StartCluster(t, testserver.Options{Args: []string{flag}})
	real.EnableAuth(t, "secret")
	status, err := real.Client(t).AuthStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	url, now := real.Members[0].ClientURL, time.Now()
	good := issuer.token(t, "root", status.AuthRevision, now.Add(time.Hour))
	expired := issuer.token(t, "root", status.AuthRevision, now.Add(-time.Minute))
	old := issuer.token(t, "root", status.AuthRevision-1, now.Add(time.Hour))
	for name, c := range map[string]struct{ token, text string }{
		"Expired": {expired, "the token expired on 2"},
		"Forged":  {good[:len(good)-8] + "AAAAAAAA", "etcd does not accept the token"},
		"None":    {"no token", "etcd does not accept the token"},
	} {
		t.Run(name, func(t *testing.T) {
			c1 := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, Token: c.token})
			for what, use := range map[string]func() error{
				"survey": func() error { _, err := c1.Survey(t.Context()); return err },
				"stream": func() error { _, err := c1.Stream(t.Context(), url); return err },
			} {
				err := use()
				var hint *backup.HintError
				if !errors.Is(err, cluster.ErrPermission) || !strings.Contains(err.Error(), c.text) {
					t.Fatalf("%s: got %v, want %q", what, err, c.text)
				}
				if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--auth-jwt-token") ||
					strings.Contains(hint.Hint, "--cert") {
					t.Errorf("%s: got hint %+v", what, hint)
				}
				if strings.Contains(err.Error(), c.token) {
					t.Errorf("%s: the token is in %v", what, err)
				}
			}
		})
	}
	// Only reads of keys look at the users and roles.
	c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, Token: old})
	err = c.Do(t.Context(), url, func(cl *clientv3.Client) error {
		_, err := cl.Get(t.Context(), "any", clientv3.WithSerializable())
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "users or roles have changed since the token was issued") {
		t.Errorf("of an old token: got %v", err)
	}
	t.Run("File", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		writeFile(t, file, []byte(expired+"\n"))
		c := testserver.Connect(t, cluster.Config{Endpoints: []string{url}, TokenFile: file})
		_, err := c.Survey(t.Context())
		var hint *backup.HintError
		if err == nil || !strings.Contains(err.Error(), "expired") || !errors.As(err, &hint) ||
			!strings.Contains(hint.Hint, "write it to "+file+", the token-file") || strings.Contains(hint.Hint, "--") {
			t.Errorf("got %v, hint %+v", err, hint)
		}
		writeFile(t, file+".new", []byte(good+"\n"))
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		survey(t, c)
		readAll(t, c, url)
	})
	for _, conf := range []cluster.Config{
		{TokenFile: "none"}, {TokenFile: real.Members[0].DataDir, Token: "x"}, {TokenFile: "x", Username: "u"}} {
		conf.Endpoints = []string{url}
		if _, err := cluster.New(conf); err == nil || !strings.Contains(err.Error(), "token file") {
			t.Errorf("%+v: got %v", conf, err)
		}
	}
}
