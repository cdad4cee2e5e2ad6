package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/check/host"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/spool"
)

func newConfigCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and explain the daemon's configuration",
		Args:  arguments(0, "a subcommand"),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(a),
		newPrintCommand(a, "example", "Print a complete configuration with comments",
			"  backupd config example > backupd.yaml", config.Example),
		newPrintCommand(a, "schema", "Print the JSON Schema of the configuration, for editors",
			"  backupd config schema > backupd.schema.json", config.Schema))
	return cmd
}

func newPrintCommand(a *app, name, short, example string, text []byte) *cobra.Command {
	return &cobra.Command{
		Use:     name,
		Short:   short,
		Example: example,
		Args:    arguments(0, "no argument"),
		RunE: func(*cobra.Command, []string) error {
			_, err := a.stdout.Write(text)
			return err
		},
	}
}

func newConfigCheckCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Find every mistake in a configuration, and show the next runs",
		Long: `Find every mistake in a configuration, and show the next runs.

All mistakes are reported at once, with line, column and excerpt. The files that the
configuration names must be readable and hold what they should. If all is well, the
next five runs of every schedule are printed. Nothing is connected to: 'backupd check'
does that. Exit code 78 means that something is wrong.

` + exitHelp,
		Example: `  backupd config check /etc/backupd/backupd.yaml`,
		Args:    arguments(1, "one configuration file"),
		RunE:    func(_ *cobra.Command, args []string) error { return runConfigCheck(a, args[0], time.Now()) },
	}
}

// runs holds the next runs of one schedule of a cluster.
type runs struct {
	Cluster  string      `json:"cluster"`
	Job      string      `json:"job"`
	Schedule string      `json:"schedule"`
	TimeZone string      `json:"timeZone"`
	Next     []time.Time `json:"nextRuns"`
}

// configChecked is the answer for machines about a good configuration.
type configChecked struct {
	File      string `json:"file"`
	Schedules []runs `json:"schedules"`
	// Spool says that the spool can take the room of an etcd on this host, and Hint what
	// to do about it.
	Spool string `json:"spool,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// nextRuns is how many runs of each schedule are shown.
const nextRuns = 5

func runConfigCheck(a *app, path string, now time.Time) error {
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	if problems := c.CheckFiles(); len(problems) > 0 {
		return &config.Error{Problems: problems}
	}
	if err := checkReserve(c); err != nil {
		return err
	}
	all, err := plannedRuns(c, now)
	if err != nil {
		return err
	}
	doc := configChecked{File: path, Schedules: all}
	doc.Spool, doc.Hint = besideEtcd(c)
	if printed, err := a.document(kindConfigCheck, doc); printed {
		return err
	}
	if err := printRuns(a, all); err != nil {
		return err
	}
	if doc.Spool != "" {
		if _, err := fmt.Fprintf(a.stdout, "\nspool: %s\nhint: %s\n", doc.Spool, doc.Hint); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s is good: %s, %s\n", path,
		count(len(c.Clusters), "cluster", "clusters"), count(len(c.Repositories), "repository", "repositories"))
	return err
}

// besideEtcd says that the spool can take the room of an etcd on this host, or "" if none
// is seen.
func besideEtcd(c *config.Config) (text, hint string) {
	folder := spool.Folder{Dir: c.Daemon.Spool.Folder, MinFree: c.Daemon.Spool.Reserve()}
	fs, reserve, err := folder.Room()
	if err != nil {
		return "", "" // the folder is made later; the check of files reports one that is named
	}
	return host.Report(host.Spool{Files: fs, Reserve: reserve, Endpoints: c.Endpoints()}, host.Find("/"))
}

// checkReserve returns an error if the reserve that the configuration gives lets no spool
// begin on this host, of the largest database of an etcd that is seen beside it.
func checkReserve(c *config.Config) error {
	folder := spool.Folder{Dir: c.Daemon.Spool.Folder, MinFree: c.Daemon.Spool.Reserve()}
	fs, reserve, err := folder.Room()
	if err != nil || c.Daemon.Spool.MinFree == "" {
		return nil // the default may be too much for this host alone; 'backupd check' says so
	}
	database := int64(0)
	for _, d := range host.Beside(fs, host.Find("/")) {
		database = max(database, d.Database)
	}
	if text := spool.Never(fs, reserve, database); text != "" {
		return c.Wrong("daemon.spool.min-free", text+"; lower it, or name a larger folder in daemon.spool.folder")
	}
	return nil
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func plannedRuns(c *config.Config, now time.Time) ([]runs, error) {
	out := []runs{}
	for i := range c.Clusters {
		cl := &c.Clusters[i]
		snapshot, err1 := cl.Snapshot.Line()
		verify, err2 := cl.Verify.Line()
		defragment, err3 := cl.Defragment.Line()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		for _, job := range []struct {
			name string
			line schedule.Line
		}{{"backup", snapshot}, {"verify", verify}, {"defragment", defragment}} {
			if job.line.IsZero() {
				continue
			}
			r := runs{Cluster: cl.Name, Job: job.name, Schedule: job.line.String(), TimeZone: job.line.Location().String()}
			for t := job.line.Next(now); !t.IsZero() && len(r.Next) < nextRuns; t = job.line.Next(t) {
				r.Next = append(r.Next, t)
			}
			out = append(out, r)
		}
	}
	return out, nil
}

func printRuns(a *app, all []runs) error {
	var rows [][]string
	for _, r := range all {
		for i, t := range r.Next {
			row := []string{r.Cluster, r.Job, r.Schedule,
				t.Format("Mon 2006-01-02 15:04:05 MST"), t.UTC().Format("2006-01-02T15:04:05Z")}
			if i > 0 {
				row[0], row[1], row[2] = "", "", ""
			}
			rows = append(rows, row)
		}
	}
	return a.printRows([]string{"CLUSTER", "JOB", "SCHEDULE", "NEXT RUNS", "IN UTC"}, rows)
}
