package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	etcdsnapshot "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// Execute does what was planned: it builds every target in its staging folder
// and puts them into place. When it fails before that, nothing is left of it.
func (p *Plan) Execute(ctx context.Context) (err error) {
	w, err := newWorkshop(p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if err := p.build(ctx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// From here on the restore is finished whatever happens, by us or by the
	// next run.
	return w.publish()
}

func (p *Plan) build(ctx context.Context) error {
	// etcd's own code makes the WAL, the snapshot file and the membership on a
	// tiny database; the real one is streamed into its place afterwards. So no
	// copy of gigabytes is made.
	for _, t := range p.Targets {
		if err := p.buildMember(t); err != nil {
			return fmt.Errorf("build member %s: %w", t.Member.Name, err)
		}
	}
	first := p.Targets[0]
	if err := p.fetch(ctx, first.database()); err != nil {
		return fmt.Errorf("restore %s: %w", first.Member.Name, err)
	}
	p.req.Progress(backup.StagePrepare, 0, 0)
	err := etcddb.Prepare(ctx, first.database(), etcddb.PrepareOptions{
		From: first.membership(), BumpRevision: p.req.BumpRevision, MarkCompacted: p.req.MarkCompacted,
		ClearAlarms: p.req.ClearAlarms, InitialMmapBytes: p.req.InitialMmapBytes,
	})
	if err != nil {
		return err
	}
	for _, t := range p.Targets[1:] {
		// The database is the same for all members: which one of them a
		// server is stands in its WAL.
		if err := p.copyDatabase(ctx, first.database(), t.database()); err != nil {
			return fmt.Errorf("copy database for %s: %w", t.Member.Name, err)
		}
	}
	p.req.Progress(backup.StageSync, 0, 0)
	for _, t := range p.Targets {
		for _, s := range t.slots() {
			if err := seal(s.tree(), p.ownerOf(t, s)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t Target) database() string   { return filepath.Join(t.data.tree(), "member", "snap", "db") }
func (t Target) membership() string { return filepath.Join(t.data.staging, "membership.db") }

// buildMember runs etcdutl's restore on a database without content.
func (p *Plan) buildMember(t Target) error {
	skeleton := filepath.Join(t.data.staging, "skeleton.db")
	if err := etcddb.NewSkeleton(skeleton); err != nil {
		return err
	}
	conf := etcdsnapshot.RestoreConfig{
		SnapshotPath: skeleton, Name: t.Member.Name, OutputDataDir: t.data.tree(), PeerURLs: t.Member.PeerURLs,
		InitialCluster: p.InitialCluster(), InitialClusterToken: p.Token, SkipHashCheck: true, InitialMmapSize: 1 << 20,
	}
	if t.wal != nil {
		conf.OutputWALDir = t.wal.tree()
	} else if t.walDir != "" {
		conf.OutputWALDir = filepath.Join(t.data.tree(), t.data.wal)
	}
	if err := etcdsnapshot.NewV3(memberLog(p.req.EtcdLog)).Restore(conf); err != nil {
		return err
	}
	return errors.Join(os.Rename(t.database(), t.membership()), os.Remove(skeleton))
}

// memberLog passes on what etcd's code logs of the members, and its warnings.
// What else it says is about the skeleton and would mislead.
func memberLog(lg *zap.Logger) *zap.Logger {
	return lg.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return &memberCore{c} }))
}

type memberCore struct{ zapcore.Core }

func (c *memberCore) With(f []zapcore.Field) zapcore.Core { return &memberCore{c.Core.With(f)} }

func (c *memberCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level < zapcore.WarnLevel && e.Message != "added member" {
		return ce
	}
	return c.Core.Check(e, ce)
}

// fetch streams the database from the source to path, without the trailer. The
// source verifies on the way and fails at the end if the bytes were not right.
func (p *Plan) fetch(ctx context.Context, path string) (err error) {
	src, err := p.Source.open(ctx, func(done, total int64) { p.req.Progress(backup.StageFetch, done, total) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size := p.Source.Bytes - p.Source.trailer
	if err := fileutil.Preallocate(f, size, true); err != nil {
		return fmt.Errorf("allocate %d bytes for the database: %w", size, err)
	}
	w := newBehindWriter(f, size)
	n, err := copyBehind(ctx, w, src)
	if err = errors.Join(err, w.close()); err != nil {
		return err
	}
	if n != p.Source.Bytes {
		return backup.Corruptf("the source ended after %d bytes of %d", n, p.Source.Bytes)
	}
	return nil
}

func (p *Plan) copyDatabase(ctx context.Context, from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	for off := int64(0); ; {
		n, err := io.CopyN(dst, src, 64<<20) // the kernel copies, or clones
		off += n
		p.req.Progress(backup.StageCopy, off, p.Source.Bytes)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// seal gives a whole tree to its owner and makes it durable: files first, then
// the folders that name them.
func seal(root string, owner Owner) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if owner.UID != os.Geteuid() || owner.GID != os.Getegid() {
			if err := os.Lchown(path, owner.UID, owner.GID); err != nil {
				return fmt.Errorf("give to %d:%d: %w", owner.UID, owner.GID, err)
			}
		}
		if d.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		return syncPath(path)
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := syncPath(dirs[i]); err != nil {
			return err
		}
	}
	return nil
}
