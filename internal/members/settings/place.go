package settings

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
)

// decidePlaces fills DataDir and WALDir.
func (h *Host) decidePlaces(o Options) error {
	var inside string
	if o.DataDir != "" {
		h.DataDir = members.Word{Text: filepath.Clean(o.DataDir), At: members.Position{File: "--data-dir"}}
	} else {
		s, ok := h.Setting("data-dir")
		if !ok || s.Value == "" {
			s = Setting{"data-dir", h.Name.Text + ".etcd", "etcd's default data directory", h.Name.At}
		}
		if err := checkText(s); err != nil {
			return err
		}
		path, err := h.ground().place(s.Spelled, s.Value, s.At)
		if err != nil {
			return err
		}
		inside = h.ground().absolute(s.Value)
		h.DataDir = members.Word{Text: path, At: s.At}
	}
	if err := h.ground().checkNoMountBelow(inside); err != nil {
		return err
	}
	return h.decideWAL(o)
}

func (h *Host) decideWAL(o Options) error {
	s, ok := h.Setting("wal-dir")
	if o.WALDir != "" {
		h.WALDir = members.Word{Text: filepath.Clean(o.WALDir), At: members.Position{File: "--wal-dir"}}
		return nil
	}
	if !ok || s.Value == "" {
		return nil
	}
	if err := checkText(s); err != nil {
		return err
	}
	path, err := h.ground().place(s.Spelled, s.Value, s.At)
	if err != nil {
		return err
	}
	if path == filepath.Join(h.DataDir.Text, "member", "wal") {
		return nil // where it is without the setting
	}
	if err := h.ground().checkNoMountBelow(h.ground().absolute(s.Value)); err != nil {
		return err
	}
	h.WALDir = members.Word{Text: path, At: s.At}
	return nil
}

// What etcd only reads may be in a mount that is read-only.
const theConfiguration, aFile = "the configuration file", "the file"

// ground is where the paths of a start are.
type ground struct{ *members.Start }

// absolute is the path as the process sees it, after place has accepted it.
func (g ground) absolute(text string) string {
	if filepath.IsAbs(text) {
		return filepath.Clean(text)
	}
	return filepath.Join(g.Dir.Text, text)
}

// place returns the absolute path on this host of a path that the process would be given.
func (g ground) place(what, text string, at members.Position) (string, error) {
	if strings.HasPrefix(text, "~") {
		return "", at.Errorf("%s %q: etcd does not replace the ~, and would make a folder of that name", what, text)
	}
	if !filepath.IsAbs(text) && !filepath.IsAbs(g.Dir.Text) {
		return "", backup.WithHint(
			at.Errorf("%s is %q, which depends on etcd's working directory, and nothing here says which that is", what,
				text),
			"give the file that starts etcd (a unit, a script) with --from as well, or the absolute path with %s",
			flagFor(what))
	}
	path := g.absolute(text)
	if path == "/" {
		return "", at.Errorf("%s is the root of all folders", what)
	}
	if !g.Contained {
		return path, nil
	}
	return g.outside(what, path, at)
}

func flagFor(what string) string {
	if strings.Contains(strings.ToLower(what), "wal") {
		return "--wal-dir"
	}
	return "--data-dir"
}

// outside maps a path of a container to the host.
func (g ground) outside(what, path string, at members.Position) (string, error) {
	var best *members.Mount
	var length int
	for i, m := range g.Mounts {
		inside := filepath.Clean(m.Inside.Text)
		if !disk.Within(path, inside) {
			continue
		}
		if best != nil && len(inside) == length {
			return "", m.Inside.At.Errorf("two mounts have the path %s in the container, here and at %s", inside,
				best.Inside.At)
		}
		if best == nil || len(inside) > length {
			best, length = &g.Mounts[i], len(inside)
		}
	}
	hint := "give the place on this host with " + flagFor(what)
	if best != nil && best.Volume != "" {
		hint = g.find(best, what, path)
	}
	switch {
	case best == nil:
		return "", backup.WithHint(at.Errorf("%s %s is a path in the container, and no mount holds it: it is gone with "+
			"the container", what, path), "%s", hint)
	case best.Host.Text == "":
		return "", backup.WithHint(best.Inside.At.Errorf("%s %s is in %s, and nothing here says where that is on this "+
			"host", what, path, volume(best.Volume)), "%s", hint)
	case !filepath.IsAbs(best.Host.Text):
		return "", best.Host.At.Errorf("%s %s is in %q on this host, which is not an absolute path", what, path,
			best.Host.Text)
	case best.ReadOnly && what != theConfiguration && what != aFile:
		return "", best.Inside.At.Errorf("%s %s is in a mount that is read-only", what, path)
	}
	rest, err := filepath.Rel(filepath.Clean(best.Inside.Text), path)
	if err != nil {
		return "", best.Inside.At.Errorf("%s %s: %v", what, path, err)
	}
	return filepath.Join(best.Host.Text, rest), nil
}

// find tells how the place of a volume is found.
func (g ground) find(m *members.Mount, what, path string) string {
	inside := filepath.Clean(m.Inside.Text)
	rest := strings.TrimPrefix(path, inside)
	switch {
	case g.Namespace != "" || g.Means == members.StatefulSet || g.Means == members.StaticPod:
		return fmt.Sprintf("run this in a pod that mounts the volume %s at %s, where it is found by itself; or give the "+
			"place on this host with %s", m.Volume, inside, flagFor(what))
	case m.Volume == "tmpfs":
		return "it is gone with the container: give another place on this host with " + flagFor(what)
	}
	return fmt.Sprintf(`docker knows the place of the volume: add %s="$(docker volume inspect -f '{{.Mountpoint}}' %s)%s"`,
		flagFor(what), m.Volume, rest)
}

func volume(name string) string {
	if name == "" {
		return "a volume without a name"
	}
	return fmt.Sprintf("the volume %q", name)
}

// checkNoMountBelow refuses a place that is in two pieces on the host.
func (g ground) checkNoMountBelow(inside string) error {
	if !g.Contained || inside == "" {
		return nil
	}
	for _, m := range g.Mounts {
		if path := filepath.Clean(m.Inside.Text); path != inside && disk.Within(path, inside) {
			return m.Inside.At.Errorf("a mount at %s is within the place %s: on this host it is in two pieces", path, inside)
		}
	}
	return nil
}

func (h *Host) ground() ground { return ground{&h.Start} }
