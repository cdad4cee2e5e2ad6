// Package companion packs files of a host, and Secrets of Kubernetes, beside a snapshot, stores
// them, reads them back as a whole, and puts them into a folder of their own. They are a tar
// archive, encoded as the data of the snapshot is. It follows no link out of the folders that were
// named, neither when it reads nor when it writes.
package companion

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Files says which files of this host go with a snapshot.
type Files struct {
	// Paths of files and folders, absolute and each in its shortest form. Without any, a
	// snapshot has no companions.
	Paths []string
	// From are files that start etcd. What they refer to goes with the snapshot, too, so that
	// a restore can read them as they were: see [Content.ReadFile].
	From []string
	// Trace finds what they refer to.
	Trace Trace
	// Secrets of Kubernetes, as NAMESPACE/NAME, which are read by their names. Kubeconfig says
	// where; without one the service account of this pod does.
	Secrets    []string
	Kubeconfig string
	// Host is the name of this host.
	Host string
}

// Trace reads files that start etcd as a restore does. The error says why a restore would refuse
// the files.
type Trace func(files []string) (Traced, error)

// Traced are the files that others refer to.
type Traced struct {
	// Read are those that were read, and those that etcd itself reads.
	Read []string
	// Absent are files and folders that were looked for where nothing is.
	Absent []string
	// Missing are files that etcd would not find, each with the reason.
	Missing map[string]error
}

// None reports whether neither files nor Secrets are asked for.
func (f Files) None() bool { return len(f.Paths)+len(f.From)+len(f.Secrets) == 0 }

// Of completes what is asked for on this host.
func Of(f Files) Files {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	f.Host = host
	return f
}

// Store is what is needed of the data objects of a cluster.
type Store interface {
	Put(ctx context.Context, key string, r io.Reader) error
	Discard(ctx context.Context, keys ...string)
	ReadBack(ctx context.Context, key string, want backup.Blob, progress backup.Progress) error
	Open(ctx context.Context, key string, want backup.Blob, progress func(done, total int64)) (io.ReadCloser, error)
}

// Changed reports whether a snapshot has other companions than the next one would have. Of the files
// of another host it is not known, and counts as no. Secrets are the same from everywhere.
func (f Files) Changed(ctx context.Context, m *backup.Manifest) bool {
	was := m.Companions
	if was == nil {
		return !f.None()
	}
	if was.Host == f.Host {
		return f.None() || !same(f.Collect(ctx).About, was)
	}
	if len(f.Paths)+len(f.From) > 0 && len(was.Paths) == 0 {
		return true
	}
	f.Paths, f.From = nil, nil
	if f.None() {
		return len(was.Secrets) > 0
	}
	return !same(f.Collect(ctx).About, secretsOf(was))
}

// maxPaths is how many files and folders may be asked for.
const maxPaths = 100

// CheckPaths reports why these files and folders cannot be asked for, or nil.
func CheckPaths(paths []string) error {
	if len(paths) > maxPaths {
		return fmt.Errorf("%d companions: want at most %d; name the folders that they are in", len(paths), maxPaths)
	}
	for _, p := range paths {
		if err := checkPath(p); err != nil {
			return err
		}
	}
	return nil
}

// checkPath reports why no file can be taken from a path, or nil.
func checkPath(p string) error {
	if backup.Reserved(p) {
		return fmt.Errorf("%q: this path is reserved for Secrets of Kubernetes", p)
	}
	return backup.CheckCompanionPath(p)
}

// CheckSecrets reports why these Secrets cannot be asked for, or nil.
func CheckSecrets(names []string) error {
	if len(names) > backup.MaxSecrets {
		return fmt.Errorf("%d Secrets: want at most %d", len(names), backup.MaxSecrets)
	}
	for _, name := range names {
		if err := backup.CheckSecretName(name); err != nil {
			return err
		}
	}
	return nil
}

// Incomplete returns an error if companion files of the snapshot were asked for and are not
// stored, or nil. The snapshot itself is as good as any.
func Incomplete(m *backup.Manifest) error {
	if m.Companions == nil || len(m.Companions.Missing) == 0 {
		return nil
	}
	first, more := m.Companions.Missing[0], ""
	if n := len(m.Companions.Missing) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	what, thing := "companion file "+first.Path, "file where it is expected"
	if name, _ := backup.SecretOf(first.Path); name != "" {
		what, thing = "Secret "+name, "Secret"
	}
	return backup.WithHint(fmt.Errorf("snapshot %s is stored, but without the %s: %s%s",
		m.ID, what, first.Reason, more),
		"the data is safe; let backupd read the %s, or take it off the list of companions", thing)
}

// same reports whether two lists of one host are of the same files.
func same(a, b *backup.Companions) bool {
	return slices.Equal(a.Paths, b.Paths) && slices.Equal(a.From, b.From) && slices.Equal(a.Absent, b.Absent) &&
		slices.Equal(a.Secrets, b.Secrets) && slices.Equal(a.Files, b.Files) && slices.Equal(a.Missing, b.Missing)
}
