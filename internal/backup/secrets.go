package backup

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Secrets of Kubernetes are stored among the companion files, where no file of a host is taken from.
const (
	reserved   = "/kubernetes.io"
	secretsDir = reserved + "/secrets/"
)

// MaxSecrets is how many Secrets may be asked for.
const MaxSecrets = 100

var (
	secretName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/` +
		`[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	secretFile = regexp.MustCompile(`^(secret\.json|data/[-._a-zA-Z0-9]{1,253})$`)
)

// CheckSecretName reports why this is not NAMESPACE/NAME, or nil.
func CheckSecretName(name string) error {
	if _, of, _ := strings.Cut(name, "/"); !secretName.MatchString(name) || len(of) > 253 {
		return fmt.Errorf("%.400q: want NAMESPACE/NAME of a Secret", name)
	}
	return nil
}

// SecretPath returns where the Secret NAMESPACE/NAME is among the companion files: a folder.
func SecretPath(name string) string { return secretsDir + name }

// Reserved reports whether a path is, or is below, what is reserved for Secrets.
func Reserved(path string) bool { return strings.HasPrefix(path+"/", reserved+"/") }

// SecretOf returns the Secret that is at a path or above it, as NAMESPACE/NAME, and what is below.
func SecretOf(path string) (name, rest string) {
	parts := strings.SplitN(strings.TrimPrefix(path, secretsDir), "/", 3)
	if !strings.HasPrefix(path, secretsDir) || len(parts) < 2 {
		return "", ""
	}
	return parts[0] + "/" + parts[1], strings.Join(parts[2:], "")
}

// validateSecrets checks that what is stored at a reserved path is of a Secret that was asked for.
func (c *Companions) validateSecrets() error {
	for i, name := range c.Secrets {
		if err := CheckSecretName(name); err != nil {
			return err
		}
		if i > 0 && c.Secrets[i-1] >= name || i >= MaxSecrets {
			return fmt.Errorf("the Secret %s is not in order, or one too many", name)
		}
	}
	for _, f := range c.Files {
		name, rest := SecretOf(f.Path)
		if Reserved(f.Path) && (!slices.Contains(c.Secrets, name) || !secretFile.MatchString(rest) || f.Mode != "0600") {
			return fmt.Errorf("%q is of no Secret that was asked for", f.Path)
		}
	}
	if i := slices.IndexFunc(c.Paths, Reserved); i >= 0 {
		return fmt.Errorf("%q is reserved for Secrets", c.Paths[i])
	}
	return nil
}
