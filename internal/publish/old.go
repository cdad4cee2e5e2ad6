package publish

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// UndonePrefix is to restored data that an undo moves aside what [AsidePrefix] is to old
// data: another undo must not take it for the data that was there before the restore. It
// is not longer, so that there is room for it where there was room for the other.
const UndonePrefix = ".backupd-new-"

// Old is the old data that one restore has moved aside.
type Old struct {
	// Stamp is the end of the names of its folders: when it was moved.
	Stamp string
	// At is where it is, by the folder that it was in.
	At map[string]string
}

// Olds returns all old data of these folders that is still aside, the newest first. It
// changes nothing.
func Olds(dirs []string) ([]Old, error) {
	found := map[string]map[string]string{}
	for _, dir := range dirs {
		beside, err := asides(filepath.Dir(dir), filepath.Base(dir)+AsidePrefix)
		if err != nil {
			return nil, err
		}
		inside, err := asides(dir, AsidePrefix)
		if err != nil {
			return nil, err
		}
		for stamp, at := range inside {
			if beside[stamp] != "" {
				return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
					"both %s and %s may be the old data of %s", beside[stamp], at, dir)}, "move away the one that is not")
			}
		}
		maps.Copy(beside, inside)
		for stamp, at := range beside {
			if found[stamp] == nil {
				found[stamp] = map[string]string{}
			}
			found[stamp][dir] = at
		}
	}
	var out []Old
	for _, stamp := range slices.Backward(slices.Sorted(maps.Keys(found))) {
		out = append(out, Old{stamp, found[stamp]})
	}
	return out, nil
}

// Undone returns the end of the name of the newest restored data that an undo has moved aside
// from these folders, or "" if there is none.
func Undone(dirs []string) (stamp string, err error) {
	for _, dir := range dirs {
		beside, err := asides(filepath.Dir(dir), filepath.Base(dir)+UndonePrefix)
		if err != nil {
			return "", err
		}
		inside, err := asides(dir, UndonePrefix)
		if err != nil {
			return "", err
		}
		for name := range maps.Keys(beside) {
			stamp = max(stamp, name)
		}
		for name := range maps.Keys(inside) {
			stamp = max(stamp, name)
		}
	}
	return stamp, nil
}

// asides returns the folders in parent whose names begin so, by the rest of their names.
func asides(parent, prefix string) (map[string]string, error) {
	out := map[string]string{}
	entries, err := os.ReadDir(parent)
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("look for old data: %w", err)
	}
	for _, e := range entries {
		if stamp, is := strings.CutPrefix(e.Name(), prefix); is && e.IsDir() {
			out[stamp] = filepath.Join(parent, e.Name())
		}
	}
	return out, nil
}

// Undo makes f put back the old data at that path, and move aside what is in the folder
// now. An empty path puts nothing back. Nothing has to be built then.
func (f *Folder) Undo(at string) error {
	f.tree, f.undo = at, true
	if at == "" {
		return nil
	}
	inside := filepath.Dir(at) == f.Dir
	if f.Inside && !inside {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s cannot be replaced as a whole now, as it could when %s was moved aside", f.Dir, at)},
			"is it a mount point now, or is the folder above it not yours to write? Undo that, or move the data yourself")
	}
	f.Inside = inside
	return nil
}

// emptied removes the folder in which the old data was, if it is empty now.
func (m move) emptied(c changer) error {
	if dir := filepath.Dir(m.From); strings.HasPrefix(filepath.Base(dir), AsidePrefix) {
		return c.rmdir(dir)
	}
	return nil
}
