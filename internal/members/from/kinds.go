package from

import (
	"bytes"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/container"
	"github.com/etcd-backupd/backupd/internal/members/kube"
	"github.com/etcd-backupd/backupd/internal/members/script"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/members/unit"
)

// kind is a kind of file.
type kind struct {
	name string
	// shell is true if a text of another kind may look like one of this, because it has
	// commands in it.
	shell     bool
	recognize func(file string, raw []byte) bool
	read      func(file string, raw []byte, o members.ReadOptions) ([]members.Start, error)
}

// kinds are all that are known. A file is of the kind that recognises its content.
var kinds = []kind{
	{"etcd's YAML configuration", false, settings.Recognize, settings.Read},
	{"a systemd unit", false, unit.Recognize, unit.Read},
	{"an environment file", false, unit.RecognizeVariables, unit.ReadVariables},
	{"a compose file or a Dockerfile", false, container.Recognize, container.Read},
	{"a manifest of Kubernetes", false, kube.Recognize, kube.Read},
	{"a shell script, a docker run line or a program of supervisord", true, script.Recognize, script.Read},
}

// parse reads a file of whatever kind it is.
func parse(file string, raw []byte, o members.ReadOptions) ([]members.Start, error) {
	at := members.Position{File: file}
	var found []kind
	var all, names []string
	for _, k := range kinds {
		all = append(all, k.name)
		yields := k.shell && len(found) > 0 && !bytes.HasPrefix(raw, []byte("#!"))
		if !yields && k.recognize(file, raw) {
			found, names = append(found, k), append(names, k.name)
		}
	}
	switch len(found) {
	case 0:
		return nil, at.Errorf("nothing in it says how etcd is started: it is none of %s", strings.Join(all, "; "))
	case 1:
	default:
		return nil, at.Errorf("it can be read as %s: name another file that starts etcd", strings.Join(names, " and as "))
	}
	starts, err := found[0].read(file, raw, o)
	if err != nil {
		return nil, err
	}
	if len(starts) == 0 {
		return nil, at.Errorf("%s, and no etcd is started in it", found[0].name)
	}
	return starts, nil
}
