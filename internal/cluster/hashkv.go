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

// errMoved is returned if a member is not at the requested revision.
var errMoved = errors.New("the member is at another revision by now")

// Errors of [Cluster.HashKV].
var (
	ErrCompacted = errors.New("the revision is compacted")
	// ErrBehind says that the member did not reach the revision in time.
	ErrBehind = errors.New("the member has not reached the revision")
)

// HashKV asks a member for its hash of the keys at rev. A member that is behind gets
// some seconds to catch up. It costs the member a scan of its key bucket. The answer of
// another member at its endpoint is an error.
func (c *Cluster) HashKV(ctx context.Context, of Candidate, rev backup.Revision) (backup.HashKV, error) {
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	var resp *pb.HashKVResponse
	err := c.conns.do(ctx, of.Endpoint, func(cl *clientv3.Client) (err error) {
		resp, err = hashKV(ctx, pb.NewMaintenanceClient(cl.ActiveConnection()), rev)
		return err
	})
	if err == nil {
		err = sameMember(of.MemberID, resp.Header)
	}
	if err != nil {
		return backup.HashKV{}, fmt.Errorf("ask %s for HashKV at %d: %w", of.Endpoint, rev, err)
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
		case !errors.Is(etcd, rpctypes.ErrFutureRev):
			return nil, explain(err)
		case time.Now().After(end):
			return nil, ErrBehind
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// HashKVNow asks a member for its hash of the keys as they are now, and returns an error
// if it is not at rev. Asked for the revision of its last compaction, a member answers with
// a hash that it stored before: this question goes round that.
func (c *Cluster) HashKVNow(ctx context.Context, of Candidate, rev backup.Revision) (backup.HashKV, error) {
	ctx, cancel := context.WithTimeout(ctx, hashTimeout)
	defer cancel()
	var resp *pb.HashKVResponse
	st, err := c.surveyor.status(ctx, of.Endpoint)
	if err == nil && backup.Revision(st.Header.GetRevision()) != rev {
		err = errMoved
	}
	if err == nil {
		err = c.conns.do(ctx, of.Endpoint, func(cl *clientv3.Client) (err error) {
			resp, err = pb.NewMaintenanceClient(cl.ActiveConnection()).HashKV(ctx, &pb.HashKVRequest{})
			return explain(err)
		})
	}
	if err == nil {
		err = errors.Join(sameMember(of.MemberID, st.Header), sameMember(of.MemberID, resp.Header))
	}
	if err == nil {
		// etcd 3.5 does not say which revision it has hashed. If the member was at rev
		// before, and is afterwards, it is that one.
		hashed := resp.HashRevision
		if hashed == 0 {
			hashed = resp.Header.GetRevision()
		}
		if backup.Revision(hashed) != rev {
			err = errMoved
		}
	}
	if err != nil {
		return backup.HashKV{}, fmt.Errorf("ask %s for HashKV now, at %d: %w", of.Endpoint, rev, err)
	}
	return backup.HashKV{Hash: resp.Hash, Revision: rev, CompactRevision: backup.Revision(resp.CompactRevision)}, nil
}

// Identify asks the member behind endpoint who it is and how far. The result has no
// concerns, for the other members were not asked.
func (c *Cluster) Identify(ctx context.Context, endpoint string) (Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	st, err := c.surveyor.status(ctx, endpoint)
	if err != nil {
		return Candidate{}, fmt.Errorf("ask %s for its status: %w", endpoint, err)
	}
	return newCandidate(answer{endpoint: endpoint, status: st}), nil
}

// Probe asks the member behind endpoint what [Cluster.Identify] asks, and then for one
// serializable read. It returns how long the slower of both took. A member whose backend
// is locked, for HashKV or a defragmentation, answers the first and not the second. The
// error says that the member did not say who it is, or that another one answered, too.
//
// The endpoint may be a client URL that a member advertises. One that is less secure than
// the endpoints is not asked: that is an [*InsecureError].
func (c *Cluster) Probe(ctx context.Context, endpoint string) (Candidate, time.Duration, error) {
	if err := c.cfg.mayFollow(endpoint, c.Endpoints()); err != nil {
		return Candidate{}, 0, err
	}
	began := time.Now()
	is, err := c.Identify(ctx, endpoint)
	if err != nil {
		return Candidate{}, 0, err
	}
	took := time.Since(began)
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
	defer cancel()
	began = time.Now()
	var resp *pb.RangeResponse
	err = c.conns.do(ctx, endpoint, func(cl *clientv3.Client) (err error) {
		resp, err = pb.NewKVClient(cl.ActiveConnection()).Range(ctx,
			&pb.RangeRequest{Key: []byte{0}, CountOnly: true, Serializable: true})
		return explain(err)
	})
	took = max(took, time.Since(began))
	if err != nil { // a refusal is an answer, too: only the time counts
		return is, took, nil
	}
	return is, took, sameMember(is.MemberID, resp.Header)
}

// Do runs a request with the connection to one endpoint, which may be a client URL that a
// member advertises, as for [Cluster.Probe]. It is for requests that this package does not
// make, to members that come and go.
func (c *Cluster) Do(ctx context.Context, endpoint string, request func(*clientv3.Client) error) error {
	if err := c.cfg.mayFollow(endpoint, c.Endpoints()); err != nil {
		return err
	}
	return c.conns.do(ctx, endpoint, func(cl *clientv3.Client) error {
		err := explain(request(cl))
		if errors.As(err, new(*unreachableError)) {
			c.conns.forget(endpoint, cl) // see surveyor.status
		}
		return err
	})
}
