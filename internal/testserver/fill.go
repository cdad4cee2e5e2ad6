package testserver

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// FillOptions say what [Fill] writes. The zero value is a history of 200 keys
// with values of 64 bytes, not compacted.
type FillOptions struct {
	Keys       int    // distinct keys that are created; default 200
	ValueBytes int    // length of each value; default 64
	Seed       uint64 // the same seed makes the same history
	Prefix     string // before every key; default "fill/"
	Compact    bool   // compact at about three quarters of the history
}

// Filled is the result of a [Fill].
type Filled struct {
	Revision  int64              // of the last write
	Compacted int64              // where it was compacted; 0 if it was not
	Leases    []clientv3.LeaseID // alive for hours, all with keys attached
}

// fillStep is how many keys are created before something happens to them. All
// of a step's keys may go into one transaction, which etcd limits to 128.
const fillStep = 16

// Fill writes a history with everything in it that a snapshot can hold: puts
// and overwrites, transactions of several changes, deletes and deletes of
// ranges, leases, and a compaction if asked for. The same options on two fresh
// clusters of any version give the same revisions and the same HashKV.
func Fill(t testing.TB, client *clientv3.Client, o FillOptions) Filled {
	t.Helper()
	if o.Keys == 0 {
		o.Keys = 200
	}
	if o.ValueBytes == 0 {
		o.ValueBytes = 64
	}
	if o.Prefix == "" {
		o.Prefix = "fill/"
	}
	f := &filler{
		ctx: t.Context(), client: client, o: o,
		rng: rand.New(rand.NewPCG(o.Seed, 1)),
	}
	for first := 0; first < o.Keys; first += fillStep {
		count := min(fillStep, o.Keys-first)
		must(t, "fill etcd", f.create(first, count))
		must(t, "fill etcd", f.change(first+count))
	}
	if o.Compact {
		f.done.Compacted = f.done.Revision * 3 / 4
		_, err := client.Compact(f.ctx, f.done.Compacted, clientv3.WithCompactPhysical())
		must(t, "compact etcd", err)
	}
	return f.done
}

type filler struct {
	ctx    context.Context
	client *clientv3.Client
	o      FillOptions
	rng    *rand.Rand
	done   Filled
}

func (f *filler) key(i int) string { return fmt.Sprintf("%s%08d", f.o.Prefix, i) }

// value draws bytes of which half are the same everywhere, so that they
// compress about as well as real ones.
func (f *filler) value() string {
	b := make([]byte, f.o.ValueBytes)
	for i := range b {
		b[i] = "abcdefgh"[i%8]
		if i%2 == 1 {
			b[i] = byte(f.rng.UintN(256))
		}
	}
	return string(b)
}

// create puts count new keys, in one transaction or one by one.
func (f *filler) create(first, count int) error {
	var ops []clientv3.Op
	for i := range count {
		ops = append(ops, clientv3.OpPut(f.key(first+i), f.value()))
	}
	if f.rng.UintN(4) > 0 {
		return f.commit(ops...)
	}
	for _, op := range ops {
		if err := f.commit(op); err != nil {
			return err
		}
	}
	return nil
}

// change does one of each kind of change to the keys created so far.
func (f *filler) change(created int) error {
	if err := f.commit(clientv3.OpPut(f.key(f.rng.IntN(created)), f.value())); err != nil {
		return err
	}
	if err := f.commit(clientv3.OpDelete(f.key(f.rng.IntN(created)))); err != nil {
		return err
	}
	// Ranges are kept short, so that most keys survive.
	from := f.rng.IntN(created)
	if err := f.commit(clientv3.OpDelete(f.key(from), clientv3.WithRange(f.key(from+3)))); err != nil {
		return err
	}
	if err := f.mixed(created); err != nil {
		return err
	}
	if len(f.done.Leases) < 5 || f.rng.UintN(8) == 0 {
		return f.lease(created)
	}
	return nil
}

// mixed commits a transaction of puts and deletes. Its keys are a consecutive
// run, because etcd refuses one that touches a key twice.
func (f *filler) mixed(created int) error {
	from, count := f.rng.IntN(created), 2+f.rng.IntN(6)
	var ops []clientv3.Op
	for i := from; i < min(from+count, created); i++ {
		if f.rng.UintN(3) == 0 {
			ops = append(ops, clientv3.OpDelete(f.key(i)))
		} else {
			ops = append(ops, clientv3.OpPut(f.key(i), f.value()))
		}
	}
	return f.commit(ops...)
}

// lease attaches two keys to a new lease. The id is drawn like everything
// else; etcd's own choice would differ from run to run, and ids are in HashKV.
func (f *filler) lease(created int) error {
	id := clientv3.LeaseID(f.rng.Int64N(1<<62) + 1)
	const day = 24 * 60 * 60
	req := &pb.LeaseGrantRequest{ID: int64(id), TTL: day}
	if _, err := clientv3.RetryLeaseClient(f.client).LeaseGrant(f.ctx, req); err != nil {
		return fmt.Errorf("grant lease: %w", err)
	}
	f.done.Leases = append(f.done.Leases, id)
	from := f.rng.IntN(created)
	return f.commit(
		clientv3.OpPut(f.key(from), f.value(), clientv3.WithLease(id)),
		clientv3.OpPut(f.key(from+1)+"/leased", f.value(), clientv3.WithLease(id)),
	)
}

func (f *filler) commit(ops ...clientv3.Op) error {
	resp, err := f.client.Txn(f.ctx).Then(ops...).Commit()
	if err != nil {
		return fmt.Errorf("commit %d changes after revision %d: %w", len(ops), f.done.Revision, err)
	}
	f.done.Revision = resp.Header.Revision
	return nil
}
