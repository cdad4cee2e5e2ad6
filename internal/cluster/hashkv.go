package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// catchUp is how long a lagging member may take to reach the requested revision.
const catchUp = 10 * time.Second

// hashTimeout bounds one HashKV: the server scans its whole key bucket.
const hashTimeout = 5 * time.Minute

// ErrCompacted is returned if the requested revision is already compacted.
var ErrCompacted = errors.New("the revision is compacted")

// HashKV asks the member behind endpoint for its hash of the keys at rev. A
// member that is behind gets some seconds to catch up. It costs the member a
// scan of its key bucket.
func (c *Cluster) HashKV(ctx context.Context, endpoint string, rev backup.Revision) (backup.HashKV, error) {
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	var resp *pb.HashKVResponse
	err := c.conns.do(ctx, endpoint, func(cl *clientv3.Client) (err error) {
		resp, err = hashKV(ctx, pb.NewMaintenanceClient(cl.ActiveConnection()), rev)
		return err
	})
	if err != nil {
		return backup.HashKV{}, fmt.Errorf("ask %s for HashKV at %d: %w", endpoint, rev, err)
	}
	return backup.HashKV{Hash: resp.Hash, Revision: rev, CompactRevision: backup.Revision(resp.CompactRevision)}, nil
}

// hashKV asks until the member has reached the revision.
func hashKV(ctx context.Context, remote pb.MaintenanceClient, rev backup.Revision) (*pb.HashKVResponse, error) {
	for end := time.Now().Add(catchUp); ; {
		resp, err := remote.HashKV(ctx, &pb.HashKVRequest{Revision: int64(rev)})
		switch etcd := rpctypes.Error(err); {
		case err == nil:
			return resp, nil
		case errors.Is(etcd, rpctypes.ErrCompacted):
			return nil, ErrCompacted
		case !errors.Is(etcd, rpctypes.ErrFutureRev) || time.Now().After(end):
			return nil, explain(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Identify asks the member behind endpoint for its id. With it the caller checks a
// client URL that a member advertises before it trusts the URL.
func (c *Cluster) Identify(ctx context.Context, endpoint string) (backup.MemberID, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	st, err := c.surveyor.status(ctx, endpoint)
	if err != nil {
		return 0, fmt.Errorf("ask %s for its status: %w", endpoint, err)
	}
	return backup.MemberID(st.Header.GetMemberId()), nil
}
