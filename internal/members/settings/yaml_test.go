package settings_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// sample is most of the file that comes with etcd.
const sample = `# This is the configuration file for the etcd server.
name: 'm1'
data-dir: /var/lib/etcd
wal-dir:
snapshot-count: 10000
quota-backend-bytes: 8589934592
listen-peer-urls: http://localhost:2380
cors:
initial-advertise-peer-urls: "http://10.0.0.1:2380"
discovery:
discovery-fallback: 'proxy'
initial-cluster: m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380
initial-cluster-token: 'etcd-cluster'
initial-cluster-state: 'new'
strict-reconfig-check: false
enable-v2: true
proxy: 'off'
client-transport-security:
  cert-file: /c
  client-cert-auth: false
peer-transport-security:
  cert-file: /p
  allowed-hostname: [a]
self-signed-cert-validity: 1
log-outputs: [stderr, /x]
auto-compaction-mode: periodic
auto-compaction-retention: "1"
cipher-suites: [
  TLS_A,
  TLS_B
]
unheard-of: 1
`

// resolveFile resolves etcd's configuration file alone, with that content.
func resolveFile(file, text string) (*settings.Host, error) {
	o := settings.Options{ReadOptions: members.ReadOptions{
		ReadFile: func(string) ([]byte, error) { return []byte(text), nil },
	}}
	starts, err := settings.Read(file, []byte(text), o.ReadOptions)
	if err != nil {
		return nil, err
	}
	return settings.Resolve(starts[0], o)
}

func TestResolveFile(t *testing.T) {
	for _, text := range []string{sample, strings.ReplaceAll(sample, "\n", "\r\n")} {
		h, err := resolveFile("/etcd.yml", text)
		if err != nil {
			t.Fatal(err)
		}
		const want = "m1 /var/lib/etcd - http://10.0.0.1:2380 m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"
		if got := show(h); got != want {
			t.Errorf("got %s", got)
		}
		if got := h.DataDir.At.String() + h.InitialClusterAt.String(); got != "/etcd.yml:3/etcd.yml:12" {
			t.Errorf("positions %s", got)
		}
		for name, want := range map[string]string{
			"quota-backend-bytes": "8589934592 quota-backend-bytes:", "cert-file": "/c cert-file:",
			"peer-cert-file": "/p cert-file:", "cipher-suites": "TLS_A,TLS_B cipher-suites:",
			"auto-compaction-retention": "1 auto-compaction-retention:", "peer-cert-allowed-hostname": "a allowed-hostname:",
		} {
			s, ok := h.Setting(name)
			if got := s.Value + " " + s.Spelled; !ok || got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		const unknown = "/etcd.yml:32: etcd does not know the key unheard-of"
		if len(h.Notes) != 1 || !strings.Contains(h.Notes[0].String(), unknown) {
			t.Errorf("notes %v", h.Notes)
		}
		if !settings.Recognize("x", []byte(text)) {
			t.Error("it is not recognised")
		}
	}
}

func TestResolveFile_Refused(t *testing.T) {
	for text, want := range map[string]string{
		"name: m1\n":                                     "etcd's default data directory",
		"name: m1\ndata-dir: d\n":                        "f:2: data-dir: is \"d\"",
		"name: 1\ndata-dir: /d\n":                        "f:1: name: 1 without quotes",
		"name: 0x1f\ndata-dir: /d\n":                     "f:1: name: 0x1f without quotes",
		"name: on\ndata-dir: /d\n":                       "f:1: name: on without quotes",
		"name: 2020-01-01\ndata-dir: /d\n":               "f:1: name:",
		"name: ''\ndata-dir: /d\n":                       "f:1: name is empty",
		"name: [a]\ndata-dir: /d\n":                      "f:1: name: it is a list",
		"name: {a: b}\ndata-dir: /d\n":                   "f:1: name: it is not a single value",
		"name: !!str a\ndata-dir: /d\n":                  "f:1: name: anchors and tags",
		"name: &a a\ndata-dir: *a\n":                     "f:1: name: anchors and tags",
		"a: &a {name: b}\n<<: *a\ndata-dir: /d\n":        "f:2: this key",
		"name: a\nName: b\ndata-dir: /d\n":               "f:2: Name is there twice",
		"Name: b\ndata-dir: /d\n":                        "f:1: spell Name as name",
		"data-dir: /d\ndata-dir: /e\n":                   "f:2: data-dir is there twice",
		"data-dir: /d\n---\ndata-dir: /e\n":              "second document",
		"- data-dir\n":                                   "f:1: a section",
		"data-dir: /d\nproxy: 'on'\n":                    "f:2: proxy: on: a proxy",
		"data-dir: \"/d\\r\"\n":                          "f:1: data-dir:",
		"data-dir: /d\ninitial-advertise-peer-urls: x\n": "f:2: etcd would not take",
		"data-dir: [\n":                                  "not understood",
	} {
		_, err := resolveFile("/f", text)
		var line *members.FileError
		if !errors.As(err, &line) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestRecognize(t *testing.T) {
	for text, want := range map[string]bool{
		"data-dir: /d\n": true, "initial-cluster: x\n": true, "name: a\n": false, "": false, "x": false,
		"kind: Pod\ndata-dir: /d\n": false, "services:\n  data-dir: /d\n": false, "ETCD_NAME=x\n": false,
	} {
		if got := settings.Recognize("f", []byte(text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
