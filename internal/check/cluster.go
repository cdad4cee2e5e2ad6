package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/release"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
)

// live is the state of a cluster that the checks of several things together need.
type live struct {
	id       backup.MemberID // of the cluster
	database int64           // bytes of the largest one
}

// clusterCheck checks one cluster.
type clusterCheck struct {
	conf   *config.Cluster
	client cluster.Config
	log    *slog.Logger
	now    time.Time
}

// run asks each endpoint of a cluster by itself, and then the cluster for a
// snapshot. It returns nil if no member answered.
func (c *clusterCheck) run(ctx context.Context) (*live, []backup.Finding) {
	conf := c.conf
	l := list{section: SectionCluster, subject: conf.Name}
	var err error
	c.client, err = conf.ClientConfig()
	if err != nil {
		l.fail("correct the cluster's password-file", "%v", err)
		return nil, l.findings
	}
	if c.client, err = c.client.Discover(); err != nil {
		l.fail(hintOf(err, "correct the cluster's discovery-srv"), "%v", err)
		return nil, l.findings
	}
	endpoints := slices.Clone(c.client.Endpoints)
	if conf.LocalEndpoint != "" && !slices.Contains(endpoints, conf.LocalEndpoint) {
		endpoints = append(endpoints, conf.LocalEndpoint)
	}
	members := make([]*member, len(endpoints))
	var wg sync.WaitGroup
	for i, ep := range endpoints {
		wg.Go(func() { members[i] = c.ask(ctx, ep) })
	}
	wg.Wait()

	var facts *live
	if answered := answering(members); len(answered) > 0 {
		facts = c.judge(ctx, &l, members, answered)
	} else {
		l.fail("see the endpoints below; 'etcdctl endpoint status' with the same settings should work",
			"no endpoint answers: no snapshot can be taken")
	}
	out := l.findings
	for _, m := range members {
		m.explainSilence(facts != nil)
		out = append(out, m.findings...)
	}
	return facts, out
}

func answering(members []*member) []*member {
	var out []*member
	for _, m := range members {
		if m.answered {
			out = append(out, m)
		}
	}
	return out
}

// explainSilence reports a member that does not answer. A backup needs only one
// of several.
func (m *member) explainSilence(othersAnswer bool) {
	if m.down == nil {
		return
	}
	const hint = "start the member, correct the endpoint, or let this host through to it"
	if othersAnswer {
		m.warn(hint, "no answer: %v; meanwhile snapshots are taken from other members", m.down)
	} else {
		m.fail(hintOf(m.down, hint), "no answer: %v", m.down)
	}
}

// judge checks the answers of a cluster's members together.
func (c *clusterCheck) judge(ctx context.Context, l *list, members, answered []*member) *live {
	facts := &live{id: answered[0].survey.ClusterID}
	for _, m := range answered {
		facts.database = max(facts.database, m.DatabaseBytes)
		if m.survey.ClusterID != facts.id {
			l.fail("correct endpoints: one of these belongs to another cluster, or to one that was restored",
				"%s is in cluster %s, and %s in cluster %s",
				answered[0].endpoint, facts.id, m.endpoint, m.survey.ClusterID)
			return facts
		}
	}
	l.ok("cluster %s: %d of %d endpoints answer", facts.id, len(answered), len(members))
	checkAlarms(l, answered)
	checkMembership(l, c.conf, members, answered)
	checkAgreement(l, answered)
	c.stream(ctx, l, answered)
	return facts
}

// checkAlarms reports the active alarms. Every member lists all of them.
func checkAlarms(l *list, answered []*member) {
	var seen []backup.Alarm
	for _, m := range answered {
		for _, a := range m.survey.Alarms {
			if slices.Contains(seen, a) {
				continue
			}
			seen = append(seen, a)
			who := "member " + a.MemberID.String()
			if a.MemberID == 0 {
				who = "no specific member"
			}
			hint := "compact, defragment, then etcdctl alarm disarm"
			text := "it refuses writes"
			if a.Type == "CORRUPT" {
				hint = "find the members that are right (etcdctl endpoint hashkv --cluster) and replace the others; " +
					"keep older snapshots"
				text = "its data differs from that of other members, and snapshots are marked suspect"
			}
			l.fail(hint, "alarm %s is active on %s: %s", a.Type, who, text)
		}
	}
}

