package settings

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// defaultPeerURL is what etcd advertises and listens on without a setting.
const defaultPeerURL = "http://localhost:2380"

// decidePeers fills PeerURLs.
func (h *Host) decidePeers() error {
	h.PeerURLs = []string{defaultPeerURL}
	s, ok := h.Setting("initial-advertise-peer-urls")
	if ok && s.Value != "" {
		if err := checkText(s); err != nil {
			return err
		}
		list, err := members.ParseURLs(s.Value)
		if err != nil {
			return s.At.Errorf("%s: %v", s.Spelled, err)
		}
		if err := checkLogin(s, list); err != nil {
			return err
		}
		h.PeerURLs, h.PeerURLsAt = list, s.At
	}
	// etcd replaces its default by the address of the host's default route if it listens
	// on all addresses.
	if !slices.Equal(h.PeerURLs, []string{defaultPeerURL}) {
		return nil
	}
	listen, ok := h.Setting("listen-peer-urls")
	if !ok || listen.Value == "" {
		return nil
	}
	list, err := members.ParseURLs(listen.Value)
	if err != nil {
		return listen.At.Errorf("%s: %v", listen.Spelled, err)
	}
	if err := checkLogin(listen, list); err != nil {
		return err
	}
	if u, err := url.Parse(list[0]); err == nil && u.Hostname() == "0.0.0.0" {
		h.PeerURLs, h.PeerURLsAt = nil, members.Position{}
		h.note(listen.At, "the peer URL is not given: etcd makes it of the host's address")
	}
	return nil
}

// checkLogin refuses URLs with a login: members of etcd have none, and the URLs are shown and stored.
func checkLogin(s Setting, urls []string) error {
	for _, text := range urls {
		if u, err := url.Parse(text); err != nil || u.User != nil || secret.Holds(text) {
			return s.At.Errorf("%s has a URL with a login, or what looks like one: members of etcd know none", s.Spelled)
		}
	}
	return nil
}

// decideCluster fills InitialCluster.
func (h *Host) decideCluster() error {
	s, ok := h.Setting("initial-cluster")
	if !ok || s.Value == "" {
		return nil
	}
	if s.Value == "default="+defaultPeerURL && h.Name.Text != "default" {
		return nil // etcd takes it for its own default, and replaces it
	}
	if err := checkText(s); err != nil {
		return err
	}
	parsed, err := members.Parse(s.Value)
	if err != nil {
		return s.At.Errorf("%v", err)
	}
	for _, m := range parsed {
		if err := checkLogin(s, m.PeerURLs); err != nil {
			return err
		}
	}
	h.InitialCluster, h.InitialClusterAt = parsed, s.At
	for _, m := range parsed {
		if m.Name != h.Name.Text {
			continue
		}
		if h.PeerURLs != nil && !slices.Equal(m.PeerURLs, h.PeerURLs) {
			h.note(s.At, fmt.Sprintf("%s has %s for %s, which advertises %s: etcd makes no new cluster of that", s.Spelled,
				strings.Join(m.PeerURLs, ","), m.Name, strings.Join(h.PeerURLs, ",")))
		}
		return nil
	}
	return s.At.Errorf("%s has the members %s, and not this one, whose name is %s (%s)", s.Spelled,
		members.Names(parsed), h.Name.Text, h.Name.At)
}

// checkBootstrap refuses two ways to find the other members, as etcd does.
func checkBootstrap(h *Host) error {
	var first Setting
	for _, name := range []string{"initial-cluster", "discovery", "discovery-srv", "discovery-endpoints"} {
		s, ok := h.Setting(name)
		if !ok || s.Value == "" {
			continue
		}
		if first.Name != "" {
			return s.At.Errorf("%s and %s at %s: etcd takes one of them only", s.Spelled, first.Spelled, first.At)
		}
		first = s
	}
	return nil
}
