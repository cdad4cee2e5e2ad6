package testserver

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// FakeKube answers for an API server that is asked for Secrets by name, and can be made to fail.
type FakeKube struct {
	URL        string
	CAFile     string
	Kubeconfig string // of somebody who may read what there is

	dir string

	mu      sync.Mutex
	secrets map[string]map[string]any
	instead http.HandlerFunc
	asked   []string
}

// KubeToken is the token that a [FakeKube] knows.
const KubeToken = "kube-token-parsley"

// StartFakeKube starts one with TLS, which ends with the test.
func StartFakeKube(t testing.TB) *FakeKube {
	t.Helper()
	ca := NewAuthority(t)
	f := &FakeKube{CAFile: ca.File, dir: t.TempDir(), secrets: map[string]map[string]any{}}
	cert, key := ca.Issue(t, "kube")
	server := httptest.NewUnstartedServer(f)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, "load a certificate", err)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust it
	server.StartTLS()
	t.Cleanup(server.Close)
	f.URL = server.URL
	f.Kubeconfig = f.WriteKubeconfig(t, "kubeconfig", "server: "+f.URL+", certificate-authority: "+ca.File,
		"token: "+KubeToken)
	return f
}

// WriteKubeconfig writes one with a cluster and a user, each as the inside of a mapping.
func (f *FakeKube) WriteKubeconfig(t testing.TB, name, cluster, user string) string {
	t.Helper()
	path := filepath.Join(f.dir, name)
	must(t, "write a kubeconfig", os.WriteFile(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
  - {name: c, cluster: {%s}}
users:
  - {name: u, user: {%s}}
contexts:
  - {name: x, context: {cluster: c, user: u}}
current-context: x
`, cluster, user), 0o600))
	return path
}

// Set keeps a Secret, NAMESPACE/NAME, with what a server adds to one. No data takes it away.
func (f *FakeKube) Set(name string, data map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if data == nil {
		delete(f.secrets, name)
		return
	}
	raw := map[string][]byte{}
	for k, v := range data {
		raw[k] = []byte(v)
	}
	namespace, of, _ := strings.Cut(name, "/")
	f.secrets[name] = map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": raw,
		"metadata": map[string]any{
			"name": of, "namespace": namespace, "uid": "0815", "resourceVersion": fmt.Sprint(len(f.asked)),
			"labels": map[string]string{"app": "etcd"}, "creationTimestamp": "2026-11-20T10:15:00Z",
			"annotations": map[string]string{
				"note": "kept", "kubectl.kubernetes.io/last-applied-configuration": "parsley",
			},
			"ownerReferences": []any{map[string]any{"name": "owner"}}, "managedFields": []any{map[string]any{}},
		},
	}
}

// Answer makes it answer so, and nil as before.
func (f *FakeKube) Answer(h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = h
}

// Asked returns the requests since the last call.
func (f *FakeKube) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// ServeHTTP implements [http.Handler].
func (f *FakeKube) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Path)
	instead := f.instead
	parts := strings.Split(r.URL.Path, "/") // "", api, v1, namespaces, NAMESPACE, secrets, NAME
	var found map[string]any
	if len(parts) == 7 && parts[5] == "secrets" {
		found = f.secrets[parts[4]+"/"+parts[6]]
	}
	f.mu.Unlock()
	switch {
	case instead != nil:
		instead(w, r)
	case r.Header.Get("Authorization") != "Bearer "+KubeToken:
		KubeStatus(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized", "")
	case found == nil:
		KubeStatus(w, http.StatusNotFound, "NotFound", fmt.Sprintf("secrets %q not found", parts[len(parts)-1]),
			parts[len(parts)-1])
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(found)
	}
}

// KubeStatus answers as an API server refuses.
func KubeStatus(w http.ResponseWriter, code int, reason, message, name string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason,
		"details": map[string]any{"name": name, "kind": "secrets"}, "code": code,
	})
}
