package daemon

import (
	"context"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/openfiles"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
)

// guard holds the duties of one protected cluster under one configuration.
type guard struct {
	conf      config.Cluster
	repo      config.Repository // as it was when the guard was made
	spool     config.Spool      // likewise
	ready     func() error      // checks the files of the cluster and of its repository
	fit       atomic.Bool       // see equip
	equipping sync.Mutex
	files     *openfiles.Budget // of the process
	closed    func()            // called after the last job of a retired guard: until then it counts

	*duty.Subject
	backup     duty.Backup
	verify     duty.Verify
	defrag     duty.Defragment
	verifyLine schedule.Line
	defragLine schedule.Line

	mu      sync.Mutex // guards what follows
	inside  int        // jobs that run
	retired bool       // no job begins any more
}

// enter is called when a job begins. It returns false if the guard is retired.
func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return false
	}
	g.inside++
	return true
}

func (g *guard) leave() {
	g.mu.Lock()
	g.inside--
	last := g.inside == 0 && g.retired
	g.mu.Unlock()
	if last {
		g.closed()
	}
}

// retire ends the guard after its running jobs have ended.
func (g *guard) retire() {
	g.mu.Lock()
	last := g.inside == 0 && !g.retired
	g.retired = true
	g.mu.Unlock()
	if last {
		g.closed()
	}
}

// do makes one try of a duty. Its connections end with it: the next try resolves names
// and checks certificates again, and an idle cluster holds no file descriptors. A
// verification has none, and may end beside a backup.
func (g *guard) do(ctx context.Context, kind string, r duty.Run) duty.Outcome {
	if err := g.equip(); err != nil {
		return duty.Outcome{Result: duty.Failed, Err: err}
	}
	done, err := g.files.Take(ctx, g.conf.Members())
	if err != nil {
		return duty.Outcome{Result: duty.Failed, Err: err}
	}
	defer done()
	if kind != kindVerify {
		defer g.Etcd.Close() // it never fails
	}
	switch kind {
	case kindBackup:
		return g.backup.Do(ctx, r)
	case kindUpload:
		return g.backup.Upload(ctx, r)
	case kindVerify:
		return g.verify.Do(ctx, r)
	}
	return g.defrag.Do(ctx, r)
}

// inherit takes over the knowledge of the same cluster in the same repository.
func (g *guard) inherit(old []*guard) {
	for _, before := range old {
		if before.Key == g.Key && reflect.DeepEqual(before.repo, g.repo) {
			g.Known = before.Known
		}
	}
}

// assign makes the duties of the cluster from its configuration. tool is the
// version that manifests record, and trace finds what files that start etcd refer to.
func (g *guard) assign(tool string, trace companion.Trace) (err error) {
	c := g.conf
	g.Lenient = c.Snapshot.Hashes() == compare.Off
	policy := c.Policy()
	g.backup = duty.Backup{
		Subject: g.Subject, Jitter: c.Snapshot.Jitter, MaxAge: c.Snapshot.MaxAge, Policy: policy,
		Hashes: c.Snapshot.Hashes(), Codec: g.repo.Codec, Plain: !g.repo.Encrypts(), Tool: tool,
		Companions: c.CompanionFiles(trace),
	}
	g.verify = duty.Verify{Subject: g.Subject, Policy: policy}
	g.Rereading.BytesPerDay, g.Rereading.Decrypts = c.Verify.MaxBytesPerDay, len(c.Verify.IdentityFiles) > 0
	g.defrag = duty.Defragment{Subject: g.Subject, Threshold: c.Defragment.Threshold}
	if g.backup.Line, err = c.Snapshot.Line(); err != nil {
		return err
	}
	g.backup.Longest = g.backup.Line.Longest(time.Now()) // computed once: it takes milliseconds
	if g.verifyLine, err = c.Verify.Line(); err != nil {
		return err
	}
	if !g.verifyLine.IsZero() {
		g.Rereading.Longest = g.verifyLine.Longest(time.Now())
	}
	if g.defragLine, err = c.Defragment.Line(); err != nil {
		return err
	}
	g.backup.Defragments = !g.defragLine.IsZero()
	return nil
}

// equip makes what the duties need of files. As long as that fails, the cluster does, and
// each try of a duty tries it again.
func (g *guard) equip() error {
	if g.fit.Load() {
		return nil
	}
	g.equipping.Lock() // a verification runs beside a backup
	defer g.equipping.Unlock()
	if g.fit.Load() {
		return nil
	}
	err := g.read()
	g.Known.Equipped(err)
	g.fit.Store(err == nil)
	return err
}

func (g *guard) read() error {
	if err := g.ready(); err != nil {
		return err
	}
	client, err := g.conf.ClientConfig()
	if err != nil {
		return err
	}
	client.Log = g.Log
	if g.Etcd, err = cluster.New(client); err != nil {
		return err
	}
	g.verify.Identities, err = codec.ReadIdentities(g.conf.Verify.IdentityFiles)
	return err
}
