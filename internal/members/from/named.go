package from

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// addNamed adds the files that the settings of the members name.
func addNamed(t *companion.Traced, found *Found) {
	var hosts []*settings.Host
	var starts []string
	if found.Host != nil {
		hosts = append(hosts, found.Host)
	}
	for _, l := range found.All {
		hosts = append(hosts, l.Host)
	}
	for _, h := range hosts {
		starts = append(starts, h.Of.File)
	}
	several := len(slices.Compact(slices.Sorted(slices.Values(starts)))) > 1
	for _, h := range hosts {
		copied := h.Copied
		if several && copied == nil {
			copied = copyOf(h.Of.File)
		}
		for _, f := range settings.Files(h) {
			name, err := "", error(nil)
			switch {
			case f.Path != "":
				name, err = locateNamed(f.Path, copied)
			case h.Contained:
				continue
			default:
				name, err = f.Value, errors.New("the folder in which etcd runs is not known")
			}
			if err != nil {
				t.Missing[name] = fmt.Errorf("%s names it at %s: %w", f.Spelled, f.At, err)
			} else if !slices.Contains(t.Read, name) {
				t.Read = append(t.Read, name)
			}
		}
	}
}

// copyOf returns the folders for the files of a host, where files of several hosts lie on one: what
// is / there, and the folder of the file. A file in /etc is one of this host.
func copyOf(file string) []string {
	switch i := strings.Index(file, "/etc/"); {
	case i == 0:
		return nil
	case i > 0:
		return []string{file[:i], filepath.Dir(file)}
	}
	return []string{filepath.Dir(file), filepath.Dir(file)}
}

// locateNamed returns where a file lies. That of this host is not taken for one of another.
func locateNamed(path string, copied []string) (string, error) {
	places := []string{path}
	if copied != nil && !members.InTree(path, copied[0]) {
		places = []string{filepath.Join(copied[0], path), filepath.Join(copied[1], filepath.Base(path))}
	}
	for _, p := range places {
		if info, err := os.Stat(p); err == nil && !info.IsDir() {
			return p, nil
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return path, err
		}
	}
	if _, err := os.Stat(path); err == nil && len(places) > 1 {
		return path, fmt.Errorf("it is a file of this host, and nobody knows whether etcd runs here: it is neither %s",
			strings.Join(places, " nor "))
	}
	return path, fs.ErrNotExist
}
