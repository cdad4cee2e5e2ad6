package config

import (
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config/strict"
)

// Files returns the sorted paths of all files that the configuration names:
// certificates, keys, passwords, tokens and so on. The daemon watches them for
// changes.
func (c *Config) Files() []string {
	return c.files(func(key string) bool { return key != "folder" })
}

// CertificateFiles returns the files among [Config.Files] that hold
// certificates.
func (c *Config) CertificateFiles() []string {
	return c.files(func(key string) bool { return key == "cert-file" || isCAFile(key) })
}

func isCAFile(key string) bool { return key == "ca-file" || key == "client-ca-file" }

// SecretFile is a file whose content is a secret, and the first key that names it.
type SecretFile struct{ Key, File string }

// SecretFiles returns the files among [Config.Files] that hold secrets, in the
// order of the configuration.
func (c *Config) SecretFiles() []SecretFile {
	var out []SecretFile
	eachPath(c, func(path, value string) {
		known := slices.ContainsFunc(out, func(s SecretFile) bool { return s.File == value })
		if isSecret(lastKey(path)) && !known {
			out = append(out, SecretFile{indexPattern.ReplaceAllString(path, ""), value})
		}
	})
	return out
}

var indexPattern = regexp.MustCompile(`\[\d+\]$`)

// isSecret names the files that hold no secret, so that a new key counts as one.
func isSecret(key string) bool {
	switch key {
	case "folder", "cert-file", "recipients-files":
		return false
	}
	return !isCAFile(key)
}

func (c *Config) files(wanted func(key string) bool) []string {
	var out []string
	eachPath(c, func(path, value string) {
		if wanted(lastKey(path)) {
			out = append(out, value)
		}
	})
	slices.Sort(out)
	return slices.Compact(out)
}

// lastKey returns the key at the end of a path, without an index.
func lastKey(path string) string {
	key := path[strings.LastIndex(path, ".")+1:]
	key, _, _ = strings.Cut(key, "[")
	return key
}

// namesPath reports whether the values of a key are paths. Its name decides, so
// that a new key cannot be forgotten here.
func namesPath(key string) bool {
	return key == "folder" || key == "kubeconfig" || strings.HasSuffix(key, "-file") || strings.HasSuffix(key, "-files")
}

// eachPath calls visit with the path of each key that names a file or folder, and
// with its value.
func eachPath(c *Config, visit func(path, value string)) {
	strict.Walk(c, func(path string, v reflect.Value) {
		if v.Kind() == reflect.String && v.String() != "" && namesPath(lastKey(path)) {
			visit(path, v.String())
		}
	})
}
