package defrag

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

// defragment makes the member behind endpoint rewrite its database file, and returns when
// that is done. Meanwhile the member answers neither reads nor writes, and it goes on even
// if its client leaves.
func defragment(ctx context.Context, c *cluster.Cluster, endpoint string) error {
	return c.Do(ctx, endpoint, func(cl *clientv3.Client) error {
		_, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Defragment(ctx, &pb.DefragmentRequest{})
		return err
	})
}

// Read asks the member behind endpoint for one serializable read, which needs its database
// and no other member. It reads no key and changes nothing.
func Read(ctx context.Context, c *cluster.Cluster, endpoint string) error {
	return c.Do(ctx, endpoint, func(cl *clientv3.Client) error {
		_, err := pb.NewKVClient(cl.ActiveConnection()).Range(ctx,
			&pb.RangeRequest{Key: []byte{0}, CountOnly: true, Serializable: true})
		return err
	})
}
