package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/config"
)

// TestLoadPlaces: a mistake in what reading needs is an error, and one elsewhere is none.
func TestLoadPlaces(t *testing.T) {
	const one = "repositories: {main: {url: 'file:///r'"
	const good = one + "}}\nclusters: [{name: prod}]\n"
	for text, want := range map[string]string{
		good:                                 "",
		good + "daemon: {concurrency: many}": "",
		one + "}}\nclusters: [{name: prod, companions: {secrets: [x], kubeconfig: k}}]":                                   "",
		one + "}}\nclusters: [{name: prod, discovery-srv: 'a:1', discovery-srv-name: 1, token-file: t, user: u}]":         "",
		one + "}}\nclusters: [{name: prod, discovery-srv-name: n, endpoints: [x], token-file: '${NOT_SET_ANYWHERE}'}]":    "",
		good + "daemon: {spool: {folder: '${NOT_SET_ANYWHERE}'}}":                                                         "",
		one + ", recipients: [bad], compression: lzma, recipients-files: [r]}}\nclusters: [{name: prod}]":                 "",
		one + "}}\nclusters: [{name: prod, endpoints: 1, tls: {ca: x}, snapshot: {}, labels: [], user: u, retention: x}]": "",
		one + "}}\nclusters: [{name: prod, defragment: 1, verify: {schedule: never}}]":                                    "",

		"repositories: {main: {url: 'ftp://r'}}\nclusters: [{name: prod}]":         "repositories.main.url",
		"repositories: {a.recipients: {url: 'ftp://r'}}\nclusters: [{name: prod}]": "recipients.url",
		"repositories: {main: {uri: 'file:///r'}}\nclusters: [{name: prod}]":       "unknown key",
		"repositories: {a: {url: 's3://b', s3: {region: '${NOT_SET_ANYWHERE}'}}}":  "NOT_SET_ANYWHERE is not set",
		"repositories: {a: {url: 'file:///a'}, b: {url: 'file:///b'}}\n" +
			"clusters: [{name: prod}]": "say which",
		one + ", repository-id: x}}\nclusters: [{name: prod}]":                "too short",
		one + "}}\nclusters: [{name: prod}, {name: prod}]":                    "already the name",
		one + "}}\nclusters: [{name: prod, repository: x}]":                   "there is no repository",
		one + "}}\nclusters: [{name: prod, repositry: main}]":                 "unknown key",
		one + "}}\nclusters: [{name: prod, verify: {identity-files: [key]}}]": "relative path",
		one + "}}":                         "clusters: is missing",
		good + "clusters: [{name: other}]": "used twice",
		good + "repositories: {main: {url: 'file:///other'}}": "used twice",
		"": "empty",
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		places, err := config.LoadPlaces(path)
		switch {
		case want != "" && (!errors.As(err, new(*config.Error)) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %s", text, err, want)
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want == "" && (places.Of("prod") != "main" || !slices.Equal(places.Repositories(), []string{"main"}) ||
			places.Repository("main").URL != "file:///r" || !slices.Equal(places.Clusters(), []string{"prod"})):
			t.Errorf("%s: got %+v", text, places)
		}
	}
	if _, err := config.LoadPlaces("/nowhere"); !errors.As(err, new(*config.Error)) {
		t.Errorf("got %v", err)
	}
}

// TestLoadPlaces_Keys: a key of a cluster that is new is looked at here, so that a mistake in what
// only a backup needs stops no command that reads.
func TestLoadPlaces_Keys(t *testing.T) {
	needed := []string{"name", "repository", "verify"}
	of := reflect.TypeFor[config.Cluster]()
	for i := range of.NumField() {
		key := of.Field(i).Tag.Get("yaml")
		if slices.Contains(needed, key) {
			continue
		}
		path := filepath.Join(t.TempDir(), "c.yaml")
		text := "repositories: {main: {url: 'file:///r'}}\nclusters: [{name: prod, " + key + ": '${NOT_SET_ANYWHERE}'}]"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.LoadPlaces(path); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}

// TestLoadPlaces_Credentials: what systemd hands to its units lies beside the file, for a
// command that is run by hand. In a unit its variable says where.
func TestLoadPlaces_Credentials(t *testing.T) {
	t.Chdir(t.TempDir())
	const text = "repositories: {main: {url: 's3://b', s3: {credentials-file: '${CREDENTIALS_DIRECTORY}/s3'}}}\n" +
		"clusters: [{name: prod, verify: {identity-files: ['${CREDENTIALS_DIRECTORY}/key']}}, {name: other}]"
	if err := os.WriteFile("c.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	here, _ := os.Getwd()
	t.Setenv("CREDENTIALS_DIRECTORY", "") // to have it again afterwards
	if err := os.Unsetenv("CREDENTIALS_DIRECTORY"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{here, "/run/credentials/backupd.service"} {
		if dir != here {
			t.Setenv("CREDENTIALS_DIRECTORY", dir)
		}
		p, err := config.LoadPlaces("c.yaml")
		if err != nil || p.Repository("main").S3.CredentialsFile != dir+"/s3" || p.Identities("prod")[0] != dir+"/key" ||
			len(p.Identities("other")) != 0 || len(p.Identities("")) != 1 || p.Of("nobody") != "" {
			t.Errorf("got %+v, %v", p, err)
		}
	}
}

// TestLoadCodec: what is stored by hand is encoded as the daemon would. A mistake in the keys must
// not store secrets in plain text.
func TestLoadCodec(t *testing.T) {
	const key = "age1yubikey" // of a plugin, which no configuration takes
	const good = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
	const one, clusters = "repositories: {main: {url: 'file:///r'", "}}\nclusters: [{name: prod, endpoints: 1}]\n"
	const two = "repositories: {a: {url: 'file:///a'}, b: {url: 'file:///b', recipients: [" + good + "]}}\n" +
		"clusters: [{name: prod, repository: b}]\n"
	for text, want := range map[string]string{ // the encoding, or the error
		one + clusters:                                  "zstd", // endpoints are of no matter here
		one + ", compression: none" + clusters:          "none",
		one + ", recipients: [" + good + "]" + clusters: "zstd+age",
		two: "zstd+age",
		one + ", recipients: [" + key + "]" + clusters:               "recipients[0]",
		one + ", recipients: ['${NOT_SET_ANYWHERE}']" + clusters:     "NOT_SET_ANYWHERE is not set",
		one + ", recipients: " + good + clusters:                     "recipients",
		one + ", recipient: [" + good + "]" + clusters:               "unknown key",
		one + ", compression: lzma" + clusters:                       "compression",
		one + ", recipients-files: ['/nowhere/keys']" + clusters:     "/nowhere/keys",
		strings.ReplaceAll(two, "name: prod", "name: other"):         "does not say in which repository",
		one + ", recipients-files: ['relative/keys']" + clusters:     "relative path",
		one + ", url: 'ftp://r'" + clusters:                          "used twice",
		one + ", recipients: [" + good + ", " + key + "]" + clusters: "recipients[1]",
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := config.LoadCodec(path, "prod")
		got := o.Encoding().String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || err != nil && o.Recipients.Len() > 0 {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if _, err := config.LoadCodec("/nowhere", "prod"); !errors.As(err, new(*config.Error)) {
		t.Errorf("got %v", err)
	}
}
