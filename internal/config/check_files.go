package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/kubeapi"
	"github.com/etcd-backupd/backupd/internal/notify"
)

// CheckFiles checks every file, folder and program that the configuration names on
// this machine: whether it can be read, and has the right form. It connects to
// nothing.
func (c *Config) CheckFiles() []Problem {
	var problems []Problem
	add := func(path string, err error) {
		problems = append(problems, c.source.Problem(path, err.Error()))
	}
	eachPath(c, func(path, value string) {
		err := checkPath(lastKey(path), value)
		if err == nil {
			return
		}
		add(path, fmt.Errorf("%s: %w", value, err))
		if errors.Is(err, fs.ErrNotExist) {
			problems[len(problems)-1].Missing = value
		}
	})
	if len(problems) == 0 {
		c.checkTogether(add)
	}
	c.checkPings(add)
	for i, n := range c.Daemon.Notifications {
		if n.Command == nil {
			continue
		}
		if err := notify.CheckProgram(n.Command.Program); err != nil {
			add(fmt.Sprintf("daemon.notifications[%d].command.program", i), err)
		}
	}
	var e *Error
	if errors.As(c.source.Finish(problems), &e) {
		return e.Problems
	}
	return nil
}

// CheckOwnFiles is [Config.CheckFiles] for what belongs to no cluster and to no
// repository. A daemon does not start without these files; one that belongs to a cluster
// or a repository fails only that.
func (c *Config) CheckOwnFiles() []Problem {
	return slices.DeleteFunc(c.CheckFiles(), func(p Problem) bool { return !strings.HasPrefix(p.Path, "daemon.") })
}

// Wrong returns an error for the value of a key that is wrong on this host.
func (c *Config) Wrong(path, text string) error {
	return &Error{Problems: []Problem{c.source.Problem(path, text)}}
}

// CheckFilesOf checks the files of one cluster and of its repository. The error is an
// [*Error] without excerpts: it stands in tables and messages, far from the file.
func (c *Config) CheckFilesOf(cluster *Cluster) error {
	i := slices.IndexFunc(c.Clusters, func(other Cluster) bool {
		return other.Name == cluster.Name && other.Repository == cluster.Repository
	})
	own, repository := fmt.Sprintf("clusters[%d].", i), "repositories."+cluster.Repository+"."
	problems := slices.DeleteFunc(c.CheckFiles(), func(p Problem) bool {
		// No snapshot is given up for its companions.
		return !strings.HasPrefix(p.Path, own) && !strings.HasPrefix(p.Path, repository) ||
			strings.HasPrefix(p.Path, own+"companions.")
	})
	if len(problems) == 0 {
		return nil
	}
	for i := range problems {
		problems[i].Excerpt = ""
	}
	return &Error{Problems: problems}
}

// checkTogether checks files that must fit together.
func (c *Config) checkTogether(add func(path string, err error)) {
	pair := func(path, cert, key string) {
		if cert == "" || key == "" {
			return
		}
		if _, err := certs.ReadPair(cert, key); err != nil {
			add(path+".cert-file", err)
		}
	}
	for i := range c.Clusters {
		t := &c.Clusters[i].TLS
		pair(fmt.Sprintf("clusters[%d].tls", i), t.CertFile, t.KeyFile)
	}
	pair("daemon.server", c.Daemon.Server.CertFile, c.Daemon.Server.KeyFile)
	for _, t := range trespasses(c, resolved) {
		add(t.path, errors.New(t.text))
	}
	for _, name := range sortedKeys(c.Repositories) {
		r := c.Repositories[name]
		if _, err := r.Codec(); err != nil {
			add("repositories."+name+".recipients", err)
		}
	}
}

// checkPath checks one file, or the spool folder. The key says which form it must
// have. Errors do not repeat the name, and never quote the content.
func checkPath(key, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return withoutPath(err)
	}
	if key == "folder" {
		if !info.IsDir() {
			return errors.New("this is not a folder")
		}
		return nil
	}
	if !info.Mode().IsRegular() {
		return errors.New("this is not a regular file")
	}
	raw, err := readFile(path, maxBytes)
	if err != nil {
		return err
	}
	switch text := strings.TrimSpace(string(raw)); {
	case text == "":
		return errors.New("the file is empty")
	case key == "cert-file" || isCAFile(key):
		_, err = certs.ParsePool(raw)
	case key == "recipients-files":
		_, err = codec.ParseRecipients(nil, []string{path})
	case key == "identity-files":
		_, err = codec.ReadIdentities([]string{path})
	case key == "password-file" || key == "token-file":
		_, err = readPassword(path)
	case key == "read-tokens-file" || key == "operate-tokens-file" || key == "tokens-file":
		return checkTokens(text)
	case key == "bearer-token-file":
		if len(strings.Fields(text)) > 1 {
			return errors.New("want exactly one token")
		}
	case key == "url-file":
		return checkURL(text, "https", "http")
	case key == "sse-c-key-file":
		return checkCustomerKey(raw)
	case key == "kubeconfig":
		return checkKubeconfig(path)
	}
	return err
}

// checkKubeconfig says what backupd cannot follow in a kubeconfig, and in which line.
func checkKubeconfig(path string) error {
	client, err := kubeapi.Open(path)
	if err == nil {
		client.Close()
		return nil
	}
	if of := (*kubeapi.FileError)(nil); errors.As(err, &of) && of.Line > 0 {
		return fmt.Errorf("line %d: %w", of.Line, of.Reason)
	}
	return err
}

var tokenPattern = regexp.MustCompile(`^[A-Za-z0-9._~+/-]{16,}=*$`)

func checkTokens(text string) error {
	tokens := strings.Fields(text)
	if len(tokens) > 2 {
		return fmt.Errorf("the file holds %d tokens: want one or two, one a line", len(tokens))
	}
	for i, t := range tokens {
		if !tokenPattern.MatchString(t) {
			return fmt.Errorf("token %d: want at least 16 letters, digits and -._~+/; "+
				"'openssl rand -hex 32' makes a good one", i+1)
		}
	}
	return nil
}

func checkCustomerKey(raw []byte) error {
	if len(raw) == 32 {
		return nil
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(raw))); err == nil && len(key) == 32 {
		return nil
	}
	return errors.New("want a key of 32 bytes, raw or in base64; 'openssl rand 32' makes one")
}
