package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// UnreadLimit is how long after the start of the daemon a repository may stay unread:
// two looks. Until it was read nobody knows whether it still holds what the record
// says.
const UnreadLimit = 30 * time.Minute

// Unread judges whether the repository was never read since the process started. read and
// before are when this process and an earlier one last read it, as far as that is known; err is
// why it cannot be read.
func Unread(started, read, before time.Time, err error, now time.Time) Health {
	if !read.IsZero() || started.IsZero() || now.Before(started.Add(UnreadLimit)) {
		return Health{Level: OK}
	}
	text := fmt.Sprintf("the repository was never read since the daemon started, %v ago",
		now.Sub(started).Round(time.Second))
	if !before.IsZero() {
		text += ", and was last read at " + before.UTC().Format(time.RFC3339)
	}
	return Problem(Failure, text, err)
}

// Astray is the health of a cluster whose pending snapshots wait for other repositories than
// the one in use.
func Astray(pending []spool.Pending, used string) Health {
	text := fmt.Sprintf("pending snapshots wait for repository %s, and repository %s is in use",
		spool.Repositories(pending), used)
	h := Problem(Warning, text, nil)
	h.Hint = "bring that one back to its address, and set repository-id to its id; " + spool.MoveHint(pending)
	return h
}

// Unpaused is the health of a cluster that somebody has paused in vain. of are the flags that
// lead to its repository, and its name.
func Unpaused(of string, ignored error) Health {
	h := Problem(Warning, "the cluster is not paused as somebody meant", ignored)
	h.Hint = "backupd resume " + of + " takes that back; then pause it again"
	return h
}

// HistoryHint says what to do about histories of a cluster that are in question, a command a line.
// address are the flags that lead to its repository.
func HistoryHint(address, cluster string, e *repository.HistoryError) string {
	accept := func(t repository.Timeline) string {
		return fmt.Sprintf("backupd timeline accept %s --cluster %s %s --reason TEXT", address, cluster, t.Name)
	}
	if e.Both {
		lines := []string{"give one of the clusters another name in its configuration; the snapshots stay and can be " +
			"restored by their ids; then accept the history that keeps the name:", accept(e.Newest)}
		for _, t := range e.Others {
			lines = append(lines, accept(t))
		}
		return strings.Join(lines, "\n")
	}
	lines := []string{"if the new history is wanted:", accept(e.Newest)}
	for _, t := range e.Others {
		if t.Manifest != nil { // else nobody can restore it now
			lines = append(lines, "if the data of "+t.Name+" was lost:",
				fmt.Sprintf("backupd restore %s --cluster %s %s --name NAME --data-dir DIR", address, cluster, t.Head.ID))
		}
	}
	return strings.Join(lines, "\n")
}
