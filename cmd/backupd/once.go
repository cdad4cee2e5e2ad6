package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/duty"
)

// partialError says that some clusters are done and some are not.
type partialError struct{ err error }

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

// once is one cluster's row of the answer.
type once struct {
	Repository string            `json:"repository"`
	Cluster    string            `json:"cluster"`
	Result     string            `json:"result"` // verified, unconfirmed, suspect, skipped or failed
	Snapshot   backup.SnapshotID `json:"snapshot,omitempty"`
	Reason     string            `json:"reason,omitempty"`
}

// runOnce backs up the clusters of a configuration as the daemon would.
func runOnce(cmd *cobra.Command, a *app, path, clusters string, mayInit bool) error {
	err := excludeConfig(cmd,
		"repo", "repo-id", "endpoints", "recipient", "recipients-file", "compression", "spool", "no-hash-check")
	if err != nil {
		return err
	}
	options, err := a.daemonOptions(cmd, path)
	if err != nil {
		return err
	}
	for name, r := range options.Config.Repositories {
		r.CreateIfMissing = r.CreateIfMissing || mayInit && r.ID == ""
		options.Config.Repositories[name] = r
	}
	guards, err := daemon.NewGuards(cmd.Context(), options)
	if err != nil {
		return err
	}
	var names []string
	if clusters != "" {
		names = strings.Split(clusters, ",")
	}
	outcomes, err := guards.Once(cmd.Context(), names)
	if err != nil {
		return &usageError{fmt.Errorf("--cluster: %w", err)}
	}
	a.progress.stop()
	var rows []once
	var failed []error
	for _, o := range outcomes {
		rows = append(rows, newOnce(o))
		if o.Err != nil {
			failed = append(failed, fmt.Errorf("cluster %s: %w", o.Cluster, o.Err))
		}
	}
	if err := printOnce(a, rows); err != nil {
		return err
	}
	if err = errors.Join(failed...); len(failed) > 0 && len(failed) < len(outcomes) {
		return &partialError{err}
	}
	return err
}

func newOnce(o daemon.Outcome) once {
	r := once{Repository: o.Repository, Cluster: o.Cluster, Snapshot: o.Snapshot, Reason: o.Reason}
	switch o.Result {
	case duty.Succeeded:
		r.Result = "verified"
	case duty.Unconfirmed:
		r.Result = "unconfirmed"
	case duty.Suspect:
		r.Result, r.Reason = "suspect", o.Manifest.Suspect[0]
	case duty.Unaccepted:
		r.Result, r.Reason = "unaccepted", o.Err.Error()
	case duty.Skipped, duty.Passed:
		r.Result = "skipped"
	default:
		r.Result, r.Reason = "failed", o.Err.Error()
	}
	return r
}

func printOnce(a *app, rows []once) error {
	if a.global.writeOut == "json" {
		return printJSON(a.stdout, kindBackups, struct {
			Clusters []once `json:"clusters"`
		}{rows})
	}
	var cells [][]string
	names := map[string]int{}
	for _, r := range rows {
		names[r.Cluster]++
	}
	for _, r := range rows {
		cells = append(cells, []string{nameOf(r.Repository, r.Cluster, names), r.Result, string(r.Snapshot), r.Reason})
	}
	return a.printRows([]string{"CLUSTER", "RESULT", "SNAPSHOT", "REASON"}, cells)
}
