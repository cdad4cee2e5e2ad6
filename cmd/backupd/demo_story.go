package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/drill"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage/file"
)

// demoKeys is how many keys the demonstration writes.
const demoKeys = 5000

// demo loses a three-member cluster and brings it back.
type demo struct {
	w       io.Writer
	dir     string
	tool    string
	started time.Time
}

// run boots the members in d.dir, writes keys, takes a verified snapshot into a
// local repository, destroys all members, restores and boots them, and compares
// everything. It reports each step, and returns nil only if everything was
// equal.
func (d *demo) run(ctx context.Context) error {
	members, err := drill.Plan(filepath.Join(d.dir, "etcd"), 3)
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
	return d.compare(ctx, members, want)
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.w, "[%4.1fs] %s\n", time.Since(d.started).Seconds(), fmt.Sprintf(format, args...))
}

// backUp runs the cluster that will be lost, and returns its state at the
// snapshot's revision.
func (d *demo) backUp(ctx context.Context, members []drill.Member) (_ *drill.State, _ *backup.Manifest, err error) {
	d.say("starting a cluster of %d etcd members in %s", len(members), d.dir)
	c, err := drill.Boot(ctx, members, "demo")
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	d.say("writing %d keys, some of them with leases, some deleted again", demoKeys)
	if err := c.Fill(ctx, demoKeys); err != nil {
		return nil, nil, err
	}
	source, err := cluster.New(cluster.Config{Endpoints: c.Endpoints(), InsecureTransport: true})
	if err != nil {
		return nil, nil, err
	}
	defer source.Close()
	d.say("taking a snapshot into %s", d.repo())
	t := &snapshot.Taker{
		Source: source, Codec: codec.Options{Compress: codec.Zstd}, Hashes: compare.All, Tool: d.tool,
		Spool: spool.Folder{Dir: d.dir, MinFree: disk.ReserveOf(0)}, // no etcd that matters is near
	}
	in, err := d.makeRepo(ctx)
	if err != nil {
		return nil, nil, err
	}
	m, _, err := takeInto(ctx, t, in, nil)
	if err != nil {
		return nil, nil, err
	}
	if !m.Verified() {
		return nil, nil, backup.Corruptf("snapshot %s is %s: %s", m.ID, m.State(), append(m.Suspect, m.Unconfirmed...)[0])
	}
	d.say("snapshot %s: revision %d, %d keys, %s stored as %s, HashKV equal on %d members",
		m.ID, m.Revision, m.Keys, humanize.IBytes(uint64(m.Plain.Bytes)),
		humanize.IBytes(uint64(m.Stored.Bytes)), len(m.MemberHashes))
	want, err := c.Observe(ctx, m.Revision)
	return want, m, err
}

// makeRepo makes the repository.
func (d *demo) makeRepo(ctx context.Context) (*repository.Cluster, error) {
	s := file.New(d.repo())
	if err := s.MakeRoot(); err != nil {
		return nil, err
	}
	r, err := repository.Create(ctx, s)
	if err != nil {
		return nil, err
	}
	return r.Cluster("demo"), nil
}

func (d *demo) repo() string { return filepath.Join(d.dir, "repository") }

func (d *demo) restore(ctx context.Context, members []drill.Member, m *backup.Manifest) error {
	d.say("restoring all members from the repository")
	src := snapshot.NewSource(repository.At(file.New(d.repo()), "").Cluster(m.Cluster), m, nil)
	p, err := restore.NewPlan(src.About(), restore.Request{})
	if err != nil {
		return err
	}
	site := restore.Site{OutputDir: filepath.Dir(members[0].DataDir)}
	work, err := site.Check(ctx, p)
	if err != nil {
		return err
	}
	if err := work.Execute(ctx, src, restore.Options{}); err != nil {
		return err
	}
	d.say("restored as cluster %s with the fresh token %s", p.ClusterID, p.Token)
	return nil
}

// compare boots the restored members and compares them with want.
func (d *demo) compare(ctx context.Context, members []drill.Member, want *drill.State) (err error) {
	d.say("starting the restored members")
	c, err := drill.Boot(ctx, members, "demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	got, err := c.Observe(ctx, want.Revision)
	if err != nil {
		return err
	}
	if err := drill.Diff(want, got); err != nil {
		return fmt.Errorf("the restored cluster differs: %w", err)
	}
	d.say("HashKV %d on all %d members, before and after", got.Hashes[0].Hash, len(got.Hashes))
	d.say("all %d keys are equal: value, version, lease, create and mod revision", len(got.Keys))
	return nil
}
