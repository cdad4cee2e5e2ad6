package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Committed asks the members of a survey, the best first, for one linearizable read,
// and returns how far the cluster has come by the word of a quorum: its index is the
// committed one, and everything up to it was applied when revision and term were read.
// The read counts no keys and changes nothing. The error says why no member could
// confirm anything: without a leader or a quorum none can, and a learner may not.
func (c *Cluster) Committed(ctx context.Context, s *Survey) (backup.Position, error) {
	var errs []error
	for _, member := range s.Candidates {
		at, err := c.committedBy(ctx, member.Endpoint)
		if err == nil {
			return at, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", member.Endpoint, err))
		if ctx.Err() != nil {
			break
		}
	}
	return backup.Position{}, errors.Join(errs...)
}

// Sound returns the survey with those candidates only that see a leader and that nothing
// speaks against.
func (s *Survey) Sound() *Survey {
	out := *s
	out.Candidates = slices.DeleteFunc(slices.Clone(s.Candidates), func(c Candidate) bool {
		return c.NoLeader || len(c.Concerns) > 0
	})
	return &out
}

func (c *Cluster) committedBy(ctx context.Context, endpoint string) (at backup.Position, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	err = c.conns.do(ctx, endpoint, func(cl *clientv3.Client) error {
		// The range holds one key that hardly exists: a count of many would cost a scan.
		_, err := pb.NewKVClient(cl.ActiveConnection()).Range(ctx, &pb.RangeRequest{Key: []byte{0}, CountOnly: true})
		return explain(err)
	})
	if err != nil {
		return backup.Position{}, fmt.Errorf("linearizable read: %w", err)
	}
	st, err := c.surveyor.status(ctx, endpoint)
	if err != nil {
		return backup.Position{}, fmt.Errorf("status after a linearizable read: %w", err)
	}
	return backup.Position{
		ClusterID: backup.MemberID(st.Header.GetClusterId()), Revision: backup.Revision(st.Header.GetRevision()),
		Index: st.RaftIndex, Term: st.RaftTerm,
	}, nil
}
