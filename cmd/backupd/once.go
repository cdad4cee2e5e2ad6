package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/server"
)

// partialError says that some clusters or files are done and some are not.
type partialError struct{ err error }

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

// once is one cluster's row of the answer.
type once struct {
	Repository string            `json:"repository"`
	Cluster    string            `json:"cluster"`
	State      string            `json:"state"` // that of the job in the API
	Snapshot   backup.SnapshotID `json:"snapshot,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Error      string            `json:"error,omitempty"`
}

type onceList struct {
	Clusters []once `json:"clusters"`
}

// runOnce backs up the clusters of a configuration as the daemon would.
func runOnce(cmd *cobra.Command, a *app, o backupOptions) error {
	err := excludeConfig(cmd,
		"repo", "repo-id", "endpoints", "recipient", "recipients-file", "unencrypted", "compression", "spool",
		"spool-min-free", "hash-check", "companion", "companion-from", "companion-secret", "kubeconfig",
		"companions-unencrypted", "allow-near-quota", "max-rate", "file-min-free")
	if err != nil {
		return err
	}
	options, err := a.daemonOptions(cmd, o.config)
	if err != nil {
		return err
	}
	for name, r := range options.Config.Repositories {
		r.CreateIfMissing = r.CreateIfMissing || o.init && r.ID == ""
		options.Config.Repositories[name] = r
	}
	metrics, err := openMetricsFile(a, o.metricsFile)
	if err != nil {
		return err
	}
	guards, err := daemon.NewGuards(cmd.Context(), options)
	if err != nil {
		return err
	}
	var names []string
	if clusters := givenCluster(cmd, o.repo.cluster); clusters != "" {
		names = strings.Split(clusters, ",")
	}
	outcomes, err := guards.Once(cmd.Context(), names)
	if err != nil {
		return &usageError{fmt.Errorf("--cluster: %w", err)}
	}
	unwritten := metrics.write(guards, outcomes)
	a.progress.stop()
	return orUnwritten(answerOnce(a, outcomes), unwritten)
}

// answerOnce prints what became of each cluster, and returns what failed.
func answerOnce(a *app, outcomes []daemon.Outcome) error {
	var rows []once
	var failed []error
	for _, o := range outcomes {
		rows = append(rows, newOnce(o))
		if o.Err != nil {
			failed = append(failed, ofCluster(o.Cluster, o.Err))
		}
	}
	if err := printOnce(a, rows); err != nil {
		return err
	}
	err := errors.Join(failed...)
	if len(failed) > 0 && len(failed) < len(outcomes) {
		return &partialError{err}
	}
	return err
}

// ofCluster says of which cluster an error is, unless it begins with that itself.
func ofCluster(name string, err error) error {
	if strings.HasPrefix(err.Error(), "cluster "+name+" ") {
		return err
	}
	return fmt.Errorf("cluster %s: %w", name, err)
}

func newOnce(o daemon.Outcome) once {
	r := once{Repository: o.Repository, Cluster: o.Cluster, Snapshot: o.Snapshot, Reason: o.Reason}
	switch o.Result {
	case duty.Succeeded:
		r.State = server.JobSucceeded
	case duty.Unconfirmed:
		r.State = server.JobUnconfirmed
	case duty.Suspect:
		r.State, r.Reason = server.JobSuspect, o.Manifest.Suspect[0]
	case duty.Skipped, duty.Passed, duty.Paused:
		r.State = server.JobSkipped
	default: // duty.Unaccepted and duty.Incomplete, too
		r.State = server.JobFailed
	}
	if o.Err != nil {
		r.Error = o.Err.Error()
	}
	if o.Prune != nil && o.Prune.Err != nil && r.Reason == "" {
		r.Reason = "old snapshots stay: " + o.Prune.Err.Error()
	}
	return r
}

func printOnce(a *app, rows []once) error {
	if printed, err := a.document(kindBackups, onceList{append([]once{}, rows...)}); printed {
		return err
	}
	var cells [][]string
	names := map[string]int{}
	for _, r := range rows {
		names[r.Cluster]++
	}
	for _, r := range rows {
		state := r.State
		if state == server.JobSucceeded {
			state = "verified"
		}
		cells = append(cells, []string{nameOf(r.Repository, r.Cluster, names), state, string(r.Snapshot), r.Reason})
	}
	return a.printRows([]string{"CLUSTER", "RESULT", "SNAPSHOT", "REASON"}, cells)
}
