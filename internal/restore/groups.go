package restore

import (
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// Groups returns the folders that a restore to this host puts into place, as they are now,
// for each member. names are those of the members in OutputDir; without it they do not
// matter.
func (s *Site) Groups(names []string) ([]publish.Group, error) {
	mounts, err := disk.Mounts()
	if err != nil {
		return nil, err
	}
	dirs := []string{s.dataDir()}
	if s.OutputDir != "" {
		dirs = nil
		for _, name := range names {
			dirs = append(dirs, filepath.Join(s.OutputDir, name))
		}
	}
	w := &Work{}
	for _, dir := range dirs {
		t, err := newTarget(backup.Member{}, dir, s.WALDir, mounts)
		if err != nil {
			return nil, err
		}
		w.Targets = append(w.Targets, t)
	}
	return w.groups(), nil
}

// strays returns the entries that are moved aside and are not etcd's. There are few.
func (t Target) strays() []string {
	var out []string
	for _, f := range t.folders() {
		if foreign := f.foreign(); foreign != nil {
			out = append(out, foreign.Names()...)
		}
	}
	return out
}

// noteStrays says what is moved with the old data of a member, though it is not etcd's: a
// server may need it where it was.
func (t Target) noteStrays(w *Work) {
	if strays := t.strays(); len(strays) > 0 {
		w.notef("in %s there is what is not etcd's, and it is moved aside with the old data: %s",
			t.DataDir, strings.Join(strays, ", "))
	}
}
