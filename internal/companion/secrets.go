package companion

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/kubeapi"
)

const (
	// secretMode are the permissions of all files of Secrets.
	secretMode = "0600"
	// askers is how many Secrets are read at once.
	askers = 4
)

// secretPatience bounds how long all Secrets are waited for. They are read twice for a snapshot: to
// see whether they have changed, and to be stored.
var secretPatience = 5 * time.Second

// secrets reads the Secrets, each as a whole or not at all.
func (c *collector) secrets(ctx context.Context, f Files) {
	c.about.Secrets = sorted(slices.Clone(f.Secrets))
	if len(c.about.Secrets) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, secretPatience)
	defer cancel()
	read, errs := ask(ctx, f.Kubeconfig, c.about.Secrets)
	for i, name := range c.about.Secrets {
		err := errs[i]
		if err == nil {
			err = c.keep(name, read[i])
		}
		if err != nil {
			c.miss(backup.SecretPath(name), err)
		}
	}
}

// ask reads Secrets, a few at once. There is an error or a Secret for each.
func ask(ctx context.Context, kubeconfig string, names []string) ([]*kubeapi.Secret, []error) {
	read, errs := make([]*kubeapi.Secret, len(names)), make([]error, len(names))
	client, err := kubeapi.Open(kubeconfig)
	if err != nil {
		for i := range errs {
			errs[i] = err
		}
		return read, errs
	}
	defer client.Close()
	var done sync.WaitGroup
	turns := make(chan struct{}, askers)
	for i, name := range names {
		namespace, name, _ := strings.Cut(name, "/")
		done.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			read[i], errs[i] = client.Secret(ctx, namespace, name)
		})
	}
	done.Wait()
	return read, errs
}

// keep adds the files of a Secret. They take their room before the files of the host do, so that
// none of them is missing.
func (c *collector) keep(name string, s *kubeapi.Secret) error {
	files := []found{{path: "secret.json", content: s.JSON()}}
	for key, value := range s.Data {
		files = append(files, found{path: "data/" + key, content: value})
	}
	bytes, names := int64(0), 0
	for i := range files {
		f := &files[i]
		f.path = backup.SecretPath(name) + "/" + f.path
		f.real = f.path
		bytes += int64(len(f.content))
		names += inManifest(f.path)
	}
	switch {
	case bytes > c.left:
		return fmt.Errorf("with it the companions would have more than %d MiB", backup.MaxCompanionBytes>>20)
	case c.names+names > maxNames || len(c.found)+len(files) > backup.MaxCompanions:
		return errors.New("with it the companions would be more files, or have more names, than a manifest can list")
	}
	c.left -= bytes
	c.names += names
	c.found = append(c.found, files...)
	return nil
}

// secretHeader describes a file of a Secret in the archive. It has no owner and no time.
func secretHeader(f backup.CompanionFile) *tar.Header {
	return &tar.Header{
		Typeflag: tar.TypeReg, Name: nameOf(f.Path), Size: f.Bytes, Mode: 0o600, ModTime: time.Unix(0, 0),
		Format: tar.FormatPAX,
	}
}

// secretsOf is what a manifest says of Secrets, without the files of its host.
func secretsOf(c *backup.Companions) *backup.Companions {
	out := &backup.Companions{Secrets: c.Secrets}
	for _, f := range c.Files {
		if backup.Reserved(f.Path) {
			out.Files = append(out.Files, f)
		}
	}
	for _, m := range c.Missing {
		if backup.Reserved(m.Path) {
			out.Missing = append(out.Missing, m)
		}
	}
	return out
}
