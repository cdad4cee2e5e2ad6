package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/etcd-backupd/backupd/internal/codec"
)

// Places is where the snapshots of clusters are, by a configuration.
type Places struct{ conf *Config }

// LoadPlaces reads of the file at path only what a command needs to read snapshots: the
// repositories, which cluster is in which, and the identities that decrypt. A mistake
// elsewhere, or a variable that is set for the daemon alone, must not stop a restore. It
// opens no file that the configuration names.
func LoadPlaces(path string) (*Places, error) {
	raw, err := readFile(path, maxBytes)
	if err != nil {
		return nil, &Error{Problems: []Problem{{File: path, Message: err.Error()}}}
	}
	conf, err := parse(path, raw, func(name string) (string, bool) { return lookupByHand(path, name) },
		func(at string) bool { return !elsewhere.MatchString(at) })
	if err != nil {
		return nil, err
	}
	return &Places{conf}, nil
}

// elsewhere matches the keys that say nothing of where snapshots are. A key that is not
// here counts, and so does one that nobody knows.
var elsewhere = regexp.MustCompile(`^daemon($|\.)|` +
	`^repositories\..*\.(create-if-missing|compression|recipients|recipients-files)($|\[)|` +
	`^clusters\[\d+\]\.(endpoints|discovery-srv|discovery-srv-name|tls|user|password-file|token-file|local-endpoint|` +
	`snapshot|companions|retention|defragment|labels)($|\.|\[)|` +
	`^clusters\[\d+\]\.verify\.(schedule|max-bytes-per-day)$`)

// stored matches those of them that say how snapshots are stored.
var stored = regexp.MustCompile(`^repositories\..*\.(compression|recipients|recipients-files)($|\[)`)

// LoadCodec reads of the file at path how new snapshots of a cluster are stored. It takes what
// [LoadPlaces] takes, and a mistake in the recipients or in the compression is an error, too:
// secrets would be stored in plain text. It reads the files of recipients.
func LoadCodec(path, cluster string) (codec.Options, error) {
	raw, err := readFile(path, maxBytes)
	if err != nil {
		return codec.Options{}, &Error{Problems: []Problem{{File: path, Message: err.Error()}}}
	}
	conf, err := parse(path, raw, func(name string) (string, bool) { return lookupByHand(path, name) },
		func(at string) bool { return !elsewhere.MatchString(at) || stored.MatchString(at) })
	if err != nil {
		return codec.Options{}, err
	}
	p := &Places{conf}
	name := p.Of(cluster)
	if all := p.Repositories(); name == "" && len(all) == 1 {
		name = all[0]
	}
	if name == "" {
		return codec.Options{}, fmt.Errorf("%s does not say in which repository cluster %q is", path, cluster)
	}
	r := p.Repository(name)
	return r.Codec()
}

// lookupByHand looks up a variable for a command that a person runs. CREDENTIALS_DIRECTORY
// is set for systemd's units alone: by hand it is the folder of the configuration, where
// the packaged units take their credentials from.
func lookupByHand(path, name string) (string, bool) {
	value, ok := os.LookupEnv(name)
	if ok || name != "CREDENTIALS_DIRECTORY" {
		return value, ok
	}
	abs, err := filepath.Abs(path)
	return filepath.Dir(abs), err == nil
}

// Clusters returns the names of all clusters.
func (p *Places) Clusters() []string {
	var out []string
	for i := range p.conf.Clusters {
		out = append(out, p.conf.Clusters[i].Name)
	}
	return out
}

// Repositories returns the names of all repositories, sorted.
func (p *Places) Repositories() []string { return sortedKeys(p.conf.Repositories) }

// Repository returns the repository of that name.
func (p *Places) Repository(name string) Repository { return p.conf.Repositories[name] }

// Of returns the name of the repository of a cluster, or "" if there is no such cluster.
func (p *Places) Of(cluster string) string {
	for i := range p.conf.Clusters {
		if c := &p.conf.Clusters[i]; c.Name == cluster {
			return c.Repository
		}
	}
	return ""
}

// Identities returns the identity files of a cluster, or of all for "".
func (p *Places) Identities(cluster string) []string {
	var out []string
	for i := range p.conf.Clusters {
		if c := &p.conf.Clusters[i]; cluster == "" || c.Name == cluster {
			out = append(out, c.Verify.IdentityFiles...)
		}
	}
	return out
}
