package main

import (
	"context"

	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/alive"
)

const aliveHelp = `All members of the old and of the new cluster are asked, on the URLs that the snapshot
records. If one of the old cluster answers, the restore is refused; if a quorum does,
the cluster lives, and the command that replaces one of its members is printed. Members
of the new cluster may run, but they must not know this one yet: a member that has taken
part in the new cluster, and is restored once more, has forgotten what it has confirmed, and
acknowledged writes are lost. It is refused, and the command that replaces it is printed.
Members with mutual TLS tell it by the --peer-… flags. --allow-running asks nobody.

`

// checkAlive refuses a restore beside members of the old cluster that still answer.
func checkAlive(ctx context.Context, j *restoreJob, w *restore.Work) error {
	if j.stored == nil || j.site.AllowRunning {
		return nil
	}
	m, p := j.stored.manifest, w.Plan
	found := alive.Ask(ctx, alive.Question{
		Old: m.ClusterID, Recorded: m.Members, New: p.ClusterID, Planned: p.Members, TLS: j.empty.tls,
	})
	var from []string
	if j.found != nil {
		from = j.found.Files
	}
	if err := found.Refusal(j.site.Name, j.joins(), from...); err != nil {
		return err
	}
	if err := j.empty.mayAgain(&found, j, w.Targets); err != nil {
		return err
	}
	if note := found.Note(); note != "" {
		j.app.log.slog.Warn(note)
	}
	return nil
}
