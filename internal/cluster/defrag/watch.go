package defrag

import (
	"context"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

const (
	// slow is the longest time that one read may take of a member that is going to be
	// defragmented.
	slow = time.Second
	// watchEvery is how often a member is asked for a read while it is defragmented.
	watchEvery = time.Second
	// rewriteRate is what every disk achieves: a member that rewrites its file answers
	// nothing, and a large file takes its time.
	rewriteRate = 16 << 20 // bytes per second
)

// HungError says that a member does not answer while it is defragmented, for longer than
// it needs to rewrite its file.
type HungError struct {
	Name, Endpoint string
	For            time.Duration
}

func (e *HungError) Error() string {
	return fmt.Sprintf("member %s (%s) has answered nothing for %v while it is defragmented: "+
		"somebody streams a snapshot from it, and it waits for the end of that stream",
		e.Name, e.Endpoint, e.For.Round(time.Second))
}

func (e *HungError) hinted() error {
	return backup.WithHint(e, "find the stream and end it: a slow or suspended backupd or etcdctl snapshot save, on "+
		"any host (ss -tnp at the member shows who is connected); else restart the member")
}

// patience is how long a member may answer nothing before that is trouble.
func (o Options) patience(inUse int64) time.Duration {
	return o.Patience + time.Duration(inUse/rewriteRate)*time.Second
}

// quick returns an error if the member is not fit to be defragmented, because it is slow
// already.
func (r *run) quick(ctx context.Context, c cluster.Candidate) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*slow)
	defer cancel()
	err := Read(ctx, r.cluster, c.Endpoint)
	took := time.Since(began)
	if err == nil && took <= slow {
		return nil
	}
	refused := &backup.RefusedError{Reason: fmt.Sprintf("it is slow: one read took %v", took.Round(time.Millisecond))}
	if err != nil {
		refused.Reason = fmt.Sprintf("it is slow: %v", err)
	}
	return backup.WithHint(refused, "find out what keeps the member busy; the next slot tries it again")
}

// rewrite lets a member rewrite its file, and watches meanwhile whether it answers. It
// tells of a member that hangs, and waits no longer for one that goes on hanging: the jobs
// of the cluster wait for this one.
func (r *run) rewrite(ctx context.Context, c cluster.Candidate, m *Member) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- defragment(ctx, r.cluster, c.Endpoint) }()
	patience, answered := r.o.patience(m.InUse), time.Now()
	told := false
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			cancel()
			return err
		case <-tick.C:
		}
		if r.answers(ctx, c.Endpoint) {
			answered = time.Now()
			continue
		}
		silent := time.Since(answered)
		if silent > patience && !told {
			told = true
			r.o.Trouble((&HungError{m.Name, m.Endpoint, silent}).hinted())
		}
		if silent > 6*patience {
			cancel()
			<-done // it ends with its context
			return (&HungError{m.Name, m.Endpoint, silent}).hinted()
		}
	}
}

func (r *run) answers(ctx context.Context, endpoint string) bool {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	return Read(ctx, r.cluster, endpoint) == nil
}
