package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/confirm"
)

const kindClusterVerification = "backupd/cluster-verification/v1"

type verifyClusterFlags struct {
	plan    string
	wait    time.Duration
	noWrite bool
}

func newVerifyClusterCommand(a *app) *cobra.Command {
	var f verifyClusterFlags
	cmd := &cobra.Command{
		Use:   "verify-cluster --plan FILE",
		Short: "Compare a restored cluster with the plan that it was restored by",
		Long: `Compare a restored cluster with the plan that it was restored by. Every member of the
plan is asked by itself: at --endpoints, and, if none of them is its, at the client URLs
that the others tell. It is looked at whether

  all members answer, and are of the cluster that the plan describes;
  the voters are those of the plan, with their names and peer URLs, and no others;
  all know one leader, and no alarm is active;
  every member holds the plan's data: etcd's HashKV, which covers the keys only;
  auth is enabled or not as in the snapshot, and the auth revision is the snapshot's on
  every member: it counts the changes of users, roles and rights, which are not listed;
  there are as many leases as in the snapshot, with equal IDs (a difference is a warning);
  the cluster takes writes.

The write is one key under ` + confirm.Prefix + `, with a random name and a lease of a
minute, which is put and deleted if all else is as planned: the revision goes up by two.
--no-write leaves it out, and the result says so. HashKV stops a member for about two
seconds for each GB while it is computed: one member is asked at a time, the leader last.

Data can be compared with the plan until the cluster is compacted. Run the command before
clients write: an API server of Kubernetes compacts every five minutes. Later the members
are compared with one another only, and the exit code is 1. The plan describes the restore:
once a member was added, removed or replaced, the command finds that as a failure.

With auth, --user needs the role root. The last lines tell when each phase of the recovery
ended.

Exit code 0 means that all is as planned, 1 that something of the plan is not there or could
not be seen, 4 that a member holds other data, 6 that another cluster than the plan's
answers: for example an old member, one that was restored by another plan, or an etcd that
has made a new WAL from its old flags.`,
		Example: `  backupd verify-cluster --plan plan.yaml --endpoints 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379
  backupd verify-cluster --plan plan.yaml --endpoints https://10.0.0.1:2379 --cacert ca.pem --wait 5m
  backupd verify-cluster --plan plan.yaml --endpoints 10.0.0.1:2379 --no-write -w json`,
		Args:        arguments(0, "no argument"),
		Annotations: needsEtcd,
		RunE:        func(cmd *cobra.Command, _ []string) error { return runVerifyCluster(cmd, a, f) },
	}
	cmd.Flags().StringVar(&f.plan, "plan", "", "the `file` of the plan")
	cmd.Flags().DurationVar(&f.wait, "wait", 0, "ask again until all is as planned, at most this long, such as 5m")
	cmd.Flags().BoolVar(&f.noWrite, "no-write", false, "write nothing to the cluster")
	mustRegister(cmd.MarkFlagFilename("plan"))
	return cmd
}

func runVerifyCluster(cmd *cobra.Command, a *app, f verifyClusterFlags) error {
	switch {
	case f.plan == "":
		return &usageError{errors.New("no plan: give --plan FILE, the one that the members were restored by")}
	case f.wait < 0:
		return &usageError{fmt.Errorf("--wait %v: want a time that is not negative", f.wait)}
	}
	plan, err := readPlan(f.plan)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	report, err := confirm.Run(cmd.Context(), c, plan, confirm.Options{
		NoWrite: f.noWrite, Wait: f.wait, Timeout: max(a.global.dialTimeout, a.global.commandTimeout), Log: a.log.slog,
	})
	if err != nil {
		return err
	}
	if err := printClusterReport(a, report); err != nil {
		return err
	}
	return clusterError(report)
}

// clusterError says how the cluster stands, as an error with its exit code.
func clusterError(r *confirm.Report) error {
	n := count(r.Failures, "failure", "failures")
	switch r.State {
	case confirm.Green:
		return nil
	case confirm.Differs:
		return backup.Corruptf("the cluster holds other data than its plan (%s)", n)
	case confirm.OtherCluster:
		return &backup.RefusedError{Reason: fmt.Sprintf("another cluster than the plan's, %s, answers (%s): "+
			"let no client write", r.ClusterID, n)}
	}
	return fmt.Errorf("the cluster is not yet as planned (%s)", n)
}

func printClusterReport(a *app, r *confirm.Report) error {
	if printed, err := a.document(kindClusterVerification, r); printed {
		return err
	}
	if a.global.writeOut == "table" {
		var rows [][]string
		for _, f := range r.Findings {
			rows = append(rows, []string{f.Section, f.Subject, string(f.Level), f.Text, f.Hint})
		}
		if err := a.printRows([]string{"SECTION", "SUBJECT", "LEVEL", "FINDING", "WHAT TO DO"}, rows); err != nil {
			return err
		}
		return a.printRows([]string{"PHASE", "ENDED", "AFTER"}, phaseRows(r))
	}
	if err := printByHeading(a.stdout, r.Findings, countFindings(r.Findings), colourful(a.stdout)); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "\nrecovery from %s: %s\n", r.Source, r.State)
	out := newColumns(a.stdout)
	for _, row := range phaseRows(r) {
		out.row("  "+row[0], row[1], row[2])
	}
	return out.flush()
}

// phaseRows are the phases of a recovery, each with the time since the one before.
func phaseRows(r *confirm.Report) [][]string {
	var rows [][]string
	for i, p := range r.Phases {
		after := ""
		if i > 0 {
			after = "+" + p.At.Sub(r.Phases[i-1].At).String()
		}
		rows = append(rows, []string{p.Phase, p.At.Format(time.DateTime) + " UTC", after})
	}
	return rows
}
