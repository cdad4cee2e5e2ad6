package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// prunedCluster describes what a prune did, or would do, to one cluster.
type prunedCluster struct {
	Cluster   string            `json:"cluster"`
	Snapshots []backup.PruneRow `json:"snapshots"`
	// Litter are data objects that no manifest names, Pins belong to snapshots that
	// are gone. Both were removed or, in a dry run, would be.
	Litter []string `json:"litter"`
	// MarkedLitter was, or would be, marked as litter. WaitingLitter was marked less than
	// a day ago. Both stay for now.
	MarkedLitter  []string            `json:"markedLitter"`
	WaitingLitter []string            `json:"waitingLitter"`
	Pins          []backup.SnapshotID `json:"pins"`
	Removed       []backup.SnapshotID `json:"removed"`
	Skipped       []prunedSkipped     `json:"skipped"`
	Locked        []string            `json:"locked"`
	// KeptBytes and RemovedBytes are sizes of stored data.
	KeptBytes      int64  `json:"keptBytes"`
	RemovedBytes   int64  `json:"removedBytes"`
	AbortedUploads int    `json:"abortedUploads"`
	Error          string `json:"error,omitempty"`
}

type prunedSkipped struct {
	ID     backup.SnapshotID `json:"id"`
	Reason string            `json:"reason"`
}

type prunedList struct {
	DryRun   bool            `json:"dryRun"`
	Clusters []prunedCluster `json:"clusters"`
}

func newPrunedCluster(p pruned, now time.Time) prunedCluster {
	out := prunedCluster{
		Cluster: p.plan.Cluster, Snapshots: []backup.PruneRow{}, Litter: []string{}, MarkedLitter: []string{},
		WaitingLitter: keysOf(p.plan.Waiting), Pins: []backup.SnapshotID{},
		Removed: []backup.SnapshotID{}, Skipped: []prunedSkipped{}, Locked: []string{}, KeptBytes: p.plan.KeptBytes(),
	}
	for _, d := range p.plan.Decisions {
		out.Snapshots = append(out.Snapshots, d.Row(now))
	}
	if p.err != nil {
		out.Error = p.err.Error()
	}
	if r := p.result; r != nil {
		out.Litter, out.Pins = append(out.Litter, r.Litter...), append(out.Pins, pinsOf(r.Marks)...)
		out.MarkedLitter = append(out.MarkedLitter, r.Marked...)
		out.Removed, out.Locked = append(out.Removed, r.Removed...), append(out.Locked, r.Locked...)
		for _, s := range r.Skipped {
			out.Skipped = append(out.Skipped, prunedSkipped{s.ID, s.Reason})
		}
		out.RemovedBytes, out.AbortedUploads = r.Bytes, r.Uploads
		return out
	}
	out.Litter, out.MarkedLitter = keysOf(p.plan.Litter), keysOf(p.plan.Found)
	out.Pins = append(out.Pins, pinsOf(p.plan.Marks)...)
	return out
}

// keysOf returns the data objects of items.
func keysOf(items []repository.Item) []string {
	out := []string{}
	for _, i := range items {
		for _, o := range i.Data {
			out = append(out, o.Key)
		}
	}
	return out
}

// pinsOf returns the snapshots that the pins among marks are about.
func pinsOf(marks []backup.Key) []backup.SnapshotID {
	var out []backup.SnapshotID
	for _, k := range marks {
		if k.Mark == backup.MarkPin {
			out = append(out, k.ID)
		}
	}
	return out
}

func printPruned(a *app, all []pruned, dryRun bool) error {
	clusters, now := []prunedCluster{}, time.Now()
	for _, p := range all {
		clusters = append(clusters, newPrunedCluster(p, now))
	}
	if printed, err := a.document(kindPrune, prunedList{dryRun, clusters}); printed {
		return err
	}
	if err := printDecisions(a, clusters, now); err != nil {
		return err
	}
	for i, c := range clusters {
		printPrunedSummary(a, c, dryRun)
		if limit := all[i].limit; limit > 0 && c.KeptBytes > limit {
			fmt.Fprintf(a.stdout, "%s: %s stay, more than --max-bytes: snapshots that always stay take that much\n",
				c.Cluster, humanize.IBytes(uint64(c.KeptBytes)))
		}
	}
	return nil
}

func printDecisions(a *app, clusters []prunedCluster, now time.Time) error {
	var cells [][]string
	for _, c := range clusters {
		for _, d := range c.Snapshots {
			action := "remove"
			if d.Keep {
				action = "keep"
			}
			reasons := strings.Join(d.Reasons, "; ")
			if d.Reason != "" {
				reasons += " (" + d.Reason + ")"
			}
			cells = append(cells, []string{c.Cluster, string(d.ID), ageOf(d.ID, now),
				humanize.IBytes(uint64(d.StoredBytes)), d.Timeline, string(d.State), action, reasons})
		}
	}
	return a.printRows([]string{"CLUSTER", "ID", "AGE", "STORED", "TIMELINE", "STATE", "ACTION", "REASONS"}, cells)
}

func printPrunedSummary(a *app, c prunedCluster, dryRun bool) {
	say := func(format string, args ...any) { fmt.Fprintf(a.stdout, c.Cluster+": "+format+"\n", args...) }
	if c.Error != "" {
		say("failed") // why is the error of the command
	}
	if c.Error != "" && len(c.Snapshots) == 0 {
		return // nothing is known of it
	}
	verb := map[bool]string{true: "would remove", false: "removed"}[dryRun]
	for _, key := range c.Litter {
		say("%s %s: no manifest names it", verb, key)
	}
	for _, key := range c.MarkedLitter {
		say("%s %s as litter: no manifest names it; a prune after a day or more removes it",
			map[bool]string{true: "would mark", false: "marked"}[dryRun], key)
	}
	for _, key := range c.WaitingLitter {
		say("%s is marked as litter: a prune a day after that removes it", key)
	}
	for _, id := range c.Pins {
		say("%s the pin of %s: the snapshot is gone", verb, id)
	}
	for _, key := range c.Locked {
		say("skipped %s: locked by the store", key)
	}
	for _, s := range c.Skipped {
		say("skipped %s: %s meanwhile", s.ID, s.Reason)
	}
	if c.AbortedUploads > 0 {
		say("removed %s from the repository", count(c.AbortedUploads, "unfinished upload", "unfinished uploads"))
	}
	snapshots := count(len(c.Snapshots), "snapshot", "snapshots")
	if dryRun {
		n, bytes := 0, int64(0)
		for _, d := range c.Snapshots {
			if !d.Keep {
				n, bytes = n+1, bytes+d.StoredBytes
			}
		}
		say("would remove %d of %s, %s", n, snapshots, humanize.IBytes(uint64(bytes)))
		return
	}
	say("removed %d of %s, %s", len(c.Removed), snapshots, humanize.IBytes(uint64(c.RemovedBytes)))
}
