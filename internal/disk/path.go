package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Within reports whether one absolute path is the other, or below it.
func Within(inner, outer string) bool {
	rel, err := filepath.Rel(outer, inner)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// Holds reports whether the file or folder inner is outer or lies below it, by whatever
// names: through links, and by a bind mount of a part of it. Either need not exist yet.
func Holds(outer, inner string) (bool, error) {
	from, missing, err := nearest(outer)
	if err != nil {
		return false, err
	}
	at, below, err := nearest(inner)
	if err != nil {
		return false, err
	}
	folder, err := os.Stat(from)
	if err != nil {
		return false, err
	}
	above := []string{at}
	if missing == "" {
		above, err = Up(at)
	} else if below == "" || !Within(below, missing) {
		return false, nil // what exists does not lie in a folder that does not
	}
	for _, dir := range above {
		if info, err := os.Stat(dir); err == nil && os.SameFile(folder, info) {
			return true, nil
		}
	}
	return false, err
}

// Up returns path and all folders above it, without links, and under every other name
// that a bind mount gives them. If path does not exist, it begins with the nearest folder
// that does.
func Up(path string) ([]string, error) {
	at, _, err := nearest(path)
	if err != nil {
		return nil, err
	}
	mounts, err := Mounts()
	if err != nil {
		return nil, err
	}
	out := []string{at}
	for i := 0; i < len(out); i++ {
		for _, dir := range append(aliases(out[i], mounts), filepath.Dir(out[i])) {
			if !slices.Contains(out, dir) {
				out = append(out, dir)
			}
		}
	}
	return out, nil
}

// nearest returns path, or the nearest folder above it that exists, without links. The
// rest of path is an absolute path, or empty.
func nearest(path string) (at, rest string, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	for d := abs; ; d = filepath.Dir(d) {
		real, err := filepath.EvalSymlinks(d)
		if err == nil {
			if rest = strings.TrimPrefix(abs, d); rest != "" {
				rest = filepath.Join("/", rest)
			}
			return real, rest, nil
		}
		missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
		if !missing || d == filepath.Dir(d) {
			return "", "", fmt.Errorf("look at %s: %w", abs, err)
		}
	}
}

// aliases returns the other names that mounts give to a folder.
func aliases(path string, mounts []Mount) []string {
	var in *Mount
	for i, m := range mounts {
		if Within(path, m.Point) && (in == nil || len(m.Point) >= len(in.Point)) {
			in = &mounts[i]
		}
	}
	here, err := os.Stat(path)
	if in == nil || err != nil {
		return nil
	}
	inside := filepath.Join(in.Root, strings.TrimPrefix(path, in.Point))
	var out []string
	for _, m := range mounts {
		if m.Device != in.Device || !Within(inside, m.Root) {
			continue
		}
		other := filepath.Join(m.Point, strings.TrimPrefix(inside, m.Root))
		// Another mount may hide it.
		if info, err := os.Stat(other); err == nil && os.SameFile(here, info) && other != path {
			out = append(out, other)
		}
	}
	return out
}
