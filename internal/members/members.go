// Package members is who is in a cluster, and where: the members in the form of etcd's
// --initial-cluster, the ids that etcd derives from it, and the start of a server as the
// operator's own files describe it. Its subpackages read those files.
package members

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Parse parses etcd's --initial-cluster: name=URL pairs, separated by
// commas. A member with several URLs has several pairs. It returns the members
// sorted by name, without ids.
func Parse(s string) ([]backup.Member, error) {
	urls, err := types.NewURLsMap(s)
	if err != nil {
		return nil, fmt.Errorf("parse --initial-cluster %q: %w", s, err)
	}
	var out []backup.Member
	owner := map[string]string{}
	for name, list := range urls {
		if name == "" {
			return nil, fmt.Errorf("parse --initial-cluster %q: a member has no name", s)
		}
		for _, u := range Canonical(list) {
			if other, ok := owner[u]; ok {
				return nil, fmt.Errorf("parse --initial-cluster %q: %s is given for both %s and %s", s, u, other, name)
			}
			owner[u] = name
		}
		out = append(out, backup.Member{Name: name, PeerURLs: list.StringSlice()})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("parse --initial-cluster: it is empty")
	}
	slices.SortFunc(out, byName)
	return out, nil
}

// Format is the inverse of [Parse].
func Format(members []backup.Member) string {
	var parts []string
	for _, m := range members {
		for _, u := range m.PeerURLs {
			parts = append(parts, m.Name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// Recorded returns the members of the cluster that the source came from.
// Learners and members that never started cannot be restored; left has a note on
// each.
func Recorded(recorded []backup.Member) (members []backup.Member, left []string, err error) {
	for _, m := range recorded {
		switch {
		case m.Learner:
			left = append(left, fmt.Sprintf("member %s (%s) was a learner: add it again after the restore", m.Name,
				m.ID))
		case m.Name == "":
			left = append(left, fmt.Sprintf("member %s was added but never started: add it again after the restore",
				m.ID))
		case len(m.PeerURLs) == 0:
			return nil, nil, fmt.Errorf("the source records member %s without a peer URL: give --initial-cluster", m.Name)
		default:
			members = append(members, backup.Member{Name: m.Name, PeerURLs: m.PeerURLs})
		}
	}
	if len(members) == 0 {
		return nil, nil, fmt.Errorf("the source records no members: give --initial-cluster")
	}
	// The recorded list goes through the parser too, so that a restore reads it
	// as etcd would. A name that two members share, or one that cannot be
	// written in the flag, is read as something else.
	parsed, err := Parse(Format(members))
	if err != nil {
		return nil, nil, fmt.Errorf("members recorded in the source: %w", err)
	}
	if got, want := Names(parsed), Names(slices.SortedFunc(slices.Values(members), byName)); got != want {
		return nil, nil, fmt.Errorf(
			"the source records members whose names cannot be written in a list (%s): give --initial-cluster", want)
	}
	return parsed, left, nil
}

// Identify computes the ids that etcd derives from URLs and token.
func Identify(members []backup.Member, token string) (cluster backup.MemberID, err error) {
	urls, err := types.NewURLsMap(Format(members))
	if err != nil {
		return 0, err
	}
	cl, err := membership.NewClusterFromURLsMap(zap.NewNop(), token, urls)
	if err != nil {
		return 0, fmt.Errorf("compute member ids: %w", err)
	}
	for i := range members {
		m := cl.MemberByName(members[i].Name)
		members[i].ID = backup.MemberID(m.ID)
	}
	return backup.MemberID(cl.ID()), nil
}

func byName(a, b backup.Member) int { return strings.Compare(a.Name, b.Name) }

// Names lists the names of members for people.
func Names(members []backup.Member) string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return strings.Join(out, ", ")
}

// CheckLoopback refuses a list in which some members have addresses of the host itself,
// and others have not: for those the first ones cannot be reached. If all have, the cluster
// is on one host.
func CheckLoopback(members []backup.Member) error {
	var local []string
	for _, m := range members {
		if slices.ContainsFunc(m.PeerURLs, isLoopback) {
			local = append(local, m.Name)
		}
	}
	if len(local) == 0 || len(local) == len(members) {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{
		Reason: fmt.Sprintf("%s of %d members has a peer URL of localhost, where the others cannot reach it",
			strings.Join(local, ", "), len(members)),
		Override: "--allow-localhost",
	}, "give --initial-cluster with the addresses that the members have for one another; --allow-localhost restores "+
		"it all the same")
}

func isLoopback(peerURL string) bool {
	u, err := url.Parse(peerURL)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip.IsLoopback()
}

// Shared returns those of members that have the id of one of others.
func Shared(members, others []backup.Member) []backup.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m backup.Member) bool {
		return !slices.ContainsFunc(others, func(o backup.Member) bool { return o.ID == m.ID })
	})
}
