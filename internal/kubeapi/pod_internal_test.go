package kubeapi

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestPodAccount: the files are those that a kubelet mounts, and the token of now is shown.
func TestPodAccount(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	u, err := url.Parse(kube.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", host)
	t.Setenv("KUBERNETES_SERVICE_PORT", port)
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(text string) {
		t.Helper()
		if _, err := podAccount(dir); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
	want("ca.crt: no such file or directory: the pod needs the token of its service account")
	put("ca.crt", "parsley")
	want("ca.crt: it holds no certificate")
	ca, err := os.ReadFile(kube.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	put("ca.crt", string(ca))
	want("token: no such file or directory: the pod needs")
	put("token", "first\n")
	a, err := podAccount(dir)
	if err != nil || a.server.String() != kube.URL || a.tls.RootCAs == nil {
		t.Fatalf("%+v, %v, want %s", a, err, kube.URL)
	}
	put("token", "renewed\n")
	if token, err := a.token(); token != "renewed" || err != nil {
		t.Errorf("%q, %v, want the token of now", token, err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
	if a, err := podAccount(dir); err != nil || a.server.Host != "[fd00::1]:"+port {
		t.Errorf("%+v, %v", a.server, err)
	}
}
