package from

import (
	"fmt"
	"os"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/container"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// checkHere refuses a member that runs on another host. A data directory that the operator gives
// is one of this host.
func checkHere(h *settings.Host, hostname string, o Options) error {
	if o.DataDir != "" || o.Pod {
		return nil
	}
	elsewhere := ""
	if h.Node.Text != "" && !sameHost(h.Node.Text, hostname) {
		elsewhere = fmt.Sprintf("%s: the pod is bound to the node %s, and this host is %s", h.Node.At, h.Node.Text, hostname)
	}
	for _, name := range container.HostVariables {
		if h.Means == members.Container && container.Remote(os.Getenv(name)) {
			elsewhere = fmt.Sprintf("%s: with %s as it is set here, the container is started on another host", h.Of, name)
		}
	}
	if elsewhere == "" {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: elsewhere, Override: "--data-dir=" + h.DataDir.Text},
		"run this on that host; if it is this one, say so with --data-dir=%s", h.DataDir.Text)
}

// sameHost compares names of hosts, of which one may be without its domain.
func sameHost(a, b string) bool {
	first, domain, long := strings.Cut(strings.ToLower(a), ".")
	second, other, also := strings.Cut(strings.ToLower(b), ".")
	return first == second && (!long || !also || domain == other)
}
