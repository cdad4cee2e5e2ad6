package confirm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/members"
)

// present finds the members of the plan among the answers, and who else answers.
func (r *round) present(ctx context.Context, seen []*answer) {
	var absent []backup.Member
	for _, m := range r.plan.Members {
		i := slices.IndexFunc(seen, func(a *answer) bool {
			return a.err == nil && a.clusterID == r.plan.ClusterID && a.memberID == m.ID && !a.proxied()
		})
		if i < 0 {
			absent = append(absent, m)
			continue
		}
		r.here = append(r.here, seen[i])
		r.ok(sectionMember, m.Name, "answers at %s: member %s, etcd %s, revision %d", seen[i].endpoint, m.ID,
			seen[i].version, seen[i].revision)
	}
	for _, a := range seen {
		switch planned := slices.ContainsFunc(r.plan.Members, func(m backup.Member) bool { return m.ID == a.memberID }); {
		case a.err != nil:
		case a.clusterID != r.plan.ClusterID:
			r.stranger(ctx, a)
		case a.proxied():
			r.fail(Incomplete, sectionMember, a.endpoint,
				"name the client URLs of the members themselves: --endpoints (ETCDCTL_ENDPOINTS)",
				"a proxy answers there: which member does is not known")
		case !planned:
			r.fail(Incomplete, sectionMember, a.endpoint, "", "member %s answers there, and the plan has no such member",
				a.memberID)
		}
	}
	for _, m := range absent { // behind the strangers that may be the reason
		r.absent(m, seen)
	}
}

// absent names a member that no endpoint has reached, and what was said where it may be.
func (r *round) absent(m backup.Member, seen []*answer) {
	urls := clientURLs(seen, r.plan.ClusterID, m.ID)
	var why, hint []string
	elsewhere := len(seen) > 0 // who answers at every endpoint is of another cluster
	for _, a := range seen {
		elsewhere = elsewhere && a.err == nil && a.clusterID != r.plan.ClusterID
		if a.err != nil {
			why = append(why, fmt.Sprintf("%s: %v", a.endpoint, a.err))
			hint = append(hint, hintOf(a.err))
		}
	}
	said := ""
	if len(urls) == 0 {
		said = "no member tells a client URL of it"
	}
	start := fmt.Sprintf("start it on its restored data, or name its client URL in --endpoints, if it runs "+
		"(its peer URLs: %s)", strings.Join(m.PeerURLs, ","))
	if r.plan.Source.AuthEnabled && loginFails(seen) {
		start = "start more than half of the members on their restored data, and ask again"
		said = sentence(said, "auth is enabled in the snapshot, and without a quorum nobody can log in: so a member that "+
			"runs tells nothing")
	}
	if elsewhere {
		start = "see first why another cluster answers at the endpoints: the wrong plan, or the wrong endpoints?"
	}
	r.fail(Incomplete, sectionMember, m.Name, sentence(append([]string{start}, slices.Compact(hint)...)...),
		"no endpoint reaches it: %s", sentence(append([]string{said}, why...)...))
}

// loginFails reports whether all endpoints that were asked were silent, or said that there is no
// quorum: etcd checks a password by one.
func loginFails(seen []*answer) bool {
	mute := false
	for _, a := range seen {
		if a.err == nil || errors.Is(a.err, cluster.ErrPermission) {
			return false
		}
		mute = mute || errors.Is(a.err, context.DeadlineExceeded) || strings.Contains(a.err.Error(), "etcdserver: ")
	}
	return mute
}

// stranger says which cluster it is that answers in place of the plan's.
func (r *round) stranger(ctx context.Context, a *answer) {
	text := fmt.Sprintf("a member of cluster %s answers there, and not of the plan's, %s", a.clusterID, r.plan.ClusterID)
	want, known := Expected(r.plan)
	old := members.Shared([]backup.Member{{ID: a.memberID}}, r.plan.Source.Members)
	switch {
	case known && r.holds(ctx, a, want):
		r.fail(OtherCluster, sectionMember, a.endpoint,
			fmt.Sprintf("look at the clusterID of the plans that were made: if one has %s, verify by that one, or restore all "+
				"members by one plan; etcdctl member list shows the ids of its members, too. If none has it, stop the member, "+
				"restore it again, with its WAL directory, and start it with the same --data-dir and --wal-dir", a.clusterID),
			"%s: it holds the plan's data, so either it was restored by another plan of this snapshot, or etcd did not find "+
				"the restored WAL and has made a new one from its own flags; then, with the old token, old members can join it, "+
				"and the others of the plan cannot", text)
	case len(old) > 0:
		r.fail(OtherCluster, sectionMember, a.endpoint, "stop it for good, if it is an old member; if it was restored, "+
			"its data or WAL directory is not where the restore has put it",
			"%s: it has the id of a member from before the restore, with other data than the plan's", text)
	default:
		r.fail(OtherCluster, sectionMember, a.endpoint, "compare --endpoints with the plan; if the member was restored, "+
			"it did not start on the restored data", "%s", text)
	}
}

