package restore

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ParseMembers parses etcd's --initial-cluster: name=URL pairs, separated by
// commas. A member with several URLs has several pairs. It returns the members
// sorted by name, without ids.
func ParseMembers(s string) ([]backup.Member, error) {
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
		for _, u := range list.StringSlice() {
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

// FormatMembers is the inverse of [ParseMembers].
func FormatMembers(members []backup.Member) string {
	var parts []string
	for _, m := range members {
		for _, u := range m.PeerURLs {
			parts = append(parts, m.Name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}

// recordedMembers returns the members of the cluster that the source came from.
// Learners and members that never started cannot be restored; left has a note on
// each.
func recordedMembers(recorded []backup.Member) (members []backup.Member, left []string, err error) {
	for _, m := range recorded {
		switch {
		case m.Learner:
			left = append(left, fmt.Sprintf("member %s (%s) was a learner: add it again after the restore", m.Name,
				m.ID))
		case m.Name == "":
			left = append(left, fmt.Sprintf("member %s was added but never started: add it again after the restore",
				m.ID))
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
	parsed, err := ParseMembers(FormatMembers(members))
	if err != nil {
		return nil, nil, fmt.Errorf("members recorded in the source: %w", err)
	}
	if got, want := names(parsed), names(slices.SortedFunc(slices.Values(members), byName)); got != want {
		return nil, nil, fmt.Errorf(
			"the source records members whose names cannot be written in a list (%s): give --initial-cluster", want)
	}
	return parsed, left, nil
}

// identify computes the ids that etcd derives from URLs and token.
func identify(members []backup.Member, token string) (cluster backup.MemberID, err error) {
	urls, err := types.NewURLsMap(FormatMembers(members))
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

func names(members []backup.Member) string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return strings.Join(out, ", ")
}
