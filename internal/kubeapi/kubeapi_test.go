package kubeapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/kubeapi"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMain names proxies in the environment before Go looks for some, which it does once.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		if err := os.Setenv(name, "http://127.0.0.1:1"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// open opens a kubeconfig.
func open(t *testing.T, path string) *kubeapi.Client {
	t.Helper()
	c, err := kubeapi.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// hidden is in all that no error may repeat.
const hidden = "parsley"

// wantError wants an error with a text, that is one line, holds nothing hidden, and is the same again.
func wantError(t *testing.T, c *kubeapi.Client, ctx context.Context, want string) {
	t.Helper()
	var before string
	for range 2 {
		s, err := c.Secret(ctx, "prod", "keys")
		if err == nil || s != nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("%v, %v, want an error with %q", s, err, want)
		}
		if text := err.Error(); strings.Contains(text, hidden) || strings.Contains(text, "\n") ||
			before != "" && before != text {
			t.Errorf("it repeats what is hidden, or is another text than before: %q, %q", text, before)
		}
		before = err.Error()
	}
}

const clean = `{
  "apiVersion": "v1",
  "kind": "Secret",
  "metadata": {
    "name": "keys",
    "namespace": "prod",
    "labels": {
      "app": "etcd"
    },
    "annotations": {
      "note": "kept"
    }
  },
  "type": "Opaque",
  "data": {
    "a": "",
    "key": "AQL/"
  }
}
`

// TestSecret: what somebody would apply, and nothing that the server adds, in one request by name.
func TestSecret(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/keys", map[string]string{"key": "\x01\x02\xff", "a": ""})
	s, err := open(t, kube.Kubeconfig).Secret(t.Context(), "prod", "keys")
	if err != nil || string(s.JSON()) != clean {
		t.Fatalf("%v\n%s", err, s.JSON())
	}
	if got := strings.Join(kube.Asked(), "\n"); got != "GET /api/v1/namespaces/prod/secrets/keys" {
		t.Errorf("asked %s", got)
	}
}

// TestSecret_Refused: each answer that is no Secret has its own reason.
func TestSecret_Refused(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	status := func(code int, reason, message, name string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { testserver.KubeStatus(w, code, reason, message, name) }
	}
	body := func(code int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			_, _ = io.WriteString(w, text)
		}
	}
	const forbidden = `secrets "keys" is forbidden: User "system:serviceaccount:backupd:backupd" cannot get resource ` +
		`"secrets" in API group "" in the namespace "prod": parsley`
	object := func(kind, namespace, name, data string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","kind":%q,"metadata":{"name":%q,"namespace":%q},"data":{%s}}`,
			kind, name, namespace, data)
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"gone": {nil, "not found: the API server at https://"},
		"401":  {status(401, "Unauthorized", "parsley", ""), "unauthorized: the API server at https://"},
		"403": {status(403, "Forbidden", forbidden, "keys"), "forbidden: system:serviceaccount:backupd:backupd may not " +
			"get it: its Role in the namespace prod needs the verb get on secrets, with keys among resourceNames"},
		"403 by somebody": {body(403, `User "parsley" cannot get resource`), "forbidden: the user of " + kube.Kubeconfig},
		"404 by somebody": {body(404, "<html>parsley"), "(404): check the path"},
		"another 404":     {status(404, "NotFound", "parsley", "parsley"), "(404): check the path"},
		"429":             {body(429, hidden), "unreachable: the API server at https://"},
		"503":             {body(503, hidden), "answers 503 Service Unavailable"},
		"418":             {body(418, hidden), "(418)"},
		"garbage":         {body(200, `{"parsley`), "answers no Secret"},
		"another type":    {body(200, `{"data":{"k":"parsley"}}`), "answers no Secret"},
		"nothing":         {body(200, ""), "answers no Secret"},
		"a list":          {body(200, object("SecretList", "prod", "keys", "")), "answers no Secret"},
		"another name":    {body(200, object("Secret", "prod", hidden, "")), "another object than was asked for"},
		"another place":   {body(200, object("Secret", hidden, "keys", "")), "another object than was asked for"},
		"a way out":       {body(200, object("Secret", "prod", "keys", `"../parsley":""`)), "a key that none can have"},
		"up":              {body(200, object("Secret", "prod", "keys", `"..":""`)), "a key that none can have"},
		"large": {body(200, object("Secret", "prod", "keys", `"k":"`+strings.Repeat("AAAA", 400<<10)+`"`)),
			"more data than one can have"},
		"huge": {body(200, strings.Repeat(hidden, 1<<20)), "more than 6 MiB"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, clean[:100])
		}, "ended the connection before its answer did"},
		"header": {func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat(hidden, 200))
			}
		}, "does not answer as one does"},
	} {
		t.Run(name, func(t *testing.T) {
			kube.Answer(tt.answer)
			wantError(t, open(t, kube.Kubeconfig), t.Context(), tt.want)
		})
	}
}

