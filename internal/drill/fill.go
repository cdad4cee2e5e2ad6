package drill

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Fill writes that many keys, with a history of everything that a restore could
// get wrong: new versions, deletions, transactions, leases.
func (c *Cluster) Fill(ctx context.Context, keys int) error {
	cl := c.clients[0]
	lease, err := cl.Grant(ctx, 3600)
	if err != nil {
		return fmt.Errorf("grant lease: %w", err)
	}
	const perTxn = 100
	for n := 0; n < keys; n += perTxn {
		var ops []clientv3.Op
		for i := n; i < n+perTxn && i < keys; i++ {
			var opts []clientv3.OpOption
			if i%10 == 0 {
				opts = append(opts, clientv3.WithLease(lease.ID))
			}
			key, value := fmt.Sprintf("/demo/key-%06d", i), fmt.Sprintf("value %d of a demonstration", i)
			ops = append(ops, clientv3.OpPut(key, value, opts...))
		}
		if _, err := cl.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("write keys: %w", err)
		}
	}
	for i := 0; i < keys; i += 50 {
		if _, err := cl.Delete(ctx, fmt.Sprintf("/demo/key-%06d", i)); err != nil {
			return fmt.Errorf("delete key: %w", err)
		}
		if _, err := cl.Put(ctx, fmt.Sprintf("/demo/key-%06d", i+1), "a second version"); err != nil {
			return fmt.Errorf("write key: %w", err)
		}
	}
	return nil
}
