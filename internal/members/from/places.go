package from

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// Located is one member that the files describe.
type Located struct {
	*settings.Host
	// Place is how the member is started, and where its data is. It has no data directory if
	// that is in a volume, or if the files do not say it: Unknown has the line and why then.
	Place   restore.Place
	Unknown string
}

// locate resolves all members. Those of hosts resolved before have no places.
func (f *Found) locate(all []members.Start, hosts []*settings.Host, read members.ReadOptions) error {
	var names []string
	for _, h := range hosts {
		names = append(names, h.Name.Text)
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		i, err := pick(hosts, names, name)
		if err != nil {
			return err
		}
		h, err := settings.Resolve(all[i], settings.Options{ReadOptions: read})
		switch at := (*members.FileError)(nil); {
		case err == nil:
			noteNeeds(h)
			l := Located{Host: h, Place: started(h)}
			l.Place.DataDir, l.Place.WALDir = h.DataDir.Text, h.WALDir.Text
			f.All = append(f.All, l)
		case errors.As(err, &at):
			l := Located{Host: hosts[i], Place: started(hosts[i])}
			if l.Place.Volume = volumeOf(hosts[i]); l.Place.Volume == nil {
				l.Unknown = at.Error()
			}
			f.All = append(f.All, l)
		default:
			return err
		}
	}
	return nil
}

// started is how a member is started.
func started(h *settings.Host) restore.Place {
	p := restore.Place{
		Member: h.Name.Text, Means: h.Means, Unit: h.Unit, Service: h.Service, Namespace: h.Namespace, File: h.Of.File,
	}
	switch {
	case h.User.Text != "":
		p.Owner = h.User.Text + ":" + h.Group.Text
		if h.Contained && h.Group.Text == "" {
			p.Owner += "0" // not that of the host's user of this number
		}
	case h.UserOfImage:
	case slices.Contains([]members.Means{
		members.Systemd, members.Supervisord, members.StaticPod, members.Container,
	}, h.Means):
		p.Owner = "0:0" // they run it so
	}
	return p
}

// volumeOf returns the volume that holds the data, and the WAL, of a container. It is nil if
// none does, or if they are in two.
func volumeOf(h *settings.Host) *members.Volume {
	if h.Means != members.Container && h.Means != members.StatefulSet {
		return nil
	}
	data, _ := h.Setting("data-dir")
	if data.Value == "" {
		data.Value = h.Name.Text + ".etcd"
	}
	v := &members.Volume{DataDir: inside(h, data.Value)}
	m := holder(h, v.DataDir)
	if m == nil || h.Means == members.StatefulSet && !m.Claim {
		return nil
	}
	v.Name, v.MountPath, v.Below = m.Volume, filepath.Clean(m.Inside.Text), m.Below
	wal, _ := h.Setting("wal-dir")
	if wal.Value == "" || inside(h, wal.Value) == filepath.Join(v.DataDir, "member", "wal") {
		return v
	}
	v.WALDir = inside(h, wal.Value)
	if holder(h, v.WALDir) != m {
		return nil
	}
	return v
}

// inside is a path as the process in the container sees it, or empty if that is not known.
func inside(h *settings.Host, path string) string {
	switch {
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	case filepath.IsAbs(h.Dir.Text):
		return filepath.Join(h.Dir.Text, path)
	}
	return ""
}

// holder returns the one mount of a named volume that holds a path, and nothing below it.
func holder(h *settings.Host, path string) (found *members.Mount) {
	for i, m := range h.Mounts {
		at := filepath.Clean(m.Inside.Text)
		switch {
		case path == "" || strings.HasPrefix(at, path+"/"):
			return nil
		case path != at && !strings.HasPrefix(path, strings.TrimSuffix(at, "/")+"/"):
		case found == nil || len(at) > len(filepath.Clean(found.Inside.Text)):
			found = &h.Mounts[i]
		}
	}
	if found == nil || found.Volume == "" || found.Volume == "tmpfs" || found.Host.Text != "" || found.ReadOnly {
		return nil
	}
	return found
}
