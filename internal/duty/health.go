package duty

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Level says how well a cluster is protected.
type Level string

// Levels.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Failure Level = "failure"
)

// Health says how well a cluster is protected and, if there is a problem, how to
// solve it.
type Health struct {
	Level   Level
	Problem string // one line
	Hint    string
	Err     error // the cause of the problem; may be nil
}

// Health judges how the cluster is protected.
func (b *Backup) Health(now time.Time) Health {
	f := b.Known.Now()
	now = now.Round(0)
	var s repository.Summary
	if f.Overview != nil {
		s = f.Overview.Summary(now)
	}
	if f.Overview != nil {
		if h := inQuestionHealth(b.Subject, f.Overview); h.Level != OK {
			return h
		}
	}
	if h := loss(f.Lost); h.Level != OK {
		return h
	}
	if h := damage(b.Cluster, s); h.Level != OK {
		return h
	}
	if f.Overview == nil && errors.As(f.ReadErr, new(*repository.AbsentError)) {
		return problem(Failure, "there is no such repository", f.ReadErr)
	}
	if h := b.overdue(&f, now); h.Level != OK {
		return h
	}
	switch {
	case f.Failed != nil:
		return problem(Warning, "the last backup failed", f.Failed)
	case f.ReadErr != nil:
		return problem(Warning, "the repository cannot be read", f.ReadErr)
	case f.Verification != nil && !errors.As(f.Verification, new(*backup.DefectError)): // which is seen above
		return problem(Warning, "the last verification failed", f.Verification)
	case f.PruneErr != nil:
		return problem(Warning, "old snapshots cannot be removed", f.PruneErr)
	case s.Newest != nil && s.Newest.State() == backup.Unconfirmed && !b.Lenient:
		return unconfirmed(b.Cluster, f.Overview, s.Newest)
	case s.Future != nil:
		h := problem(Warning, fmt.Sprintf("snapshot %s is from the future: a clock is wrong, or was", s.Future.ID), nil)
		h.Hint = "set the clocks right; the snapshot holds data like any other, and may be the latest: " +
			"backupd show --cluster " + b.Cluster + " latest"
		return h
	case f.Read.IsZero():
		return problem(Warning, "the repository was not read yet", nil)
	case f.Confirmed.IsZero():
		return problem(Warning, "there is no verified snapshot yet", nil)
	}
	return Health{Level: OK}
}

// inQuestionHealth judges the histories of the cluster.
func inQuestionHealth(s *Subject, o *repository.Overview) Health {
	_, err := o.Timelines.Present()
	var history *repository.HistoryError
	if !errors.As(err, &history) {
		return Health{Level: OK}
	}
	return Health{Level: Failure, Problem: history.Error(), Hint: historyHint(s, history), Err: err}
}

// loss judges whether snapshots are gone that backupd did not remove.
func loss(lost []repository.Item) Health {
	if len(lost) == 0 {
		return Health{Level: OK}
	}
	const most = 3 // are named
	var names []string
	for _, i := range slices.Backward(lost) {
		names = append(names, string(i.ID))
	}
	text := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	h := problem(Failure, "snapshots are gone that backupd did not remove: "+text, nil)
	h.Hint = "find out who deletes objects there (a lifecycle rule, another tool), and bring them back from a copy of " +
		"the repository if there is one; a restart of the daemon acknowledges the loss"
	return h
}

// damage judges the stored snapshots.
func damage(cluster string, s repository.Summary) Health {
	if n := s.Newest; n != nil && n.State() == backup.Suspect {
		h := problem(Failure, fmt.Sprintf("the newest snapshot, %s, is suspect", n.ID), nil)
		h.Hint = "backupd show --cluster " + cluster + " " + string(n.ID) +
			" shows the reason; older snapshots are kept meanwhile"
		return h
	}
	if s.NewestDamaged == nil {
		return Health{Level: OK}
	}
	i := s.NewestDamaged
	var defect *backup.DefectError
	switch {
	case i.Clash():
		h := problem(Failure, fmt.Sprintf("two manifests refer to the data of snapshot %s", i.ID), nil)
		h.Hint = "find out who copied or renamed objects, and remove the wrong manifest by hand"
		return h
	case errors.As(i.Defect(), &defect) && defect.Kind == backup.DataMissing:
		h := problem(Failure, fmt.Sprintf("the data of snapshot %s is not in the repository", i.ID), nil)
		h.Hint = "find out who removed it; " + removal(cluster, i)
		return h
	}
	h := problem(Failure, fmt.Sprintf("the stored snapshot %s is damaged", i.ID), i.Defect())
	h.Hint = "ask the store why its bytes changed; if they are right again, backupd verify --cluster " +
		cluster + " " + string(i.ID) + " says so; " + removal(cluster, i)
	return h
}

// unconfirmed is the health of a cluster whose newest snapshot no member was
// compared with.
func unconfirmed(cluster string, o *repository.Overview, newest *repository.Item) Health {
	h := problem(Warning, fmt.Sprintf("the newest snapshot, %s, is unconfirmed", newest.ID), nil)
	if t := o.Timelines.Find(newest.Timeline); t != nil && t.Manifest != nil && t.Manifest.ID == newest.ID {
		h.Problem += ": " + strings.Join(t.Manifest.Unconfirmed, "; ")
	}
	h.Hint = "let backupd reach a voting member of the cluster for HashKV; backupd show --cluster " + cluster + " " +
		string(newest.ID) + " shows what each member answered; the next verified snapshot ends this warning"
	return h
}

// overdue judges whether backups are missing. Two slots may pass without a
// success: the first is missed, and the run of the second may still go on.
func (b *Backup) overdue(f *Facts, now time.Time) Health {
	limit := now.Add(-2*b.Longest - b.Jitter)
	why := cmp.Or(f.Failed, f.ReadErr)
	switch {
	case f.Confirmed.IsZero() && f.Protected:
		return problem(Failure, "the repository no longer holds a verified snapshot", why)
	case f.Confirmed.IsZero() && f.Since.Before(limit):
		return problem(Failure, "there is no verified snapshot", why)
	case f.Confirmed.IsZero():
	case f.Confirmed.Before(limit) && f.Changed.Before(limit): // a new schedule gets the same time
		return problem(Failure,
			fmt.Sprintf("the last verified snapshot is %v old", now.Sub(f.Confirmed).Round(time.Second)), why)
	}
	return Health{Level: OK}
}

// problem makes the health of a problem. The error, if there is one, follows the
// text.
func problem(level Level, text string, err error) Health {
	if err != nil {
		// One line, for tables.
		text += ": " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return Health{Level: level, Problem: text, Err: err}
}

// removal is the hint that removes a damaged snapshot.
func removal(cluster string, i *repository.Item) string {
	return "backupd rm --cluster " + cluster + " " + string(i.ID) + " removes the rest of it"
}
