package file

import (
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Options say how a repository in a folder uses its file system.
type Options struct {
	// MinFree is what stays free on the repository's file system for others, such as an
	// etcd: a size, such as 3GiB, or a part, such as 20%. A snapshot that would take it is
	// refused; removals always work, and records may go down to a tenth of it. The default is
	// 15%, but at least 256MiB and at most 2GiB. 0B keeps nothing free.
	MinFree string `yaml:"min-free"`
}

// Reserve returns what stays free.
func (o Options) Reserve() (disk.RepositoryReserve, error) {
	r, err := disk.ParseReserve(o.MinFree)
	return disk.RepositoryReserve{Reserve: r}, err
}
