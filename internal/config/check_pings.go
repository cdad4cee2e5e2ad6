package config

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config/strict"
)

// ownPing is what to do about a ping URL of several clusters.
const ownPing = "give each cluster a notification of its own, with clusters: [NAME] and another URL"

// pings knows whose backups each ping URL stands for: it is green for as long as one of
// its clusters is backed up. The keys are URLs, which are secrets, or names of files
// with URLs.
type pings map[string]struct{ cluster, at string }

// claim returns why the ping URL at a place must not stand for a cluster, or "" if it
// may.
func (p pings) claim(key, cluster, at string) string {
	other, taken := p[key]
	if taken && other.cluster != cluster {
		return fmt.Sprintf("the clusters %s and %s have the same ping URL (the one in %s), which stays green while one "+
			"of them is backed up: %s", other.cluster, cluster, other.at, ownPing)
	}
	p[key] = struct{ cluster, at string }{cluster, at}
	return ""
}

// sameURL returns the form that a ping URL has in common with those that reach the same
// check.
func sameURL(raw string) string {
	raw = strings.TrimSpace(raw)
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	u.Host = strings.ToLower(u.Host)
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	return u.String()
}

// place returns the key that gives the URL.
func (h *Healthchecks) place(path string) string {
	if h.URLFile != "" {
		return path + ".healthchecks.url-file"
	}
	return path + ".healthchecks.url"
}

// of returns the clusters that n is about.
func (n *Notification) of(all []string) []string {
	if len(n.Clusters) > 0 {
		return n.Clusters
	}
	return all
}

// checkPing refuses a ping URL that stands for several clusters. What the files hold is
// compared by [Config.checkPings].
func checkPing(d *strict.Decoder, path string, n *Notification, all []string, pinged pings) {
	h := n.Healthchecks
	if h == nil || d.Failed(path+".clusters") || d.Reported(path+".healthchecks") {
		return
	}
	clusters := n.of(all)
	if len(clusters) > 1 {
		d.Add(path, "one ping URL of the clusters %s stays green while one of them is backed up: %s",
			strings.Join(clusters, ", "), ownPing)
		return
	}
	key := h.URLFile
	if key == "" {
		key = sameURL(string(h.URL))
	}
	for _, name := range clusters {
		if text := pinged.claim(key, name, h.place(path)); text != "" {
			d.Add(path+".healthchecks", "%s", text)
		}
	}
}

// checkPings refuses ping URLs that are the same, whether the configuration or a file
// holds them. A file that cannot be used has a problem of its own.
func (c *Config) checkPings(add func(path string, err error)) {
	var all []string
	for i := range c.Clusters {
		all = append(all, c.Clusters[i].Name)
	}
	pinged := pings{}
	for i := range c.Daemon.Notifications {
		n := &c.Daemon.Notifications[i]
		if n.Healthchecks == nil {
			continue
		}
		key, ok := n.Healthchecks.resolve()
		if !ok {
			continue
		}
		at := n.Healthchecks.place(fmt.Sprintf("daemon.notifications[%d]", i))
		for _, name := range n.of(all) {
			if text := pinged.claim(key, name, at); text != "" {
				add(at, errors.New(text))
			}
		}
	}
}

// resolve returns the URL in the form of [sameURL], or false if its file cannot be used.
func (h *Healthchecks) resolve() (string, bool) {
	if h.URLFile == "" {
		return sameURL(string(h.URL)), true
	}
	if checkPath("url-file", h.URLFile) != nil {
		return "", false
	}
	raw, err := readFile(h.URLFile, maxBytes)
	return sameURL(string(raw)), err == nil
}
