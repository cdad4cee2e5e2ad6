package backup_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestCheckSecretName: what is not a name of Kubernetes could lead out of a folder, or ask for
// something else.
func TestCheckSecretName(t *testing.T) {
	for name, want := range map[string]bool{
		"kube-system/etcd-certs": true, "a/b": true, "ns/sh.helm.release.v1.x.v1": true, "0/0": true,
		"a/" + strings.Repeat("b", 253): true, strings.Repeat("a", 63) + "/b": true,
		"": false, "a": false, "/b": false, "a/": false, "a/b/c": false, "a/..": false, "a/.": false, "../a": false,
		"A/b": false, "a/B": false, "a/b?x": false, "a/b%2f": false, "a.b/c": false, "a/b\n": false, "-a/b": false,
		"a/b-": false, "a/*": false, "a/b ": false,
		"a/" + strings.Repeat("b", 254): false, strings.Repeat("a", 64) + "/b": false,
	} {
		if err := backup.CheckSecretName(name); (err == nil) != want {
			t.Errorf("%q: %v, want good: %v", name, err, want)
		}
	}
}

// TestCompanions_Secrets: no reader believes that a file is of a Secret that was not asked for, or
// that one of a host is at its path.
func TestCompanions_Secrets(t *testing.T) {
	const at = "/kubernetes.io/secrets/ns/s"
	for want, change := range map[string]func(c *backup.Companions){
		"want NAMESPACE/NAME":          func(c *backup.Companions) { c.Secrets = []string{"ns/../s"} },
		"ns/s is not in order":         func(c *backup.Companions) { c.Secrets = []string{"ns/s", "ns/s"} },
		"is of no Secret that was":     func(c *backup.Companions) { c.Secrets = nil },
		"keys\" is of no Secret":       func(c *backup.Companions) { c.Files[2].Path = at + "/keys" },
		"down\" is of no Secret":       func(c *backup.Companions) { c.Files[2].Path = at + "/data/a/down" },
		"kubernetes.io\" is of no":     func(c *backup.Companions) { c.Files[2].Path = "/kubernetes.io" },
		"\"/kubernetes.io/x\" is":      func(c *backup.Companions) { c.Paths[1] = "/kubernetes.io/x" },
		"secret.json\" is of no":       func(c *backup.Companions) { c.Files[2].Mode = "0644" },
		"data/k\" is of no Secret":     func(c *backup.Companions) { link(c, at+"/data/k") },
		"is not in order, or one too ": func(c *backup.Companions) { c.Secrets = many(101) },
	} {
		m := full()
		change(m.Companions)
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func link(c *backup.Companions, path string) {
	c.Files[2] = backup.CompanionFile{Path: path, Link: "/etc/shadow"}
}

// many are the names of so many Secrets, in order, with that of the test.
func many(n int) []string {
	var out []string
	for range n - 1 {
		out = append(out, "ns/"+strings.Repeat("a", len(out)+1))
	}
	return append(out, "ns/s")
}

func TestSecretOf(t *testing.T) {
	for path, want := range map[string][2]string{
		"/kubernetes.io/secrets/ns/s":            {"ns/s", ""},
		"/kubernetes.io/secrets/ns/s/data/a.key": {"ns/s", "data/a.key"},
		"/kubernetes.io/secrets/ns":              {},
		"/etc/kubernetes.io/secrets/ns/s":        {},
	} {
		if name, rest := backup.SecretOf(path); name != want[0] || rest != want[1] {
			t.Errorf("%s: %q, %q", path, name, rest)
		}
	}
}
