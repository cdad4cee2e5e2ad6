package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/notify"
)

func checkDaemon(d *decoder, c *Config) {
	checkServer(d, "daemon.server", &c.Daemon.Server)
	var names []string
	for i := range c.Clusters {
		names = append(names, c.Clusters[i].Name)
	}
	for i := range c.Daemon.Notifications {
		if path := fmt.Sprintf("daemon.notifications[%d]", i); !d.at[path].failed {
			checkNotification(d, path, &c.Daemon.Notifications[i], names)
		}
	}
}

func checkServer(d *decoder, path string, s *Server) {
	both(d, path, "cert-file", "key-file")
	if d.given(path+".client-ca-file") && !d.given(path+".cert-file") {
		d.add(path+".client-ca-file", "needs cert-file and key-file: there are no client certificates without TLS")
	}
	at := path + ".listen"
	if d.at[at].failed {
		return
	}
	if s.Listen == "off" {
		s.Listen = ""
		return
	}
	if err := checkHostPort(s.Listen); err != nil {
		d.add(at, "%v: want an address such as 127.0.0.1:9387, or off", err)
		return
	}
	guarded := d.given(path+".client-ca-file") || d.given(path+".read-tokens-file") ||
		d.given(path+".operate-tokens-file")
	if !isLoopback(s.Listen) && (!d.given(path+".cert-file") || !guarded) {
		d.add(at, "other hosts can reach %s: that needs cert-file and key-file, "+
			"and read-tokens-file, operate-tokens-file or client-ca-file", s.Listen)
	}
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// allKinds of events, in the order of the tag of [Notification.On].
var allKinds = []string{"failure", "recovery", "success", "start"}

func checkNotification(d *decoder, path string, n *Notification, clusters []string) {
	var receivers []string
	for _, key := range []string{"webhook", "slack", "healthchecks", "command"} {
		if d.given(path + "." + key) {
			receivers = append(receivers, key)
		}
	}
	switch {
	case len(receivers) == 0:
		d.add(path, "has no receiver: give it webhook, slack, healthchecks or command")
	case len(receivers) > 1:
		d.add(path, "has the receivers %s: make one notification of each", strings.Join(receivers, " and "))
	}
	unique(d, path+".clusters", n.Clusters)
	for i, name := range n.Clusters {
		if at := fmt.Sprintf("%s.clusters[%d]", path, i); d.usable(at) && !slices.Contains(clusters, name) {
			d.add(at, "there is no cluster %q%s", name, suggestion(name, clusters))
		}
	}
	unique(d, path+".on", n.On)
	if len(n.On) == 0 && !d.given(path+".on") {
		n.On = slices.Clone(allKinds[:2])
		if n.Healthchecks != nil {
			n.On = slices.Clone(allKinds)
		}
	} else if d.usable(path+".on") && len(n.On) == 0 {
		d.add(path+".on", "must not be empty: remove the key to be notified of failure and recovery")
	}
	if n.Webhook != nil {
		checkReceiver(d, path+".webhook", n.Webhook.URL)
		// The URL does not matter: this checks only the template.
		_, err := notify.NewTarget(notify.Webhook{URL: "https://localhost", Template: n.Webhook.Template}, nil, nil)
		if err != nil && d.usable(path+".webhook.template") {
			d.add(path+".webhook.template", "%v", err)
		}
	}
	if n.Slack != nil {
		checkReceiver(d, path+".slack", n.Slack.URL)
	}
	if n.Healthchecks != nil {
		checkReceiver(d, path+".healthchecks", n.Healthchecks.URL)
	}
	if d.usable(path+".command") && (len(n.Command) == 0 || n.Command[0] == "") {
		d.add(path+".command", "names no program")
	}
}

// checkReceiver requires exactly one of url and url-file.
func checkReceiver(d *decoder, path string, url Secret) {
	inline, file := d.given(path+".url"), d.given(path+".url-file")
	switch {
	case d.at[path].failed:
	case inline && file:
		d.add(path, "has both url and url-file: give one")
	case !inline && !file:
		d.add(path, "needs url or url-file")
	case d.usable(path + ".url"):
		if err := checkURL(string(url), "https", "http"); err != nil {
			d.add(path+".url", "%v", err)
		}
	}
}

// unique reports every element that a list holds twice.
func unique(d *decoder, path string, list []string) {
	for i, s := range list {
		if at := fmt.Sprintf("%s[%d]", path, i); slices.Contains(list[:i], s) && d.usable(at) {
			d.add(at, "%q is listed twice", s)
		}
	}
}
