package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

const kindCopy = "backupd/copy/v1"

// copiedList says what was copied, or would be.
type copiedList struct {
	DryRun   bool            `json:"dryRun"`
	From     copiedPlace     `json:"copiedFrom"`
	To       copiedPlace     `json:"copiedTo"`
	Clusters []copiedCluster `json:"clusters"`
}

type copiedPlace struct {
	URL          string `json:"url"`
	RepositoryID string `json:"repositoryID"`
}

type copiedCluster struct {
	Cluster string `json:"cluster"`
	// Snapshots are those that were missing at the destination, or are left out.
	Snapshots []copiedRow `json:"snapshots"`
	// Held is how many snapshots the destination had already.
	Held         int                 `json:"held"`
	MissingBytes int64               `json:"missingBytes"` // of the data that was missing
	CopiedBytes  int64               `json:"copiedBytes"`
	Pins         []backup.SnapshotID `json:"copiedPins"` // of snapshots that it had already
	Acceptances  []copiedAcceptance  `json:"acceptances"`
	Error        string              `json:"error,omitempty"`
}

// Results of a copy.
const (
	resultCopied  = "copied"
	resultMissing = "missing"
	resultLeftOut = "left-out"
)

type copiedRow struct {
	backup.Row
	Result string `json:"result"`
	Cause  string `json:"cause,omitempty"`
}

// copiedAcceptance is a statement of which history is the present one.
type copiedAcceptance struct {
	Key    string `json:"key"`
	Result string `json:"result"`
	Reason string `json:"reason,omitempty"`
}

func newCopiedCluster(c *copied, now time.Time) copiedCluster {
	out := copiedCluster{
		Cluster: c.plan.Cluster, Snapshots: []copiedRow{}, Held: c.plan.Held, MissingBytes: c.plan.Bytes(),
		Pins: []backup.SnapshotID{}, Acceptances: []copiedAcceptance{},
	}
	results := map[backup.SnapshotID]copiedRow{}
	for _, l := range c.leftOut() {
		results[l.Item.ID] = copiedRow{Row: backup.Row{Reason: l.Reason}, Result: resultLeftOut, Cause: string(l.Cause)}
	}
	made := map[backup.Key]bool{}
	if r := c.result; r != nil {
		out.CopiedBytes = r.Bytes
		for _, i := range r.Copied {
			results[i.ID] = copiedRow{Result: resultCopied}
		}
		for _, k := range r.Pins {
			out.Pins = append(out.Pins, k.ID)
		}
		for _, k := range r.Acceptances {
			made[k] = true
		}
	} else {
		for _, k := range c.plan.Pins {
			out.Pins = append(out.Pins, k.ID)
		}
	}
	for _, i := range c.plan.Missing {
		out.add(&i, results, now)
	}
	for _, l := range c.plan.LeftOut {
		out.add(&l.Item, results, now)
	}
	for _, k := range c.plan.Acceptances {
		a := copiedAcceptance{Key: k.String(), Result: resultMissing}
		if made[k] {
			a.Result = resultCopied
		}
		out.Acceptances = append(out.Acceptances, a)
	}
	for _, d := range c.plan.Disputed {
		out.Acceptances = append(out.Acceptances, copiedAcceptance{d.Key.String(), resultLeftOut, d.Reason})
	}
	if c.err != nil {
		out.Error = c.err.Error()
	}
	return out
}

func (c *copiedCluster) add(i *repository.Item, results map[backup.SnapshotID]copiedRow, now time.Time) {
	row, known := results[i.ID]
	if !known {
		row.Result = resultMissing
	}
	reason := row.Reason
	row.Row = i.Row(now)
	if reason != "" {
		row.Reason = reason
	}
	c.Snapshots = append(c.Snapshots, row)
}

func printCopied(a *app, o *copyOptions, all []copied, from, to *repository.Repository) error {
	list := copiedList{
		DryRun: o.dryRun, From: copiedPlace{o.from.url, from.ID()}, To: copiedPlace{o.to.url, to.ID()},
		Clusters: []copiedCluster{},
	}
	now := time.Now()
	for n := range all {
		list.Clusters = append(list.Clusters, newCopiedCluster(&all[n], now))
	}
	if printed, err := a.document(kindCopy, list); printed {
		return err
	}
	var cells [][]string
	for _, c := range list.Clusters {
		for _, s := range c.Snapshots {
			cells = append(cells, []string{c.Cluster, string(s.ID), ageOf(s.ID, now),
				humanize.IBytes(uint64(s.StoredBytes)), string(s.State), strings.ReplaceAll(s.Result, "-", " "), s.Reason})
		}
	}
	if len(cells) > 0 {
		if err := a.printRows([]string{"CLUSTER", "ID", "AGE", "STORED", "STATE", "RESULT", "REASON"}, cells); err != nil {
			return err
		}
	}
	for _, c := range list.Clusters {
		printCopySummary(a, o, c)
	}
	return nil
}

func printCopySummary(a *app, o *copyOptions, c copiedCluster) {
	say := func(format string, args ...any) { fmt.Fprintf(a.stdout, c.Cluster+": "+format+"\n", args...) }
	if c.Error != "" {
		say("failed") // why is the error of the command
		if len(c.Snapshots) == 0 && c.Held == 0 {
			return // nothing is known of it
		}
	}
	verb := map[bool]string{true: "would copy", false: "copied"}[o.dryRun]
	for _, id := range c.Pins {
		say("%s the pin of %s", verb, id)
	}
	for _, k := range c.Acceptances {
		switch {
		case k.Result == resultLeftOut:
			say("left out %s: %s; 'backupd timeline accept' states it there, too", k.Key, k.Reason)
		case k.Result == resultCopied || o.dryRun:
			say("%s %s: which history is the present one", verb, k.Key)
		}
	}
	n, missing := map[string]int{}, 0
	for _, s := range c.Snapshots {
		if n[s.Result]++; s.Result != resultLeftOut {
			missing++
		}
	}
	there := count(c.Held, "is", "are") + " there already"
	if o.dryRun {
		say("would copy %s, %s; %s, %d left out", count(missing, "snapshot", "snapshots"),
			humanize.IBytes(uint64(c.MissingBytes)), there, n[resultLeftOut])
		return
	}
	say("copied %d of %s, %s; %s, %d left out", n[resultCopied], count(missing, "missing snapshot", "missing snapshots"),
		humanize.IBytes(uint64(c.CopiedBytes)), there, n[resultLeftOut])
}
