// Package health holds the words for how well a cluster is protected, and judges it by what is in
// its repository.
package health

import (
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

// Problem makes the health of a problem. The error, if there is one, follows the
// text.
func Problem(level Level, text string, err error) Health {
	if err != nil {
		// One line, for tables.
		text += ": " + strings.NewReplacer(":\n", ": ", "\n", "; ").Replace(err.Error())
	}
	return Health{Level: level, Problem: text, Err: err}
}

// Loss judges whether snapshots are gone that backupd did not remove.
func Loss(lost []repository.Item) Health {
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
	h := Problem(Failure, "snapshots are gone that backupd did not remove: "+text, nil)
	h.Hint = "find out who deletes objects there (a lifecycle rule, another tool), and bring them back from a copy of " +
		"the repository if there is one; a restart of the daemon acknowledges the loss"
	return h
}

// Damage judges the stored snapshots.
func Damage(cluster string, s repository.Summary) Health {
	if n := s.Newest; n != nil && n.State() == backup.Suspect {
		h := Problem(Failure, fmt.Sprintf("the newest snapshot, %s, is suspect", n.ID), nil)
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
		h := Problem(Failure, fmt.Sprintf("two manifests refer to the data of snapshot %s", i.ID), nil)
		h.Hint = "find out who copied or renamed objects, and remove the wrong manifest by hand"
		return h
	case errors.As(i.Defect(), &defect) && defect.Kind == backup.DataMissing:
		h := Problem(Failure, fmt.Sprintf("the data of snapshot %s is not in the repository", i.ID), nil)
		h.Hint = "find out who removed it; " + removal(cluster, i)
		return h
	}
	h := Problem(Failure, fmt.Sprintf("the stored snapshot %s is damaged", i.ID), i.Defect())
	h.Hint = "ask the store why its bytes changed; if they are right again, backupd verify --cluster " +
		cluster + " " + string(i.ID) + " says so; " + removal(cluster, i)
	return h
}

// NoQuorumHint says what to do if no quorum confirms how far the cluster has come.
const NoQuorumHint = "find out which members are cut off: 'etcdctl endpoint status' with the endpoints of all " +
	"members; backupd must reach the majority. If that is lost for good, the snapshot can be restored like any other"

// NotCurrent is the error for an unconfirmed snapshot of which nobody knows whether it
// holds all that the cluster had, or nil. It may pass for no success: the source may
// have been cut off for days. Another try may find a quorum.
func NotCurrent(m *backup.Manifest) error {
	if m.State() != backup.Unconfirmed || m.Current() {
		return nil
	}
	return backup.WithHint(
		fmt.Errorf("snapshot %s is stored, but unconfirmed: %s", m.ID, m.Unconfirmed[0]), NoQuorumHint)
}

// Unconfirmed is the health of a cluster whose newest snapshot no member was
// compared with.
func Unconfirmed(cluster string, o *repository.Overview, newest *repository.Item) Health {
	h := Problem(Warning, fmt.Sprintf("the newest snapshot, %s, is unconfirmed", newest.ID), nil)
	if t := o.Timelines.Find(newest.Timeline); t != nil && t.Manifest != nil && t.Manifest.ID == newest.ID {
		h.Problem += ": " + strings.Join(t.Manifest.Unconfirmed, "; ")
		if NotCurrent(t.Manifest) != nil {
			h.Hint = NoQuorumHint
			return h
		}
	}
	h.Hint = "let backupd reach a voting follower of the cluster for HashKV, or set snapshot.hash-check to all, which " +
		"asks a large leader, too; backupd show --cluster " + cluster + " " + string(newest.ID) +
		" shows what each member answered; the next verified snapshot ends this warning"
	return h
}

// unencryptedFor is how long a cluster is in this health after its last encrypted snapshot.
const unencryptedFor = 7 * 24 * time.Hour

// Unencrypted is the health of a cluster whose new snapshots will not be encrypted although
// its newest one is, or was within a week: whoever took the recipients out of the
// configuration has time to see it, and whoever meant it is left alone afterwards.
func Unencrypted(cluster string, o *repository.Overview, now time.Time) Health {
	if o == nil {
		return Health{Level: OK}
	}
	present, _ := o.Timelines.Present()
	newest := true
	for n := range slices.Backward(o.Items) {
		i := &o.Items[n]
		if present == nil || i.Timeline != present.Name {
			continue
		}
		if !newest && now.Sub(i.ID.Time()) > unencryptedFor {
			break
		}
		if newest = false; !strings.Contains(i.Encoding(), "age") {
			continue
		}
		h := Problem(Warning, fmt.Sprintf("new snapshots are not encrypted, although snapshot %s is", i.ID), nil)
		h.Hint = "give the repository its recipients again (backupd show --cluster " + cluster + " " + string(i.ID) +
			" shows them), and remove the snapshots in plain text; if plain text is meant, this warning ends a week " +
			"after the last encrypted one"
		return h
	}
	return Health{Level: OK}
}

// Future is the health of a cluster with a snapshot from the future.
func Future(cluster string, i *repository.Item) Health {
	h := Problem(Warning, fmt.Sprintf("snapshot %s is from the future: a clock is wrong, or was", i.ID), nil)
	h.Hint = "set the clocks right; the snapshot holds data like any other, and may be the latest: " +
		"backupd show --cluster " + cluster + " latest"
	return h
}

// NotVerified is the health of a cluster whose scheduled verifications are missing.
func NotVerified(last, now time.Time) Health {
	h := Problem(Warning, "no stored snapshot was ever verified", nil)
	if !last.IsZero() {
		h = Problem(Warning, fmt.Sprintf("the last verification of a stored snapshot was %v ago",
			now.Sub(last).Round(time.Second)), nil)
	}
	h.Hint = "read in the log of the daemon why scheduled verifications do not end; two intervals of verify.schedule " +
		"have passed"
	return h
}

// removal is the hint that removes a damaged snapshot.
func removal(cluster string, i *repository.Item) string {
	return "backupd rm --cluster " + cluster + " " + string(i.ID) + " removes the rest of it"
}

// Denied judges that a manifest cannot be read here.
func Denied(i *repository.Item) Health {
	h := Problem(Warning, fmt.Sprintf("the manifest of snapshot %s cannot be read here", i.ID), i.Denied)
	h.Hint = "let the user or the credentials of backupd read it; if it was moved to an archive, restore it from there. " +
		"Nothing counts on the snapshot meanwhile, and it stays"
	var hint *backup.HintError
	if errors.As(i.Denied, &hint) {
		h.Hint = hint.Hint
	}
	return h
}
