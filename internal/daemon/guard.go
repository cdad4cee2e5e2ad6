package daemon

import (
	"context"
	"reflect"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// guard holds the duties of one protected cluster under one configuration.
type guard struct {
	conf   config.Cluster
	repo   config.Repository // as it was when the guard was made
	spool  config.Spool      // likewise
	closed func()            // called after the connections were closed

	*duty.Subject
	backup     duty.Backup
	verify     duty.Verify
	defrag     duty.Defragment
	verifyLine schedule.Line
	defragLine schedule.Line

	mu      sync.Mutex // guards what follows
	inside  int        // jobs that run
	retired bool       // the connections are closed after the last of them
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
		g.close()
	}
}

// retire closes the guard after its running jobs have ended.
func (g *guard) retire() {
	g.mu.Lock()
	last := g.inside == 0 && !g.retired
	g.retired = true
	g.mu.Unlock()
	if last {
		g.close()
	}
}

func (g *guard) close() {
	_ = g.Etcd.Close() // nothing is in progress
	// Only now, because its last run still counted.
	g.closed()
}

// do makes one try of a duty.
func (g *guard) do(ctx context.Context, kind string, r duty.Run) duty.Outcome {
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
// version that manifests record.
func (g *guard) assign(tool string) (err error) {
	c := g.conf
	g.Lenient = !c.Snapshot.HashCheck
	policy := c.Policy()
	g.backup = duty.Backup{
		Subject: g.Subject, Jitter: c.Snapshot.Jitter, MaxAge: c.Snapshot.MaxAge, Policy: policy,
		Codec: g.repo.Codec, Tool: tool,
	}
	if !c.Snapshot.HashCheck {
		g.backup.Hashes = snapshot.SkipHashes
	}
	g.verify = duty.Verify{Subject: g.Subject, Policy: policy}
	g.defrag = duty.Defragment{Subject: g.Subject, Threshold: c.Defragment.Threshold}
	if g.backup.Line, err = c.Snapshot.Line(); err != nil {
		return err
	}
	g.backup.Longest = g.backup.Line.Longest(time.Now()) // computed once: it takes milliseconds
	if g.verifyLine, err = c.Verify.Line(); err != nil {
		return err
	}
	if g.defragLine, err = c.Defragment.Line(); err != nil {
		return err
	}
	if _, err = g.repo.Codec(); err != nil {
		return err
	}
	g.verify.Identities, err = codec.ReadIdentities(c.Verify.IdentityFiles)
	return err
}
