package confirm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// answer is what one endpoint says.
type answer struct {
	endpoint  string
	err       error // why it says nothing
	clusterID backup.MemberID
	memberID  backup.MemberID
	version   string
	revision  backup.Revision
	applied   uint64          // raft index
	leader    backup.MemberID // 0: none is known
	alarms    []backup.Alarm

	members    []backup.Member // by its own list
	membersErr error
}

// candidate is the member for requests of [cluster.Cluster].
func (a *answer) candidate() cluster.Candidate {
	return cluster.Candidate{Endpoint: a.endpoint, MemberID: a.memberID, Revision: a.revision, AppliedIndex: a.applied}
}

// proxied reports whether the answer may be another member's: its list does not hold
// the member that has answered, as that of etcd's grpc-proxy.
func (a *answer) proxied() bool {
	return a.membersErr == nil &&
		!slices.ContainsFunc(a.members, func(m backup.Member) bool { return m.ID == a.memberID })
}

// look asks the endpoints, and then the client URLs that the answers tell of the members of
// the plan that have not answered.
func (r *round) look(ctx context.Context) []*answer {
	seen := r.askAll(ctx, r.cluster.Endpoints())
	var more []string
	for _, m := range r.plan.Members {
		for _, u := range clientURLs(seen, r.plan.ClusterID, m.ID) {
			asked := slices.ContainsFunc(seen, func(a *answer) bool {
				return a.endpoint == u || a.err == nil && a.clusterID == r.plan.ClusterID && a.memberID == m.ID
			})
			if !asked && !slices.Contains(more, u) {
				more = append(more, u)
			}
		}
	}
	return append(seen, r.askAll(ctx, more)...)
}

// clientURLs are those of a member by the lists of the members of its cluster.
func clientURLs(seen []*answer, of, id backup.MemberID) []string {
	var out []string
	for _, a := range seen {
		if a.err != nil || a.clusterID != of || a.proxied() {
			continue
		}
		for _, m := range a.members {
			if m.ID == id {
				out = append(out, m.ClientURLs...)
			}
		}
	}
	return out
}

// asker asks single endpoints.
type asker struct {
	cluster *cluster.Cluster
	timeout time.Duration // of a request but HashKV
}

func (r *asker) askAll(ctx context.Context, endpoints []string) []*answer {
	out := make([]*answer, len(endpoints))
	var wg sync.WaitGroup
	for i, ep := range endpoints {
		wg.Go(func() { out[i] = r.ask(ctx, ep) })
	}
	wg.Wait()
	return out
}

func (r *asker) ask(ctx context.Context, endpoint string) *answer {
	a := &answer{endpoint: endpoint}
	a.err = r.request(ctx, endpoint, func(ctx context.Context, cl *clientv3.Client) error {
		st, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return err
		}
		a.clusterID, a.memberID = backup.MemberID(st.Header.GetClusterId()), backup.MemberID(st.Header.GetMemberId())
		a.version, a.revision = st.Version, backup.Revision(st.Header.GetRevision())
		a.leader, a.applied = backup.MemberID(st.Leader), st.RaftAppliedIndex
		var s cluster.Survey
		s.AddAlarms(st.Errors)
		a.alarms = s.Alarms
		return nil
	})
	if a.err != nil {
		return a
	}
	a.membersErr = r.request(ctx, endpoint, func(ctx context.Context, cl *clientv3.Client) error {
		// Not linearizable: each member tells its own list, also without a quorum.
		list, err := pb.NewClusterClient(cl.ActiveConnection()).MemberList(ctx, &pb.MemberListRequest{})
		if err != nil {
			return err
		}
		for _, m := range list.Members {
			a.members = append(a.members, backup.Member{ID: backup.MemberID(m.ID), Name: m.Name, Learner: m.IsLearner,
				PeerURLs: secret.Without(m.PeerURLs), ClientURLs: secret.Without(m.ClientURLs)})
		}
		return nil
	})
	return a
}

// request makes one request that must be quick.
func (r *asker) request(
	ctx context.Context, endpoint string, do func(context.Context, *clientv3.Client) error,
) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	return r.cluster.Do(ctx, endpoint, func(cl *clientv3.Client) error { return do(ctx, cl) })
}

// hintOf is the hint that an error carries, or "".
func hintOf(err error) string {
	var h *backup.HintError
	if errors.As(err, &h) {
		return h.Hint
	}
	return ""
}

// sentence joins what is not empty.
func sentence(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), "; ")
}
