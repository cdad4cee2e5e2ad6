package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	etcdsnapshot "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore/memberlog"
)

// Options configure how a restore is executed. The zero value is usable.
type Options struct {
	// EtcdLog is the logger for etcd's own restore code.
	EtcdLog  *zap.Logger
	Progress backup.Progress
	// InitialMmapBytes is how much address space is reserved for the database
	// at first. 0 means as much as it needs.
	InitialMmapBytes uint64
}

// Execute builds every target from src in its staging folder, and then puts all of
// them into place. After an error before that it leaves nothing behind.
func (w *Work) Execute(ctx context.Context, src Source, o Options) error {
	return w.execute(ctx, src, o, nil)
}

func (w *Work) execute(ctx context.Context, src Source, o Options, before publish.Hook) (err error) {
	if o.EtcdLog == nil {
		o.EtcdLog = zap.NewNop()
	}
	if o.Progress == nil {
		o.Progress = func(backup.Stage, int64, int64) {}
	}
	if err := w.checkSource(src.About()); err != nil {
		return err
	}
	shop, err := publish.Begin(w.groups(), before)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shop.Close()) }()
	if err := w.build(ctx, src, o); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	return w.publish(ctx, shop)
}

// publish puts everything built into place, unless a target has changed since it
// was checked.
func (w *Work) publish(ctx context.Context, shop *publish.Workshop) error {
	if err := recheck(ctx, w.folders()); err != nil {
		return err
	}
	p := w.Plan
	asked, err := newAsked(&w.site, p.Request, p.Source)
	if err != nil {
		return err
	}
	err = shop.Publish(p.Source.Name, note{Summary: w.Summary(), Asked: asked})
	w.asides, w.published = shop.Asides(), shop.Published()
	return err
}

// checkSource refuses a database other than the one that the plan was made for.
// The plan may have been read from a file.
func (w *Work) checkSource(got Origin) error {
	want := w.Plan.Source
	if got.Revision == want.Revision && got.Bytes == want.Bytes && got.SHA256 == want.SHA256 {
		return nil
	}
	return &backup.RefusedError{Reason: fmt.Sprintf(
		"the plan is for %s (revision %d, %d bytes, sha256 %s), and %s has revision %d, %d bytes and sha256 %s",
		want.Name, want.Revision, want.Bytes, want.SHA256, got.Name, got.Revision, got.Bytes, got.SHA256)}
}

func (w *Work) build(ctx context.Context, src Source, o Options) error {
	// etcd's own code makes the WAL, the snapshot file and the membership on a
	// tiny database; the real one is streamed into its place afterwards. So no
	// copy of gigabytes is made.
	// Each run adds all members, and says so: once is enough.
	for i, t := range w.Targets {
		if err := t.buildMember(w.Plan, memberlog.Filter(o.EtcdLog, i == 0)); err != nil {
			return fmt.Errorf("build member %s: %w", t.Member.Name, err)
		}
	}
	first := w.Targets[0]
	if err := fetch(ctx, src, first.database(), o.Progress); err != nil {
		return fmt.Errorf("restore %s: %w", first.Member.Name, err)
	}
	o.Progress(backup.StagePrepare, 0, 0)
	r := w.Plan.Request
	err := etcddb.Prepare(ctx, first.database(), etcddb.PrepareOptions{
		From: first.membership(), BumpRevision: r.BumpRevision, ClearAlarms: r.ClearAlarms,
		ClearNoSpace:     r.ClearNoSpace,
		InitialMmapBytes: o.InitialMmapBytes,
	})
	if err != nil {
		return err
	}
	// The database is the same for all members. Only in the WAL does a server
	// find which of them it is.
	for _, t := range w.Targets[1:] {
		progress := func(done int64) { o.Progress(backup.StageCopy, done, w.Plan.Source.Bytes) }
		if err := disk.Copy(ctx, first.database(), t.database(), progress); err != nil {
			return fmt.Errorf("copy database for %s: %w", t.Member.Name, err)
		}
	}
	o.Progress(backup.StageSync, 0, 0)
	for _, t := range w.Targets {
		for _, f := range t.folders() {
			owner := w.site.ownerOf(t, f)
			if err := disk.Seal(f.Tree(), owner.UID, owner.GID, disk.Sync); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t Target) database() string   { return filepath.Join(t.data.Tree(), "member", "snap", "db") }
func (t Target) membership() string { return filepath.Join(t.data.Staging(), "membership.db") }

// buildMember runs etcdutl's restore on a database without content.
func (t Target) buildMember(p *Plan, lg *zap.Logger) error {
	skeleton := filepath.Join(t.data.Staging(), "skeleton.db")
	if err := etcddb.NewSkeleton(skeleton); err != nil {
		return err
	}
	conf := etcdsnapshot.RestoreConfig{
		SnapshotPath: skeleton, SkipHashCheck: true, InitialMmapSize: 1 << 20,
		Name: t.Member.Name, PeerURLs: t.Member.PeerURLs, OutputDataDir: t.data.Tree(),
		InitialCluster: p.InitialCluster(), InitialClusterToken: p.Token,
	}
	if t.wal != nil {
		conf.OutputWALDir = t.wal.Tree()
	} else if t.WALDir != "" {
		conf.OutputWALDir = filepath.Join(t.data.Tree(), t.data.wal)
	}
	if err := etcdsnapshot.NewV3(lg).Restore(conf); err != nil {
		return err
	}
	return errors.Join(os.Rename(t.database(), t.membership()), os.Remove(skeleton))
}

// fetch lets the source place its database at path.
func fetch(ctx context.Context, src Source, path string, progress backup.Progress) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return src.Place(ctx, f, func(done, total int64) { progress(backup.StageFetch, done, total) })
}