// TestSecret_Redirect: neither the token nor the question goes elsewhere.
func TestSecret_Redirect(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer other.Close()
	for _, code := range []int{301, 302, 307, 308} {
		kube.Answer(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/"+hidden, code) })
		wantError(t, open(t, kube.Kubeconfig), t.Context(), fmt.Sprintf("sends us elsewhere (%d)", code))
	}
	if elsewhere > 0 {
		t.Errorf("%d requests went elsewhere", elsewhere)
	}
}

// TestSecret_Proxy: what the environment says of proxies is for other programs. A request through
// this one would fail. The name is not of loopback, for which Go asks no proxy.
func TestSecret_Proxy(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	// 127.0.0.1 would never go through a proxy: this address does, and is this host.
	cluster := "server: " + strings.Replace(kube.URL, "127.0.0.1", "0.0.0.0", 1) +
		", tls-server-name: localhost, certificate-authority: " + kube.CAFile
	kube.Set("prod/keys", map[string]string{"k": "v"})
	c := open(t, kube.WriteKubeconfig(t, "proxy", cluster, "token: "+testserver.KubeToken))
	if _, err := c.Secret(t.Context(), "prod", "keys"); err != nil {
		t.Error(err)
	}
}

// TestSecret_Unreachable: a server that hangs, is away, or is somebody else.
func TestSecret_Unreachable(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	kube.Answer(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantError(t, open(t, kube.Kubeconfig), short, "unreachable: "+"the API server at "+kube.URL+" gave no answer in time")
	ended, end := context.WithCancel(t.Context())
	end()
	wantError(t, open(t, kube.Kubeconfig), ended, "it was interrupted")
	kube.Answer(nil)

	trusted := "certificate-authority: " + kube.CAFile
	for name, tt := range map[string]struct{ cluster, want string }{
		"nobody": {"server: 'https://127.0.0.1:1', " + trusted,
			"unreachable: the API server at https://127.0.0.1:1: connection refused"},
		"no name": {"server: 'https://nobody.invalid', " + trusted, "name"},
		"another CA": {"server: " + kube.URL + ", certificate-authority: " + testserver.NewAuthority(t).File,
			"certificate not trusted: no authority in "},
		"the host's": {"server: " + kube.URL, "no authority in the certificate pool of this host has issued it"},
		"other names": {"tls-server-name: other, server: " + kube.URL + ", " + trusted,
			"certificate not trusted: it is not for the name other"},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, kube.WriteKubeconfig(t, "other", tt.cluster, "token: "+testserver.KubeToken))
			wantError(t, c, t.Context(), tt.want)
		})
	}
	if asked := kube.Asked(); len(asked) > 4 {
		t.Errorf("somebody who is not trusted was asked: %q", asked)
	}

	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	c := open(t, kube.WriteKubeconfig(t, "plain", "server: "+strings.Replace(plain.URL, "http:", "https:", 1),
		"token: "+hidden))
	wantError(t, c, t.Context(), "unreachable: the API server at ")
}

// TestSecret_TLS: an expired certificate, a version of TLS that is too old, and a server that wants
// a certificate of ours.
func TestSecret_TLS(t *testing.T) {
	ca := testserver.NewAuthority(t)
	serve := func(conf *tls.Config, name string, change ...func(*x509.Certificate)) string {
		t.Helper()
		cert, key := ca.Issue(t, name, change...)
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		conf.Certificates = []tls.Certificate{pair}
		s.TLS = conf
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	kube := testserver.StartFakeKube(t)
	past := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	clients := testserver.NewAuthority(t)
	cert, key := ca.Issue(t, "client")
	for name, tt := range map[string]struct{ server, user, want string }{
		"expired": {serve(&tls.Config{}, "expired", past), "token: a", "it has expired, or is not valid yet"},
		"old": {serve(&tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}, "old"), "token: a",
			"refuses the connection (tls: protocol version not supported)"},
		"unknown client": {serve(&tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients.Pool()},
			"mutual"),
			"client-certificate: " + cert + ", client-key: " + key, "refuses the connection (tls: "},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, kube.WriteKubeconfig(t, "tls", "server: "+tt.server+", certificate-authority: "+ca.File, tt.user))
			wantError(t, c, t.Context(), tt.want)
		})
	}
}

// TestSecret_Token: a token that is renewed in its file is the one that is shown.
func TestSecret_Token(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/keys", map[string]string{"k": "v"})
	token := filepath.Join(filepath.Dir(kube.Kubeconfig), "token")
	write(t, token, hidden+"-old\n")
	c := open(t, kube.WriteKubeconfig(t, "file", "server: "+kube.URL+", certificate-authority: "+kube.CAFile,
		"tokenFile: token")) // beside the kubeconfig
	wantError(t, c, t.Context(), "unauthorized: the API server at "+kube.URL+" does not accept what "+token+" holds")
	write(t, token, testserver.KubeToken+"\n")
	if _, err := c.Secret(t.Context(), "prod", "keys"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	wantError(t, c, t.Context(), "the token cannot be read: ")
	write(t, token, "two\nlines "+hidden)
	wantError(t, c, t.Context(), token+" holds no token")
}

// TestPod: a pod has its server in variables, and its account in files.
func TestPod(t *testing.T) {
	for _, unset := range []string{"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
		t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
		t.Setenv("KUBERNETES_SERVICE_PORT", "443")
		t.Setenv(unset, "")
		t.Setenv("KUBECONFIG", "/etc/kubernetes/admin.conf")
		if _, err := kubeapi.Open(""); !errors.Is(err, kubeapi.ErrNoPod) {
			t.Error(err)
		}
	}
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := kubeapi.Open(""); err == nil || !strings.Contains(err.Error(),
		"the pod needs the token of its service account") {
		t.Error(err) // its files are not on this host
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
