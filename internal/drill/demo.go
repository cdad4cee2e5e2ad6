package drill

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/file"
)

// demoKeys is how many keys the demonstration writes.
const demoKeys = 5000

// Demo loses a three-member cluster and brings it back, in dir, telling w each
// step: it boots the members, writes keys, takes a verified snapshot into a
// local repository, destroys all members, restores and boots them, and compares
// everything. It returns nil only if everything was equal.
func Demo(ctx context.Context, w io.Writer, dir, tool string) error {
	d := &demo{w: w, dir: dir, tool: tool, started: time.Now()}
	members, err := Plan(filepath.Join(dir, "etcd"), 3)
	if err != nil {
		return err
	}
	want, m, err := d.backUp(ctx, members)
	if err != nil {
		return err
	}
	d.say("destroying all three members and their data")
	for _, mem := range members {
		if err := os.RemoveAll(mem.DataDir); err != nil {
			return fmt.Errorf("destroy member: %w", err)
		}
	}
	if err := d.restore(ctx, members, m); err != nil {
		return err
	}
	d.say("starting the restored members")
	c, err := Boot(ctx, members, "demo")
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := c.Observe(ctx, want.Revision)
	if err != nil {
		return err
	}
	if err := Diff(want, got); err != nil {
		return fmt.Errorf("the restored cluster differs: %w", err)
	}
	d.say("HashKV %d on all %d members, before and after", got.Hashes[0].Hash, len(got.Hashes))
	d.say("all %d keys are equal: value, version, lease, create and mod revision", len(got.Keys))
	return nil
}

type demo struct {
	w       io.Writer
	dir     string
	tool    string
	started time.Time
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.w, "[%4.1fs] %s\n", time.Since(d.started).Seconds(), fmt.Sprintf(format, args...))
}

// backUp runs the cluster that will be lost, and returns what it held at the
// snapshot's revision.
func (d *demo) backUp(ctx context.Context, members []Member) (_ *State, _ *backup.Manifest, err error) {
	d.say("starting a cluster of %d etcd members in %s", len(members), d.dir)
	c, err := Boot(ctx, members, "demo")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	d.say("writing %d keys, some of them with leases, some deleted again", demoKeys)
	if err := c.write(ctx, demoKeys); err != nil {
		return nil, nil, err
	}
	source, err := cluster.New(cluster.Config{Endpoints: c.Endpoints(), InsecureTransport: true})
	if err != nil {
		return nil, nil, err
	}
	defer source.Close()
	d.say("taking a snapshot into %s", d.repo())
	t := &snapshot.Taker{
		Source: source, Store: file.New(d.repo()), Cluster: "demo", Codec: codec.Options{Compress: codec.Zstd},
		Spool: d.dir, Tool: d.tool,
	}
	m, err := t.Take(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !m.Verified() {
		return nil, nil, backup.Corruptf("snapshot %s is suspect: %s", m.ID, m.Suspect[0])
	}
	d.say("snapshot %s: revision %d, %d keys, %s stored as %s, HashKV equal on %d members", m.ID, m.Revision, m.Keys,
		humanize.IBytes(uint64(m.Plain.Bytes)), humanize.IBytes(uint64(m.Stored.Bytes)), len(m.MemberHashes))
	want, err := c.Observe(ctx, m.Revision)
	return want, m, err
}

func (d *demo) repo() string { return filepath.Join(d.dir, "repository") }

func (d *demo) restore(ctx context.Context, members []Member, m *backup.Manifest) error {
	d.say("restoring all members from the repository")
	p, err := restore.NewPlan(ctx, restore.FromSnapshot(file.New(d.repo()), m, nil), restore.Request{OutputDir: filepath.Dir(members[0].DataDir)})
	if err != nil {
		return err
	}
	if err := p.Execute(ctx); err != nil {
		return err
	}
	d.say("restored as cluster %s with the fresh token %s", p.ClusterID, p.Token)
	return nil
}

// write makes a history with everything in it that a restore could get wrong:
// new versions, deletions, transactions, leases.
func (c *Cluster) write(ctx context.Context, keys int) error {
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
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("/demo/key-%06d", i), fmt.Sprintf("value %d of a demonstration", i), opts...))
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
