package drill

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// State is everything a cluster holds at one revision.
type State struct {
	Revision backup.Revision
	// Hashes are the members' answers for HashKV at Revision.
	Hashes []backup.HashKV
	Keys   []*mvccpb.KeyValue
}

// pageKeys is how many keys are read at once.
const pageKeys = 2000

// Observe reads all keys at rev from the first member, and HashKV at rev from
// every member. rev 0 means now.
func (c *Cluster) Observe(ctx context.Context, rev backup.Revision) (*State, error) {
	s := &State{Revision: rev}
	from := "\x00"
	for {
		opts := []clientv3.OpOption{
			clientv3.WithRange("\x00"), clientv3.WithLimit(pageKeys), clientv3.WithRev(int64(s.Revision)),
		}
		resp, err := c.clients[0].Get(ctx, from, opts...)
		if err != nil {
			return nil, fmt.Errorf("read keys of member %s: %w", c.members[0].Name, err)
		}
		if s.Revision == 0 {
			s.Revision = backup.Revision(resp.Header.Revision)
		}
		s.Keys = append(s.Keys, resp.Kvs...)
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	for i, cl := range c.clients {
		resp, err := cl.HashKV(ctx, c.members[i].ClientURL, int64(s.Revision))
		if err != nil {
			return nil, fmt.Errorf("ask member %s for HashKV: %w", c.members[i].Name, err)
		}
		s.Hashes = append(s.Hashes, backup.HashKV{
			Hash: resp.Hash, Revision: s.Revision, CompactRevision: backup.Revision(resp.CompactRevision),
		})
	}
	return s, nil
}

// Diff returns the first difference between two states: in HashKV of any member,
// or in any field of any key. It returns nil if there is none.
func Diff(want, got *State) error {
	for i, h := range slices.Concat(want.Hashes, got.Hashes) {
		if h != want.Hashes[0] {
			return backup.Corruptf("HashKV %+v differs from %+v (answer %d)", h, want.Hashes[0], i+1)
		}
	}
	if len(want.Keys) != len(got.Keys) {
		return backup.Corruptf("%d keys, want %d", len(got.Keys), len(want.Keys))
	}
	for i, kv := range want.Keys {
		if !proto.Equal(kv, got.Keys[i]) {
			return backup.Corruptf("key %q differs: %v, want %v", kv.Key, got.Keys[i], kv)
		}
	}
	return nil
}
