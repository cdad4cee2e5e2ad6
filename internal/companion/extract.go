package companion

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Extract writes the files below dir, each at its path there, with its permissions. dir is made, or
// is empty: else the error is a [*backup.RefusedError]. Links are made last, so that nothing is
// written through one. After an error all that was made is removed, and nothing else.
func (c *Content) Extract(dir string) (err error) {
	made, err := prepare(dir)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	w := &writer{root: root}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.undo())
			if made {
				err = errors.Join(err, unlessUsed(os.Remove(dir)))
			}
		}
		err = errors.Join(err, root.Close())
	}()
	for i, f := range c.About.Files {
		if f.Link == "" {
			if err := w.place(f, c.raw[i]); err != nil {
				return fmt.Errorf("write %s: %w", filepath.Join(dir, f.Path), err)
			}
		}
	}
	for _, f := range c.About.Files {
		if f.Link != "" {
			if err := w.link(f); err != nil {
				return fmt.Errorf("make the link %s: %w", filepath.Join(dir, f.Path), err)
			}
		}
	}
	return nil
}

// prepare makes the folder, and reports whether it did.
func prepare(dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) { // it is no snapshot that is not found
		above := filepath.Dir(dir)
		return false, backup.WithHint(fmt.Errorf("make %s: there is no folder %s", dir, above), "make it first: %s", above)
	}
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	inside, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	if len(inside) > 0 {
		return false, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s is not empty: it holds %s", dir, strconv.Quote(inside[0].Name()))},
			"name a new folder: the files are compared with yours there, and put into their places by hand")
	}
	return false, nil
}

// writer remembers what it has made in a folder.
type writer struct {
	root *os.Root
	made []string
}

// undo removes what was made. Somebody else may have put files into a folder that was made: it
// stays then.
func (w *writer) undo() (err error) {
	for _, name := range slices.Backward(w.made) {
		err = errors.Join(err, unlessUsed(w.root.Remove(name)))
	}
	return err
}

func unlessUsed(err error) error {
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// folders makes the folders above a name.
func (w *writer) folders(name string) error {
	above := filepath.Dir(name)
	if above == "." {
		return nil
	}
	if err := w.folders(above); err != nil {
		return err
	}
	switch err := w.root.Mkdir(above, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	w.made = append(w.made, above)
	return nil
}

func (w *writer) link(f backup.CompanionFile) error {
	name := nameOf(f.Path)
	if err := w.folders(name); err != nil {
		return err
	}
	if err := w.root.Symlink(f.Link, name); err != nil {
		return err
	}
	w.made = append(w.made, name)
	return nil
}

func (w *writer) place(f backup.CompanionFile, raw []byte) (err error) {
	name := nameOf(f.Path)
	if !filepath.IsLocal(name) || strings.HasPrefix(name, "/") {
		return errors.New("the path leads out of the folder") // the manifest was checked
	}
	if err := w.folders(name); err != nil {
		return err
	}
	mode, err := strconv.ParseUint(f.Mode, 8, 32)
	if err != nil {
		return err
	}
	file, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	w.made = append(w.made, name)
	_, err = file.Write(raw)
	if err == nil {
		err = file.Chmod(fs.FileMode(mode) & fs.ModePerm)
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
