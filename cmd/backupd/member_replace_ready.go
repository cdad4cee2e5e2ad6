package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// checkReady refuses to run a command that would start the new member with settings that begin a
// cluster of its own, or that never join. Without files it can only say so.
func checkReady(people io.Writer, host *settings.Host, command string, s replace.Settings) error {
	if command == "" || s.Name == "" {
		return nil
	}
	givesFlags := strings.Contains(command, "$@") || strings.Contains(command, "$*")
	if host == nil {
		if !givesFlags {
			fmt.Fprintf(people, "BEWARE: the command of --exec starts %s with its own settings, which nobody has checked "+
				"(--from FILE does). They must be these, or it begins a cluster of its own:\n%s", s.Name, anyForm(s))
		}
		return nil
	}
	var wrong []string
	state := unreadyState(host)
	for _, w := range []string{state, unreadyList(host, s)} {
		if w != "" {
			wrong = append(wrong, w)
		}
	}
	if len(wrong) == 0 || givesFlags && !fromYAML(host) {
		return nil
	}
	what := "it would never join the cluster"
	if state != "" {
		what = "it would begin a cluster of its own"
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"--exec would start member %s as its settings are: %s, so %s", s.Name,
		secret.ShowText(strings.Join(wrong, "; ")), what)},
		"set initial-cluster-state to existing, and initial-cluster to %s; then run the same command again. Or leave --exec "+
			"away, and start the member yourself when this asks for it", secret.ShowText(s.InitialCluster))
}

// unreadyState says where the state of the initial cluster is not existing; etcd's default is new.
func unreadyState(h *settings.Host) string {
	state, ok := h.Setting("initial-cluster-state")
	switch {
	case !ok || state.Value == "":
		return h.Of.String() + ": initial-cluster-state is not set, which means new"
	case state.Value != "existing":
		return fmt.Sprintf("%s: %s %s", state.At, state.Spelled, state.Value)
	}
	return ""
}

// unreadyList says where the list of members is not the present one. Names in it do not count for
// etcd, but for the member's own. A list that is found by discovery is not known here.
func unreadyList(h *settings.Host, s replace.Settings) string {
	for _, name := range []string{"discovery", "discovery-srv", "discovery-endpoints"} {
		if d, ok := h.Setting(name); ok && d.Value != "" {
			return ""
		}
	}
	list, ok := h.Setting("initial-cluster")
	if !ok || list.Value == "" {
		return h.Of.String() + ": initial-cluster is not set"
	}
	want, err := members.Parse(s.InitialCluster)
	if err != nil || sameMembers(h.InitialCluster, want, s.Name) {
		return ""
	}
	return fmt.Sprintf("%s: %s is %s, which are not the present members", list.At, list.Spelled, list.Value)
}

func sameMembers(have, want []backup.Member, own string) bool {
	return len(have) == len(want) && !slices.ContainsFunc(want, func(m backup.Member) bool {
		return !slices.ContainsFunc(have, func(h backup.Member) bool {
			return members.SameURLs(h.PeerURLs, m.PeerURLs) && (m.Name != own || h.Name == own)
		})
	})
}

// fromYAML reports whether etcd takes its settings from its own configuration file: flags and
// variables are nothing to it then.
func fromYAML(h *settings.Host) bool { return hasForm(h, yamlForm) }
