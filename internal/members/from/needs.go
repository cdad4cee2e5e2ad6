package from

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// checkNeeds refuses a place that is not what etcd finds there, because its start mounts something
// over it, or makes a link of it. A place that the operator gives is taken as it is.
func checkNeeds(h *settings.Host, o Options) error {
	mounts, err := disk.Mounts()
	if err != nil {
		return err
	}
	for _, p := range []struct{ flag, place, given string }{
		{"--data-dir", h.DataDir.Text, o.DataDir}, {"--wal-dir", h.WALDir.Text, o.WALDir},
	} {
		if p.given != "" || p.place == "" {
			continue
		}
		for _, n := range h.Needs {
			if concerns(n, p.place) && !isThere(n, mounts) {
				return lacking(n, p.flag, p.place)
			}
		}
	}
	return nil
}

func lacking(n members.Need, flag, place string) error {
	reason := fmt.Sprintf("%s: etcd is started with %s at %s, which is not there now: what is restored to %s would lie "+
		"beneath it, and etcd would begin an empty cluster", n.Path.At, n.What, n.Path.Text, place)
	hint := "make it first, as the start does"
	switch {
	case n.Path.Text == "":
		reason = fmt.Sprintf("%s: etcd is started with %s, and the place of that cannot be known from here: it may be over "+
			"%s", n.Path.At, n.What, place)
	case n.Link == "":
		hint = "mount it first"
	}
	return backup.WithHint(&backup.RefusedError{Reason: reason, Override: flag + "=" + place},
		"%s; if nothing is missing there, say so with %s=%s", hint, flag, place)
}

// noteNeeds tells what has to be on a member's own host.
func noteNeeds(h *settings.Host) {
	for _, n := range h.Needs {
		if concerns(n, h.DataDir.Text) || h.WALDir.Text != "" && concerns(n, h.WALDir.Text) {
			h.Notes = append(h.Notes, members.Note{At: n.Path.At, Text: strings.TrimSuffix(
				fmt.Sprintf("%s has to be there before the restore: %s", n.What, n.Path.Text), ": ")})
		}
	}
}

// concerns reports whether a need may hide, or move, what is at a place.
func concerns(n members.Need, place string) bool {
	at := n.Path.Text
	if at == "" || disk.Within(place, at) || disk.Within(resolved(place), resolved(at)) {
		return at != "/" || n.Link != ""
	}
	return disk.Within(at, place) || disk.Within(resolved(at), resolved(place))
}

// resolved is a path without links, as far as it exists.
func resolved(path string) string {
	there := disk.Existing(path)
	real, err := filepath.EvalSymlinks(there)
	if err != nil {
		return path
	}
	return filepath.Join(real, strings.TrimPrefix(path, there))
}

// isThere reports whether what is needed is there now.
func isThere(n members.Need, mounts []disk.Mount) bool {
	if n.Path.Text == "" {
		return false
	}
	if n.Link != "" {
		to, err := os.Readlink(n.Path.Text)
		return err == nil && to == n.Link
	}
	for at := resolved(n.Path.Text); at != "/"; at = filepath.Dir(at) {
		if slices.ContainsFunc(mounts, func(m disk.Mount) bool { return m.Point == at }) {
			return true
		}
		if !n.Above {
			return false
		}
	}
	return false
}