// checkMembership compares the endpoints with the cluster's own list of members.
func checkMembership(l *list, conf *config.Cluster, members, answered []*member) {
	byID := map[backup.MemberID]string{}
	for _, m := range answered {
		if m.Proxy {
			continue // it reaches some member, now this one and now that
		}
		first, twice := byID[m.MemberID]
		if twice && m.endpoint != conf.LocalEndpoint {
			l.warn("name each member by an endpoint of its own, and not by a load balancer",
				"%s and %s are the same member: there is less choice than it seems", first, m.endpoint)
		} else if !twice {
			byID[m.MemberID] = m.endpoint
		}
	}
	list, err := membership(answered)
	if list == nil && !slices.ContainsFunc(answered, func(m *member) bool { return !m.Proxy }) {
		return // each has said so itself
	}
	if list == nil {
		l.warn(hintOf(err, ""), "the members of the cluster cannot be listed: %v", err)
		return
	}
	voters, down := 0, 0
	for _, known := range list {
		if !known.Learner {
			voters++
		}
		if !known.Learner && byID[known.ID] == "" && silent(members, known) {
			down++
		}
		if byID[known.ID] != "" || silent(members, known) {
			continue // explainSilence reports a silent one
		}
		l.warn("add its client URL to endpoints: the best member is chosen from them",
			"no configured endpoint reaches member %s", describe(known))
	}
	// A member takes a while to notice that it has lost its leader.
	if down > (voters-1)/2 && !slices.ContainsFunc(answered, func(m *member) bool { return m.NoLeader }) {
		l.fail("start them; a snapshot can be taken all the same",
			"%d of %d voting members do not answer: without a majority the cluster serves no writes", down, voters)
	}
	if voters == 1 {
		l.ok("it has one voting member: there is no other to compare it with, so only etcd's own checks find damage")
	}
	if c := answered[0].Candidate; voters == 1 && conf.Snapshot.Hashes() == compare.One && compare.LargeLeader(c) {
		l.warn("set snapshot.hash-check to all, and HashKV stops it in each slot; or to off, and unconfirmed ones count",
			"no snapshot will be verified: HashKV is not asked of a leader with more than %s in use, and it has %s",
			humanize.IBytes(compare.LeaderLimit), humanize.IBytes(uint64(c.InUseBytes)))
	}
}

// membership returns the list of members from the first one that has it, or the
// errors of all.
func membership(answered []*member) ([]backup.Member, error) {
	var errs []error
	for _, m := range answered {
		if len(m.survey.Members) > 0 {
			return m.survey.Members, nil
		}
		errs = append(errs, m.survey.MembersErr)
	}
	return nil, errors.Join(errs...)
}

// silent reports whether an endpoint that does not answer is known to belong to a
// member.
func silent(members []*member, known backup.Member) bool {
	return slices.ContainsFunc(members, func(m *member) bool {
		ours := func(u string) bool { return endpoint.Same(u, m.endpoint) }
		return !m.answered && slices.ContainsFunc(known.ClientURLs, ours)
	})
}

func describe(m backup.Member) string {
	name := m.Name
	if name == "" {
		name = "not started yet" // a member has no name only until then
	}
	return fmt.Sprintf("%s (%s, %s)", m.ID, name, strings.Join(m.ClientURLs, " "))
}

// checkAgreement compares the versions and the progress of the members.
func checkAgreement(l *list, answered []*member) {
	versions := map[string]bool{}
	newest := uint64(0)
	for _, m := range answered {
		if r, ok := release.Parse(m.Version); ok {
			versions[fmt.Sprintf("%d.%d", r.Major, r.Minor)] = true
		}
		newest = max(newest, m.AppliedIndex)
	}
	if len(versions) > 1 {
		l.warn("finish the upgrade", "the members have different versions of etcd")
	}
	for _, m := range answered {
		if lag := newest - m.AppliedIndex; lag > cluster.MaxLag {
			l.warn("look at the disk and the network of this member",
				"%s is %d raft entries behind the newest", m.endpoint, lag)
		}
	}
}

// stream takes the first bytes of a snapshot from the member that a backup
// would use. Nothing less proves that etcd allows it: no other request needs the
// same permission, changes nothing and costs as little. HashKV needs the same
// permission. One member is asked, since all have the same users.
func (c *clusterCheck) stream(ctx context.Context, l *list, answered []*member) {
	client := c.client
	client.Endpoints = nil
	for _, m := range answered {
		client.Endpoints = append(client.Endpoints, m.url)
	}
	client.Log = c.log
	cl, err := cluster.New(client)
	if err != nil {
		l.fail("", "%v", err)
		return
	}
	defer cl.Close()
	survey, err := cl.Survey(ctx)
	if err != nil {
		l.fail(hintOf(err, "run the check again"), "%v", err)
		return
	}
	from := survey.Candidates[0]
	stream, err := cl.Stream(ctx, from.Endpoint)
	switch {
	case errors.Is(err, cluster.ErrPermission):
		hint := fmt.Sprintf("etcdctl user grant-role %s root", c.conf.User)
		if c.conf.User == "" {
			hint = loginHint(c.conf, err)
		}
		l.fail(hint, "%v; snapshots and HashKV need etcd's role root", err)
	case err != nil:
		l.fail(hintOf(err, "look at the member's log"), "%v", err)
	default:
		total := stream.Total
		_ = stream.Close() // it only ends the stream
		l.ok("a snapshot may be taken: %s sent the first bytes of %s", from.Endpoint, disk.Size(total))
	}
}
