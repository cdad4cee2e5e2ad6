package record

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// maxBytes is more than any record has.
const maxBytes = 1 << 20

// Path returns the path of a cluster's record in a folder.
func Path(folder, repository, cluster string) string {
	// A name holds neither '@' nor '/'.
	return filepath.Join(folder, "backupd-"+cluster+"@"+repository+".record.json")
}

// Read returns the record of a cluster. It returns neither a record nor an error if
// there is none.
func Read(folder, repository, cluster string, now time.Time) (*Record, error) {
	path := Path(folder, repository, cluster)
	raw, err := readOurs(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var r *Record
	if err == nil {
		r, err = decode(raw, repository, cluster, now)
	}
	if err != nil {
		return nil, fmt.Errorf("read record %s: %w", path, err)
	}
	return r, nil
}

// readOurs reads a file that nobody else can have written: the folder may be one for
// temporary files, where others may write too.
func readOurs(path string) ([]byte, error) {
	f, err := disk.OpenRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("it has mode %v: want a file of this process's user that nobody else may write", info.Mode())
	}
	return io.ReadAll(io.LimitReader(f, maxBytes))
}

// Write writes a record in place of the one before, as a whole. Two writers of one path
// must not write at a time.
func Write(folder string, r Record) error {
	raw, err := encode(r)
	if err == nil {
		err = disk.WriteFile(Path(folder, r.Repository, r.Cluster), raw)
	}
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}
