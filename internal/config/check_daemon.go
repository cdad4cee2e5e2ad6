package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/notify"
)

func checkDaemon(d *strict.Decoder, c *Config) {
	if at := "daemon.spool.min-free"; !d.Failed(at) {
		if _, err := disk.ParseReserve(c.Daemon.Spool.MinFree); err != nil {
			d.Add(at, "%v", err)
		}
	}
	var names []string
	for i := range c.Clusters {
		names = append(names, c.Clusters[i].Name)
	}
	checkServer(d, "daemon.server", &c.Daemon.Server, names)
	pinged := pings{}
	for i := range c.Daemon.Notifications {
		if path := fmt.Sprintf("daemon.notifications[%d]", i); !d.Failed(path) {
			checkNotification(d, path, &c.Daemon.Notifications[i], names)
			checkPing(d, path, &c.Daemon.Notifications[i], names, pinged)
		}
	}
}

func checkServer(d *strict.Decoder, path string, s *Server, clusters []string) {
	both(d, path, "cert-file", "key-file")
	checkCallers(d, path, s, clusters)
	if at := path + ".metrics-listen"; d.Usable(at) {
		if err := checkHostPort(s.MetricsListen); err != nil {
			d.Add(at, "%v: want an address such as 127.0.0.1:9388", err)
		} else if s.MetricsListen == s.Listen {
			d.Add(at, "is the same address as listen")
		}
	}
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
	guarded := d.Given(path+".read-tokens-file") || d.Given(path+".operate-tokens-file") || len(s.Callers) > 0
	if !isLoopback(s.Listen) && (!d.Given(path+".cert-file") || !guarded) {
		d.Add(at, "other hosts can reach %s: that needs cert-file and key-file, "+
			"and read-tokens-file, operate-tokens-file or callers", s.Listen)
	}
}

func checkCallers(d *strict.Decoder, path string, s *Server, clusters []string) {
	named := false
	for i, c := range s.Callers {
		at := fmt.Sprintf("%s.callers[%d]", path, i)
		certificate, tokens := d.Given(at+".certificate"), d.Given(at+".tokens-file")
		named = named || certificate
		switch {
		case d.Failed(at):
			continue
		case certificate && tokens:
			d.Add(at, "has both certificate and tokens-file: make one caller of each")
		case !certificate && !tokens:
			d.Add(at, "needs certificate or tokens-file")
		case certificate && !d.Given(path+".client-ca-file"):
			d.Add(at+".certificate", "needs client-ca-file: it says which certificates are genuine")
		}
		unique(d, at+".clusters", c.Clusters)
		checkClusters(d, at, c.Clusters, clusters)
		if d.Usable(at+".clusters") && len(c.Clusters) == 0 {
			d.Add(at+".clusters", "must not be empty: remove the key to allow all clusters")
		}
	}
	if d.Usable(path+".client-ca-file") && !named {
		d.Add(path+".client-ca-file", "nobody is known by a certificate: give callers with certificate: NAME")
	}
}

// checkClusters reports the clusters in the list of a section that there are not.
func checkClusters(d *strict.Decoder, path string, list, known []string) {
	for i, name := range list {
		if at := fmt.Sprintf("%s.clusters[%d]", path, i); d.Usable(at) && !slices.Contains(known, name) {
			d.Add(at, "there is no cluster %q%s", name, strict.Suggestion(name, known))
		}
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
	checkClusters(d, path, n.Clusters, clusters)
	unique(d, path+".on", n.On)
	if len(n.On) == 0 && !d.Given(path+".on") {
		for _, k := range notify.DefaultKinds(n.receiver()) {
			n.On = append(n.On, string(k))
		}
	} else if d.Usable(path+".on") && len(n.On) == 0 {
		d.Add(path+".on", "must not be empty: remove the key to be notified of everything that goes wrong")
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
		possible := notify.Kinds(n.receiver())
		for i, k := range n.On {
			if at := fmt.Sprintf("%s.on[%d]", path, i); d.Usable(at) && !slices.Contains(possible, notify.Kind(k)) {
				d.Add(at, "a ping URL stands for backups: it gets no %s", k)
			}
		}
	}
	if n.Command != nil {
		for _, name := range sortedKeys(n.Command.Env) {
			if err := notify.CheckVariable(name); err != nil {
				d.Add(path+".command.env."+name, "%v", err)
			}
		}
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
