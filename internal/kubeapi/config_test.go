package kubeapi_test

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/kubeapi"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const config = `apiVersion: v1
kind: Config
clusters:
  - name: c
    cluster:
      server: https://127.0.0.1:6443
  - name: other
    cluster: {server: http://elsewhere, insecure-skip-tls-verify: true}
users:
  - name: u
    user:
      token: parsley
  - name: cloud
    user: {exec: {command: parsley}}
contexts:
  - name: x
    context: {cluster: c, user: u, namespace: prod}
current-context: x
`

// TestKubeconfig_Refused: what is not followed is refused with its line, in the context that
// counts, and in no other.
func TestKubeconfig_Refused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, path, config)
	open(t, path)
	cert, key := testserver.NewAuthority(t).Issue(t, "client")
	_, otherKey := testserver.NewAuthority(t).Issue(t, "other")
	cluster, user := "      server: https://127.0.0.1:6443\n", "      token: parsley\n"
	for name, tt := range map[string]struct{ old, new, want string }{
		"exec":         {user, "      token: a\n      exec: {command: parsley}\n", ":13: exec: backupd runs no program"},
		"exec of none": {user, "      exec:\n        command: parsley\n", ":12: exec: "},
		"plugin":       {user, "      auth-provider: {name: parsley}\n", ":12: auth-provider: "},
		"username":     {user, "      username: parsley\n      password: parsley\n", ":12: username: "},
		"password":     {user, "      token: a\n      password: parsley\n", ":13: password: "},
		"somebody":     {user, "      token: a\n      as: parsley\n", ":13: as: backupd asks as the user itself"},
		"groups":       {user, "      token: a\n      as-groups: [parsley]\n", ":13: as-groups: "},
		"new key": {user, "      token: a\n      tokenURL: parsley\n",
			`:13: "tokenURL" is a key that backupd does not know`},
		"two tokens": {user, "      token: a\n      tokenFile: parsley\n", ":13: tokenFile: there is a token, too"},
		"twice":      {user, "      token: a\n      token: parsley\n", ":13: token is there twice"},
		"no token":   {user, "      token: \"pars\\nley\"\n", ":12: token: this is no token"},
		"no file":    {user, "      tokenFile: none\n", ":12: tokenFile: stat the file that it names: no such"},
		"token in place of its file": {user, "      tokenFile: parsley.parsley\n",
			":12: tokenFile: stat the file that it names: no such"},
		"key in place of its file": {user, "      client-key: |\n        parsley\n        parsley\n",
			":12: client-key: stat the file that it names: no such"},
		"key of many bytes": {user, "      client-key: " + strings.Repeat("parsley", 100) + "\n",
			":12: client-key: stat the file that it names: file name too long"},
		"absolute":            {user, "      tokenFile: /nowhere/token\n", ":12: tokenFile: stat /nowhere/token: no such"},
		"token without space": {"\n" + user, " {token:parsley.1}\n", `:11: there is a key that backupd does not know`},
		"it twice":            {"\n" + user, " {token:parsley.1, token:parsley.1}\n", `:11: there is a key that`},
		"nobody":              {user, "      extensions: []\n", ":11: the user has neither a token"},
		"a list":              {user, "      token: [parsley]\n", ":12: token: want a text"},
		"half a pair": {user, "      client-certificate: " + cert + "\n",
			":12: client-certificate: there is no client-key"},
		"other half": {user, "      client-key: " + key + "\n", ":12: client-key: there is no client-certificate"},
		"another key": {user, "      client-certificate: " + cert + "\n      client-key: " + otherKey + "\n",
			":12: client-certificate: tls: private key does not match"},
		"both": {user, "      token: a\n      client-key: " + key + "\n      client-key-data: cGFyc2xleQ==\n",
			":14: client-key-data: there is client-key, too"},
		"skip": {cluster, cluster + "      insecure-skip-tls-verify: true\n",
			":7: insecure-skip-tls-verify: anybody could"},
		"skip yes": {cluster, cluster + "      insecure-skip-tls-verify: yes\n", ":7: insecure-skip-tls-verify: "},
		"proxy":    {cluster, cluster + "      proxy-url: http://user:parsley@proxy\n", ":7: proxy-url: backupd asks"},
		"CA":       {cluster, cluster + "      certificate-authority: none\n", ":7: certificate-authority: stat the file"},
		"no CA": {cluster, cluster + "      certificate-authority-data: cGFyc2xleQ==\n",
			":7: certificate-authority-data: it holds no certificate"},
		"no base64": {cluster, cluster + "      certificate-authority-data: parsley!\n",
			":7: certificate-authority-data is not base64"},
		"http":       {cluster, "      server: http://127.0.0.1:6443\n", ":6: server: want https://"},
		"a password": {cluster, "      server: https://user:parsley@127.0.0.1:6443\n", ":6: server: want nothing but"},
		"no URL":     {cluster, "      server: 'https://a:parsley'\n", ":6: server is no URL"},
		"no server":  {cluster, "      disable-compression: true\n", ":5: there is no server"},
		"context":    {"current-context: x", "current-context: y", `:18: there is no "y" in contexts`},
		"none":       {"current-context: x", "current-context: ''", ":18: there is no current-context"},
		"cluster":    {"cluster: c,", "cluster: d,", `:17: there is no "d" in clusters`},
		"two users":  {"name: cloud", "name: u", `:13: users: "u" is there twice`},
		"kind":       {"kind: Config", "kind: Secret", `:2: "Secret" is no kubeconfig`},
		"no YAML":    {"kind: Config", "kind: [parsley", "this is not YAML"},
		"no section": {config, "parsley", ":1: this is no kubeconfig"},
		"empty":      {config, "", "this is not YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(config, tt.old) {
				t.Fatalf("%q is not in the file", tt.old)
			}
			write(t, path, strings.Replace(config, tt.old, tt.new, 1))
			_, err := kubeapi.Open(path)
			if of := (*kubeapi.FileError)(nil); !errors.As(err, &of) || !strings.HasPrefix(err.Error(), path+":") ||
				!strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s with %q", err, path, tt.want)
			}
			if err != nil && strings.Contains(strings.ReplaceAll(err.Error(), path, ""), hidden) {
				t.Errorf("it repeats what is hidden: %v", err)
			}
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := kubeapi.Open(path); err == nil || err.Error() != path+": no such file or directory" {
		t.Error(err)
	}
}

// TestKubeconfig: files beside it, what is in it as base64, and a certificate in place of a token.
func TestKubeconfig(t *testing.T) {
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/keys", map[string]string{"k": "v"})
	dir := filepath.Dir(kube.Kubeconfig)
	ca, err := os.ReadFile(kube.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ca.crt"), string(ca))
	write(t, filepath.Join(dir, "token"), testserver.KubeToken)
	inside := base64.StdEncoding.EncodeToString(ca)
	for name, tt := range map[string]struct{ cluster, user string }{
		"beside": {"certificate-authority: ca.crt", "tokenFile: ./token"},
		"inside": {"certificate-authority-data: " + inside, "token: " + testserver.KubeToken},
		"path": {"certificate-authority: ca.crt, insecure-skip-tls-verify: false, proxy-url: ''",
			"tokenFile: token, exec: null"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			c := open(t, kube.WriteKubeconfig(t, "ok", "server: "+kube.URL+", "+tt.cluster, tt.user))
			if _, err := c.Secret(t.Context(), "prod", "keys"); err != nil {
				t.Error(err)
			}
		})
	}
}
