package replace

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// askReady asks once whether the new member may be started, before the first change. One that has
// begun has its list of members in its data, and takes none from its settings.
func askReady(r *run, s *state, step Step) error {
	begun := step == Start && s.held.any()
	if r.ready || begun || step == Promote || step == Compare {
		return nil
	}
	if err := r.o.Ready(settings(r.o.Name, r.folders, s)); err != nil {
		return err
	}
	r.ready = true
	return nil
}

// checkStarted ends the wait for a member that can never join: what was started has begun a cluster
// of its own, or has found data of another member.
func checkStarted(name string, f *folders, s *state) error {
	h := s.held
	if h.member == 0 || h.member == s.target.ID {
		return nil
	}
	return backup.WithHint(fmt.Errorf("what was started is not the new member %s: %s has data of member %s of cluster "+
		"%s, and this is cluster %s", nameOf(*s.target), f.wal(), h.member, h.cluster, s.clusterID),
		"most likely its settings say initial-cluster-state new, and it has begun a cluster of its own. Stop it, set "+
			"initial-cluster-state to existing and initial-cluster to %s, move away what it has begun (%s), and run the same "+
			"command again: it goes on from here", settings(name, f, s).InitialCluster, away(f))
}

// await waits a moment, and returns why if there has been no progress for too long.
func (r *run) await(ctx context.Context, s *state, why error, hint string) error {
	waited := time.Since(r.took)
	if waited > r.o.Wait {
		return backup.WithHint(fmt.Errorf("no progress for %v: %w", r.o.Wait, why), "%s", hint)
	}
	if time.Since(r.waited) >= r.o.every {
		r.waited = time.Now()
		r.o.Waiting(fmt.Sprintf("no progress for %v: %s", waited.Round(time.Second), answering(r, s)))
	}
	return r.sleep(ctx)
}

// answering says who answers, and whether a server runs on the folder.
func answering(r *run, s *state) string {
	var answer, silent []string
	for _, m := range s.members {
		switch {
		case !s.alive(m.ID):
			silent = append(silent, s.why(m))
		case m.Name == "":
			answer = append(answer, r.o.Name)
		default:
			answer = append(answer, m.Name)
		}
	}
	text := strings.Join(append([]string{strings.Join(answer, ", ") + " answer"}, silent...), "; ")
	if s.held.used {
		return fmt.Sprintf("%s; a server runs on %s%s", text, r.folders.dataDir, r.folders.oldWAL())
	}
	return fmt.Sprintf("%s; no server runs on %s%s", text, r.folders.dataDir, r.folders.oldWAL())
}