// compareVoters compares the list of each member with the plan.
func (r *round) compareVoters() {
	alike := 0
	for _, a := range r.here {
		if a.membersErr != nil {
			r.fail(Incomplete, sectionCluster, "voters", hintOf(a.membersErr), "%s does not list its members: %v",
				r.name(a.memberID), a.membersErr)
			continue
		}
		wrong := wrongVoters(r.plan.Members, a.members)
		if len(wrong) == 0 {
			alike++
		}
		for _, what := range wrong {
			r.fail(Incomplete, sectionCluster, "voters", "", "by the list of %s, %s", r.name(a.memberID), what)
		}
	}
	if alike > 0 && alike == len(r.here) {
		r.ok(sectionCluster, "voters", "%s, as planned, by the list of each member that answers",
			members.Names(r.plan.Members))
	}
}

// wrongVoters says how a list of members differs from that of the plan.
func wrongVoters(planned, list []backup.Member) []string {
	var out []string
	for _, want := range planned {
		i := slices.IndexFunc(list, func(m backup.Member) bool { return m.ID == want.ID })
		if i < 0 {
			out = append(out, fmt.Sprintf("%s (member %s) is not in the cluster", want.Name, want.ID))
			continue
		}
		got := list[i]
		switch {
		case got.Learner:
			out = append(out, want.Name+" is a learner")
		case got.Name != want.Name:
			out = append(out, fmt.Sprintf("the name of %s (member %s) is %q", want.Name, want.ID, got.Name))
		case !slices.Equal(sorted(got.PeerURLs), sorted(want.PeerURLs)):
			out = append(out, fmt.Sprintf("the peer URLs of %s are %s, planned were %s", want.Name,
				strings.Join(got.PeerURLs, ","), strings.Join(want.PeerURLs, ",")))
		}
	}
	for _, got := range list {
		if slices.ContainsFunc(planned, func(m backup.Member) bool { return m.ID == got.ID }) {
			continue
		}
		role := "a voter"
		if got.Learner {
			role = "a learner"
		}
		out = append(out, fmt.Sprintf("there is %s that the plan does not have: %s (member %s, %s)", role,
			cmp.Or(got.Name, "not started yet"), got.ID, strings.Join(got.PeerURLs, ",")))
	}
	return out
}

func sorted(urls []string) []string { return slices.Sorted(slices.Values(urls)) }

// compareLeaders: all members follow one leader.
func (r *round) compareLeaders() {
	said := map[backup.MemberID][]string{}
	for _, a := range r.here {
		said[a.leader] = append(said[a.leader], r.name(a.memberID))
	}
	for leader, by := range said {
		switch {
		case leader == 0:
			r.fail(Incomplete, sectionCluster, "leader", "more than half of the voters must run, and reach each other",
				"%s: no leader is known", strings.Join(by, ", "))
		case len(said) > 1:
			r.fail(Incomplete, sectionCluster, "leader", "", "%s: %s leads; the others say otherwise",
				strings.Join(by, ", "), r.name(leader))
		default:
			r.ok(sectionCluster, "leader", "%s leads, by the word of %s", r.name(leader), strings.Join(by, ", "))
		}
	}
}

// compareAlarms: none is active.
func (r *round) compareAlarms() {
	var s cluster.Survey
	for _, a := range r.here {
		for _, alarm := range a.alarms {
			if !slices.Contains(s.Alarms, alarm) {
				s.Alarms = append(s.Alarms, alarm)
			}
		}
	}
	for _, alarm := range s.Alarms {
		hint := "the database of the old cluster was full: make room or raise the quota, then: etcdctl alarm disarm"
		if alarm.Type == "CORRUPT" {
			hint = "do not disarm it: restore from a snapshot that is older than the corruption"
		}
		r.fail(Incomplete, sectionCluster, "alarms", hint, "alarm %s of member %s is active", alarm.Type,
			r.name(alarm.MemberID))
	}
	if len(s.Alarms) == 0 && len(r.here) > 0 {
		r.ok(sectionCluster, "alarms", "none is active")
	}
}
