package kubeapi

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// accountDir is where a kubelet mounts what a pod needs to ask the API server.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// ErrNoPod says that there is no kubeconfig, and that this process runs in no pod.
var ErrNoPod = errors.New("no kubeconfig is named, and this is no pod of Kubernetes: " +
	"KUBERNETES_SERVICE_HOST or KUBERNETES_SERVICE_PORT is not set")

// podAccount is the service account of this pod. Its token is renewed on disk, so it is read for
// each request.
func podAccount(dir string) (access, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return access{}, ErrNoPod
	}
	ca, token := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	raw, err := readFile(ca)
	if err != nil {
		return access{}, notMounted(err)
	}
	pool, err := certs.ParsePool(raw)
	if err != nil {
		return access{}, fmt.Errorf("%s: %w", ca, err)
	}
	if _, err := readToken(token); err != nil {
		return access{}, notMounted(err)
	}
	return access{
		server: &url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}, tls: &tls.Config{RootCAs: pool},
		token: func() (string, error) { return readToken(token) }, trust: ca, who: token,
	}, nil
}

func notMounted(err error) error {
	return fmt.Errorf("%w: the pod needs the token of its service account (automountServiceAccountToken, or a "+
		"projected volume)", err)
}

// readToken reads the token in a file.
func readToken(path string) (string, error) {
	raw, err := readFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(raw))
	if token == "" || !printable(token) {
		return "", fmt.Errorf("%s holds no token", path)
	}
	return token, nil
}

// maxFile bounds a file.
const maxFile = 1 << 20

// readFile reads a regular file. The error names it.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path) // to open a pipe would wait for who writes to it
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return raw, err
}
