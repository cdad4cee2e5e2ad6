package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/etcd-backupd/backupd/internal/server"
)

const kindStatus = "backupd/status/v1"

func newStatusCommand(a *app) *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "status [--server URL]",
		Short: "Show how the clusters of a running daemon stand",
		Long: `Show how the clusters of a running daemon stand: the age of the last verified
backup of each, its next run, what is running, until when it is paused, what is wrong and
what to do.

Exit code 0 means that all is well, 3 that some cluster is not, 1 that the
daemon did not answer.`,
		Example: "  backupd status\n  backupd status --server https://backup.example:9387 --token-file token --cacert ca.pem",
		Args:    arguments(0, "no argument"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), a, f) },
	}
	f.register(cmd)
	return cmd
}

// status is what the daemon says, with the running jobs only.
type status struct {
	Clusters []server.Cluster `json:"clusters"`
	Jobs     []server.Job     `json:"jobs"`
}

func runStatus(ctx context.Context, a *app, f daemonFlags) error {
	d, err := f.client(a.global.commandTimeout)
	if err != nil {
		return err
	}
	defer d.close()
	var clusters server.ClusterList
	if err := d.get(ctx, "/clusters", &clusters); err != nil {
		return err
	}
	var jobs server.JobList
	if err := d.get(ctx, "/jobs", &jobs); err != nil {
		return err
	}
	running := slices.DeleteFunc(jobs.Jobs, func(j server.Job) bool { return j.State != server.JobRunning })
	s := status{append([]server.Cluster{}, clusters.Clusters...), append([]server.Job{}, running...)}
	// The worst stands first.
	slices.SortStableFunc(s.Clusters, func(x, y server.Cluster) int {
		return cmp.Or(rank(x.State)-rank(y.State), strings.Compare(x.Name, y.Name),
			strings.Compare(x.Repository, y.Repository))
	})
	if err := printClusters(a, s, time.Now()); err != nil {
		return err
	}
	bad := 0
	for _, c := range s.Clusters {
		if c.State != server.ClusterOK {
			bad++
		}
	}
	if bad > 0 {
		need := "need"
		if bad == 1 {
			need = "needs"
		}
		return &partialError{fmt.Errorf("%d of %s %s attention", bad, count(len(s.Clusters), "cluster", "clusters"), need)}
	}
	return nil
}

// rank orders states; one that is not known is looked at first.
func rank(state string) int {
	return 1 + slices.Index([]string{server.ClusterFailure, server.ClusterWarning, server.ClusterOK}, state)
}

func printClusters(a *app, s status, now time.Time) error {
	if printed, err := a.document(kindStatus, s); printed {
		return err
	}
	header := []string{"CLUSTER", "STATE", "LAST BACKUP", "NEXT RUN", "RUNNING"}
	rows := make([][]string, len(s.Clusters))
	names := map[string]int{}
	for _, c := range s.Clusters {
		names[c.Name]++
	}
	for i, c := range s.Clusters {
		name := nameOf(c.Repository, c.Name, names)
		rows[i] = []string{name, c.State, ago(c.LastSuccess, now), ahead(c.NextRun, now), runningJobs(s.Jobs, c)}
	}
	if a.global.writeOut == "table" {
		for i, c := range s.Clusters {
			rows[i] = append(rows[i], c.Problem, c.Hint, pausedText(c.Pause))
		}
		return a.printRows(append(header, "PROBLEM", "HINT", "PAUSED"), rows)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(a.stdout, "the daemon guards no cluster")
		return err
	}
	return printGlance(a.stdout, s.Clusters, append([][]string{header}, rows...), colourful(a.stdout))
}

// nameOf is the name of a cluster in a listing, with its repository where the
// listing has several clusters of that name.
func nameOf(repository, cluster string, names map[string]int) string {
	if names[cluster] > 1 {
		return repository + "/" + cluster
	}
	return cluster
}

// printGlance prints aligned rows, the first of them the header, and below a
// cluster's row what is wrong with it and what to do.
func printGlance(w io.Writer, clusters []server.Cluster, rows [][]string, colours bool) error {
	l := fit(rows, terminalWidth(w))
	var out strings.Builder
	for i, row := range rows {
		var paint func(int, string) string
		if colours && i > 0 {
			paint = func(column int, text string) string {
				if column == 1 {
					return colour(text)
				}
				return text
			}
		}
		for _, line := range l.lines(row, paint) {
			out.WriteString(line + "\n")
		}
		if i > 0 {
			writeNote(&out, "paused", pausedText(clusters[i-1].Pause))
			writeNote(&out, "problem", clusters[i-1].Problem)
			writeNote(&out, "hint", clusters[i-1].Hint)
		}
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// pausedText says until when a cluster is paused, by whom and why; "" if it is not.
func pausedText(p *server.Pause) string {
	if p == nil {
		return ""
	}
	text := "until " + p.Until.UTC().Format(time.RFC3339)
	if p.By != "" {
		text += " by " + p.By
	}
	return text + ": " + p.Reason
}

func writeNote(out *strings.Builder, name, text string) {
	if text != "" {
		fmt.Fprintf(out, "  %-8s %s\n", name+":", strings.ReplaceAll(text, "\n", "\n           "))
	}
}

// colourful reports whether w shows colours and nobody minds them.
func colourful(w io.Writer) bool {
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func colour(state string) string {
	code, ok := map[string]string{
		server.ClusterOK: "32", server.ClusterWarning: "33", server.ClusterFailure: "1;31",
	}[state]
	if !ok {
		return state
	}
	return "\x1b[" + code + "m" + state + "\x1b[0m"
}

func ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return age(t, now) + " ago"
}

func ahead(t, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.Before(now):
		return "due"
	}
	return "in " + age(now, t)
}

// runningJobs tells what is running for a cluster, and how far it is.
func runningJobs(jobs []server.Job, of server.Cluster) string {
	var out []string
	for _, j := range jobs {
		if j.Repository != of.Repository || j.Cluster != of.Name {
			continue
		}
		text := j.Kind
		if j.Stage != "" && j.Stage != j.Kind {
			text += ": " + j.Stage
		}
		if j.Total > 0 {
			text += fmt.Sprintf(" %d%%", int(100*float64(j.Done)/float64(j.Total)))
		}
		out = append(out, text)
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}
