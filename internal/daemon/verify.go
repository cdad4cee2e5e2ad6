package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// verify is the job of the scheduler: it reads one snapshot back as a whole, the
// newest verified one unless somebody asked for another.
func (g *guard) verify(ctx context.Context, why schedule.Reason) error {
	var q request
	if why == schedule.Manual {
		q = g.known.take(kindVerify)
	}
	asked := q.job != nil
	if !asked {
		q = request{g.daemon.board.begin(kindVerify, g.conf.Name, string(why)), server.Latest}
	}
	defer q.job.abandon()
	e, err := g.toVerify(ctx, q.snapshot)
	if !asked && errors.As(err, new(*snapshot.NotFoundError)) {
		g.known.pass(kindVerify)
		q.job.end(server.JobSkipped, "", nil)
		return nil
	}
	if err == nil {
		err = g.verifyEntry(ctx, q.job, e)
	}
	if err != nil && ctx.Err() != nil && g.daemon.stopping() {
		q.job.end(server.JobFailed, string(e.ID), err)
		return err // which says nothing about the snapshot
	}
	g.judged(ctx, e.ID, err)
	if err != nil {
		g.log.Error("verification failed", "snapshot", e.ID, "err", err)
		q.job.end(server.JobFailed, string(e.ID), err)
		return err
	}
	q.job.end(server.JobSucceeded, string(e.ID), nil)
	return nil
}

// toVerify finds a snapshot by its id, or the newest verified one.
func (g *guard) toVerify(ctx context.Context, id string) (snapshot.Entry, error) {
	if id != server.Latest {
		e, err := snapshot.Resolve(ctx, g.store, g.conf.Name, id)
		if err != nil {
			err = fmt.Errorf("find the snapshot to verify: %w", err)
		}
		return e, err
	}
	all, err := snapshot.Entries(ctx, g.store, g.conf.Name) // the newest first
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || g.known.now().repository != "") {
		return snapshot.Entry{}, fmt.Errorf("find the snapshot to verify: %w", err)
	}
	for _, e := range all {
		if !e.Suspect {
			return e, nil
		}
	}
	return snapshot.Entry{}, &snapshot.NotFoundError{What: "the repository holds no verified one of cluster " + g.conf.Name}
}

func (g *guard) verifyEntry(ctx context.Context, j *job, e snapshot.Entry) error {
	v := &snapshot.Verifier{Store: g.store, Identities: g.identities, Spool: g.daemon.spool(), Progress: j.progress}
	m, err := snapshot.Open(ctx, g.store, e)
	if err == nil && m.Encoding.Encryption != "" && len(g.identities) == 0 {
		v.Depth = snapshot.StoredOnly // only the stored bytes can be compared here
	}
	_, err = v.Verify(ctx, e)
	return err
}

// judged keeps what a verification told. A defect stands until the snapshot is
// verified again, or is gone: that another one is good does not mend it.
func (g *guard) judged(ctx context.Context, id backup.SnapshotID, err error) {
	var defect *snapshot.DefectError
	known := errors.As(err, &defect) && defect.Kind == snapshot.Suspect // and told by its name
	damaged := errors.Is(err, backup.ErrCorrupt)
	result := "ok"
	switch {
	case damaged:
		result = "defect"
	case err != nil:
		result = "failed"
	}
	g.daemon.metrics.verifications.WithLabelValues(g.conf.Name, result).Inc()
	if known {
		return
	}
	g.known.change(func(s *standing) {
		s.verified, s.verification = g.daemon.wall(), err
		switch {
		case damaged:
			s.defects = with(s.defects, id, err)
		case err == nil:
			s.defects = with(s.defects, id, nil)
		}
	})
	if damaged {
		_ = g.refresh(ctx) // so that nothing counts on it
	}
}

// with returns a copy of defects with what was found of one snapshot.
func with(defects map[backup.SnapshotID]error, id backup.SnapshotID, err error) map[backup.SnapshotID]error {
	out := make(map[backup.SnapshotID]error, len(defects)+1)
	for other, defect := range defects {
		out[other] = defect
	}
	if out[id] = err; err == nil {
		delete(out, id)
	}
	return out
}

// defrag is the job of the scheduler.
func (g *guard) defrag(ctx context.Context, why schedule.Reason) error {
	j := g.daemon.board.begin(kindDefragment, g.conf.Name, string(why))
	defer j.abandon()
	other, err := g.defragmenter(ctx)
	if err == nil && other != "" {
		g.log.Info("nothing to do", "reason", other)
		g.known.pass(kindDefragment)
		j.end(server.JobSkipped, "", nil)
		return nil
	}
	if err == nil {
		var report cluster.DefragReport
		report, err = g.source.Defragment(ctx, cluster.DefragOptions{Threshold: g.conf.Defragment.Threshold})
		g.log.Info("defragmentation ended", "report", report, "err", err)
	}
	if err != nil {
		j.end(server.JobFailed, "", err)
		return err
	}
	j.end(server.JobSucceeded, "", nil)
	return nil
}

// defragmenter returns why this slot is another daemon's, or "".
func (g *guard) defragmenter(ctx context.Context) (string, error) {
	if g.conf.LocalEndpoint == "" {
		return "", nil
	}
	survey, err := g.source.Survey(ctx)
	if err != nil {
		return "", err
	}
	return g.worker(ctx, survey)
}
