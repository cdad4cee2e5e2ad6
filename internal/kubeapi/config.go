package kubeapi

import (
	"crypto/tls"
	"encoding/base64"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// refusals are the keys of a kubeconfig that say how to ask in a way that backupd does not: it
// would ask as somebody else, or trust somebody else, than the file says.
var refusals = map[string]string{
	"exec": "backupd runs no program of a kubeconfig: give the user a token, a tokenFile or a client " +
		"certificate",
	"auth-provider": "backupd has no plugins for logins: give the user a token, a tokenFile or a client certificate",
	"username":      "API servers know no passwords since Kubernetes 1.19: give the user a token",
	"password":      "API servers know no passwords since Kubernetes 1.19: give the user a token",
	"as":            impersonation,
	"as-uid":        impersonation,
	"as-groups":     impersonation,
	"as-user-extra": impersonation,
	"proxy-url":     "backupd asks the API server directly, without a proxy",
	"insecure-skip-tls-verify": "anybody could answer, and would get the token: name the authority by " +
		"certificate-authority",
}

const impersonation = "backupd asks as the user itself, not as another one"

// readConfig reads what the current context of a kubeconfig says. Other contexts do not matter.
func readConfig(path string) (access, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return access{}, err
	}
	f := &file{path: path}
	root, err := f.load()
	if err != nil {
		return access{}, err
	}
	root.known("apiVersion", "kind", "preferences", "clusters", "users", "contexts", "current-context", "extensions")
	if kind := root.get("kind"); kind.text() != "" && kind.text() != "Config" {
		kind.fail("%q is no kubeconfig: want the kind Config", kind.text())
	}
	current := root.get("current-context")
	if current.text() == "" {
		current.fail("there is no current-context: 'kubectl config use-context' sets it")
	}
	context := root.named("contexts", "context", current)
	context.known("cluster", "user", "namespace", "extensions")
	cluster, who := root.named("clusters", "cluster", context.must("cluster")),
		root.named("users", "user", context.must("user"))
	a := access{tls: &tls.Config{}, trust: "the certificate pool of this host", who: path}
	cluster.known("server", "certificate-authority", "certificate-authority-data", "tls-server-name",
		"disable-compression", "extensions", "insecure-skip-tls-verify", "proxy-url")
	who.known("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data",
		"extensions", "exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra")
	a.server = serverOf(cluster)
	a.tls.ServerName = cluster.get("tls-server-name").text()
	if key, raw := cluster.content("certificate-authority"); raw != nil {
		if a.tls.RootCAs, err = certs.ParsePool(raw); err != nil {
			key.fail("%s: %w", key.key, err)
		}
		a.trust = path
	}
	login(&a, who)
	return a, f.err
}

func serverOf(cluster value) *url.URL {
	server := cluster.must("server")
	u, err := url.Parse(server.text())
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		server.fail("server is no URL") // which may hold a password
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		server.fail("server: want nothing but https://HOST:PORT, and perhaps a path")
	case u.Scheme != "https":
		server.fail("server: want https://: everybody on the way could read the token and the Secrets")
	}
	return u
}

// login says who asks.
func login(a *access, who value) {
	a.token = func() (string, error) { return "", nil }
	token, tokenFile := who.get("token"), who.get("tokenFile")
	certKey, cert := who.content("client-certificate")
	keyKey, key := who.content("client-key")
	switch {
	case token.text() != "" && tokenFile.text() != "":
		tokenFile.fail("tokenFile: there is a token, too: leave one of them out")
	case token.text() != "":
		text := token.text()
		if !printable(text) {
			token.fail("token: this is no token")
		}
		a.token = func() (string, error) { return text, nil }
	case tokenFile.text() != "":
		at := tokenFile.beside()
		a.token = func() (string, error) { return readToken(at) }
		a.who = at
		if _, err := readToken(at); err != nil {
			tokenFile.failToRead(err)
		}
	}
	switch {
	case cert == nil && key == nil:
	case key == nil:
		certKey.fail("%s: there is no client-key for it", certKey.key)
	case cert == nil:
		keyKey.fail("%s: there is no client-certificate for it", keyKey.key)
	default:
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			certKey.fail("%s: %w", certKey.key, err)
		}
		a.tls.Certificates = []tls.Certificate{pair}
	}
	if token.text() == "" && tokenFile.text() == "" && cert == nil {
		who.fail("the user has neither a token nor a tokenFile nor a client-certificate")
	}
}

// content returns what a key names, or holds in base64 as KEY-data.
func (v value) content(key string) (value, []byte) {
	named, data := v.get(key), v.get(key+"-data")
	switch {
	case named.text() != "" && data.text() != "":
		data.fail("%s-data: there is %s, too: leave one of them out", key, key)
	case data.text() != "":
		raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data.text()), ""))
		if err != nil {
			data.fail("%s-data is not base64", key)
		}
		return data, append([]byte{}, raw...)
	case named.text() != "":
		raw, err := readFile(named.beside())
		if err != nil {
			named.failToRead(err)
		}
		return named, append([]byte{}, raw...)
	}
	return named, nil
}
