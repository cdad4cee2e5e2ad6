package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/notify"
)

func checkDaemon(d *strict.Decoder, c *Config) {
	checkServer(d, "daemon.server", &c.Daemon.Server)
	var names []string
	for i := range c.Clusters {
		names = append(names, c.Clusters[i].Name)
	}
	for i := range c.Daemon.Notifications {
		if path := fmt.Sprintf("daemon.notifications[%d]", i); !d.Failed(path) {
			checkNotification(d, path, &c.Daemon.Notifications[i], names)
		}
	}
}

func checkServer(d *strict.Decoder, path string, s *Server) {
	both(d, path, "cert-file", "key-file")
	if d.Given(path+".client-ca-file") && !d.Given(path+".cert-file") {
		d.Add(path+".client-ca-file", "needs cert-file and key-file: there are no client certificates without TLS")
	}
	at := path + ".listen"
	if d.Failed(at) {
		return
	}
	if s.Listen == "off" {
		s.Listen = ""
		return
	}
	if err := checkHostPort(s.Listen); err != nil {
		d.Add(at, "%v: want an address such as 127.0.0.1:9387, or off", err)
		return
	}
	guarded := d.Given(path+".client-ca-file") || d.Given(path+".read-tokens-file") || d.Given(path+".operate-tokens-file")
	if !isLoopback(s.Listen) && (!d.Given(path+".cert-file") || !guarded) {
		d.Add(at, "other hosts can reach %s: that needs cert-file and key-file, "+
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

func checkNotification(d *strict.Decoder, path string, n *Notification, clusters []string) {
	var receivers []string
	for _, key := range []string{"webhook", "slack", "healthchecks", "command"} {
		if d.Given(path + "." + key) {
			receivers = append(receivers, key)
		}
	}
	switch {
	case len(receivers) == 0:
		d.Add(path, "has no receiver: give it webhook, slack, healthchecks or command")
	case len(receivers) > 1:
		d.Add(path, "has the receivers %s: make one notification of each", strings.Join(receivers, " and "))
	}
	unique(d, path+".clusters", n.Clusters)
	for i, name := range n.Clusters {
		if at := fmt.Sprintf("%s.clusters[%d]", path, i); d.Usable(at) && !slices.Contains(clusters, name) {
			d.Add(at, "there is no cluster %q%s", name, strict.Suggestion(name, clusters))
		}
	}
	unique(d, path+".on", n.On)
	if len(n.On) == 0 && !d.Given(path+".on") {
		n.On = slices.Clone(allKinds[:2])
		if n.Healthchecks != nil {
			n.On = slices.Clone(allKinds)
		}
	} else if d.Usable(path+".on") && len(n.On) == 0 {
		d.Add(path+".on", "must not be empty: remove the key to be notified of failure and recovery")
	}
	if n.Webhook != nil {
		checkReceiver(d, path+".webhook", n.Webhook.URL)
		// The URL does not matter: this checks only the template.
		_, err := notify.NewTarget(notify.Webhook{URL: "https://localhost", Template: n.Webhook.Template}, nil, nil)
		if err != nil && d.Usable(path+".webhook.template") {
			d.Add(path+".webhook.template", "%v", err)
		}
	}
	if n.Slack != nil {
		checkReceiver(d, path+".slack", n.Slack.URL)
	}
	if n.Healthchecks != nil {
		checkReceiver(d, path+".healthchecks", n.Healthchecks.URL)
	}
	if d.Usable(path+".command") && (len(n.Command) == 0 || n.Command[0] == "") {
		d.Add(path+".command", "names no program")
	}
}

// checkReceiver requires exactly one of url and url-file.
func checkReceiver(d *strict.Decoder, path string, url Secret) {
	inline, file := d.Given(path+".url"), d.Given(path+".url-file")
	switch {
	case d.Failed(path):
	case inline && file:
		d.Add(path, "has both url and url-file: give one")
	case !inline && !file:
		d.Add(path, "needs url or url-file")
	case d.Usable(path + ".url"):
		if err := checkURL(string(url), "https", "http"); err != nil {
			d.Add(path+".url", "%v", err)
		}
	}
}

// unique reports every element that a list holds twice.
func unique(d *strict.Decoder, path string, list []string) {
	for i, s := range list {
		if at := fmt.Sprintf("%s[%d]", path, i); slices.Contains(list[:i], s) && d.Usable(at) {
			d.Add(at, "%q is listed twice", s)
		}
	}
}
