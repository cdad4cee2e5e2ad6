package check

import (
	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/openfiles"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// checkOpenFiles compares what the configuration may need with the limit of this process,
// and so of a daemon that is started as this process was.
func checkOpenFiles(conf *config.Config, limit uint64) []backup.Finding {
	l := list{section: SectionConfiguration, subject: "open files"}
	members := 0
	for i := range conf.Clusters {
		members = max(members, conf.Clusters[i].Members())
	}
	need := openfiles.Need(min(conf.Daemon.Concurrency+schedule.Rooms, len(conf.Clusters)), members)
	if uint64(need) > limit {
		l.warn("raise the limit (ulimit -n, LimitNOFILE= of the unit), or lower daemon.concurrency",
			"this process may open %d files, and daemon.concurrency: %d may need %d: fewer jobs run at once",
			limit, conf.Daemon.Concurrency, need)
	}
	return l.findings
}
