package testserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// adminToken lets its bearer do everything with an [APIServer].
const adminToken = "backupd-test-admin"

// APIServer is Kubernetes' API with its own admission and validation, and with
// nothing behind it: no controller makes pods, and no kubelet runs them.
type APIServer struct {
	Kubeconfig string // of somebody who may do everything
	Kubectl    string // the client of the same version

	url    string
	client *http.Client
	proc   *process
}

// StartAPIServer starts one that keeps its objects in a cluster without TLS. The
// first call on a machine builds it, which takes some minutes.
func StartAPIServer(t testing.TB, etcd *Cluster) *APIServer {
	t.Helper()
	bin := cached(t, kubernetes, "kube-apiserver")
	dir, ca := t.TempDir(), NewAuthority(t)
	cert, key := ca.Issue(t, "kube-apiserver")
	addr := freeAddr(t)
	a := &APIServer{
		Kubectl: cached(t, kubernetes, "kubectl"), Kubeconfig: filepath.Join(dir, "kubeconfig"),
		url:    "https://" + addr,
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}},
	}
	users := filepath.Join(dir, "users.csv")
	must(t, "write the users", os.WriteFile(users, []byte(adminToken+",admin,admin,system:masters\n"), 0o600))
	must(t, "write the kubeconfig", os.WriteFile(a.Kubeconfig, []byte(a.kubeconfig(ca.File)), 0o600))
	accounts := accountKey(t, dir)
	at, err := url.Parse(a.url)
	must(t, "parse an address", err)
	a.proc, err = startProcess(filepath.Join(dir, "log"), bin, []string{
		"--etcd-servers=" + strings.Join(etcd.Endpoints(), ","),
		"--bind-address=127.0.0.1", "--secure-port=" + at.Port(),
		// It announces its address in an Endpoints, where none may be of loopback.
		"--endpoint-reconciler-type=none",
		"--tls-cert-file=" + cert, "--tls-private-key-file=" + key, "--cert-dir=" + dir,
		// It marks what only a controller would unmark, without which nothing can be deleted.
		"--disable-admission-plugins=StorageObjectInUseProtection",
		"--token-auth-file=" + users, "--authorization-mode=RBAC",
		"--service-account-issuer=" + a.url, "--service-account-signing-key-file=" + accounts,
		"--service-account-key-file=" + accounts, "--service-cluster-ip-range=10.96.0.0/16",
	}, nil)
	must(t, "start the API server", err)
	t.Cleanup(func() {
		a.client.CloseIdleConnections()
		a.proc.kill()
		if t.Failed() {
			t.Logf("the end of the log of the API server:\n%s", tail(a.proc.logPath, 8))
		}
	})
	a.awaitReady(t)
	return a
}

func (a *APIServer) kubeconfig(caFile string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: admin}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: admin, user: {token: %q}}]
`, a.url, caFile, adminToken)
}

// accountKey writes the key that signs the tokens of service accounts.
func accountKey(t testing.TB, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, "generate a key", err)
	der, err := x509.MarshalECPrivateKey(key)
	must(t, "encode a key", err)
	path := filepath.Join(dir, "service-accounts.pem")
	writePEM(t, path, "EC PRIVATE KEY", der)
	return path
}

// awaitReady waits until the server has made what it begins with: its roles and
// namespaces.
func (a *APIServer) awaitReady(t testing.TB) {
	t.Helper()
	err := waitUntil(t.Context(), 2*time.Minute, func(ctx context.Context) error {
		if err := a.proc.exited(); err != nil {
			return err
		}
		for _, path := range []string{"/readyz", "/api/v1/namespaces/default"} {
			if err := a.get(ctx, path); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("testserver: start the API server: %v\n%s", err, tail(a.proc.logPath, 40))
	}
}

func (a *APIServer) get(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %s", path, resp.Status, body)
	}
	return nil
}
