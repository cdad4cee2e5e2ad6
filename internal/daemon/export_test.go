package daemon

import "github.com/etcd-backupd/backupd/internal/duty"

// Waits reports whether the backup of a cluster waits for others. That of one whose last backup
// has failed may.
func (d *Daemon) Waits(key duty.Key) bool {
	state := d.jobs.plan()[jobName(kindBackup, key)]
	return state.Waiting && state.Failures == 0
}
