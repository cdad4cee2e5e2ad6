package container

import (
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// HostVariables say which host's containers docker and podman run.
var HostVariables = []string{"DOCKER_HOST", "CONTAINER_HOST"}

// Remote reports whether an address of docker is, or may be, another host.
func Remote(address string) bool {
	return address != "" && !strings.HasPrefix(address, "unix://") && !strings.HasPrefix(address, "/") &&
		!strings.HasPrefix(address, "fd://")
}

// elsewhere refuses a command whose container is on another host, by its options or its environment.
func elsewhere(options []members.Word, env []members.Variable) error {
	refuse := func(at members.Position, what string) error {
		return backup.WithHint(at.Errorf("%s: the container is on another host, or may be", what),
			"run this on that host, with a file that starts the container there")
	}
	for i := 0; i < len(options); i++ {
		w := options[i]
		name, value, given := strings.Cut(w.Text, "=")
		if short := strings.HasPrefix(w.Text, "-H") && len(w.Text) > 2; short {
			name, value, given = "-H", strings.TrimPrefix(w.Text[2:], "="), true
		}
		if !given && i+1 < len(options) {
			value = options[i+1].Text
		}
		switch name {
		case "-H", "--host", "--url", "-a", "--address":
			if Remote(value) {
				return refuse(w.At, name)
			}
		case "-c", "--context", "--connection":
			if value != "default" && value != "" {
				return refuse(w.At, name+" "+value)
			}
		case "-r", "--remote":
			return refuse(w.At, name)
		}
	}
	for _, v := range env {
		named := slices.Contains([]string{"DOCKER_CONTEXT", "CONTAINER_CONNECTION"}, v.Name) && v.Value.Text != "" &&
			v.Value.Text != "default"
		if slices.Contains(HostVariables, v.Name) && Remote(v.Value.Text) || named {
			return refuse(v.Value.At, v.Name)
		}
	}
	return nil
}
