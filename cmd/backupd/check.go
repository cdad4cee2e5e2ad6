package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/check/companions"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// Kinds of JSON documents.
const (
	kindCheck    = "backupd/check/v1"
	kindPolicies = "backupd/iam-policies/v1"
)

type checkFlags struct {
	config   string
	clusters []string
	notify   bool
	policy   bool

	companions companionFlags
}

func newCheckCommand(a *app) *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check --config FILE | --companion PATH ... | --companion-from FILE ...",
		Short: "Try everything that backups and restores will need",
		Long: `Try everything that backups and restores will need, and report what would fail and what
to do about it. The command checks files, certificates, schedules and retention, connects
to every endpoint of every cluster, receives the first bytes of a snapshot, writes to the
spool folder, and creates, reads, lists and deletes objects in every repository, in a
folder of their own. It reads the companion files of each cluster, and the Secrets among
them, as a backup would, and says which are missing, and why.

Nothing is left behind, unless the credentials of a repository may not delete. Run it on
the daemon's host and as the daemon's user; the daemon may run meanwhile.

Without a configuration, --companion, --companion-from and --companion-secret try what 'backup'
would store by these flags, and nothing else.

Exit code 0 means that there is no failure, though there may be warnings; 1 means that
there is a failure; 78 means that the configuration cannot be read.`,
		Example: `  backupd check --config /etc/backupd/backupd.yaml
  backupd check --config backupd.yaml --cluster prod,staging --notify
  backupd check --config backupd.yaml --iam-policy
  backupd check --companion /etc/kubernetes/pki --companion-from /etc/kubernetes/manifests/etcd.yaml`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if givenCluster(cmd, "given") == "" {
				f.clusters = nil
			}
			return runCheck(cmd, a, f)
		},
	}
	registerConfig(cmd, &f.config)
	cmd.Flags().StringSliceVar(&f.clusters, "cluster", nil,
		"names of the clusters to check, separated by commas (default: all)")
	mustRegister(cmd.RegisterFlagCompletionFunc("cluster", completeClusters(&repoFlags{})))
	cmd.Flags().BoolVar(&f.notify, "notify", false, "send a test to every receiver of notifications")
	cmd.Flags().BoolVar(&f.policy, "iam-policy", false,
		"check nothing, and print the smallest IAM policy for the buckets")
	f.companions.register(cmd)
	return cmd
}

func runCheck(cmd *cobra.Command, a *app, f checkFlags) error {
	ctx := cmd.Context()
	if files, err := f.companions.named(); err != nil {
		return err
	} else if !files.None() {
		return checkCompanions(cmd, a, f, files)
	}
	if f.config == "" {
		return notTold(cmd, errNoConfiguration)
	}
	conf, err := config.Load(f.config)
	if err != nil {
		return err
	}
	for _, name := range f.clusters {
		if !slices.ContainsFunc(conf.Clusters, func(c config.Cluster) bool { return c.Name == name }) {
			return &usageError{fmt.Errorf("--cluster: there is no cluster %q in %s", name, f.config)}
		}
	}
	policies, err := conf.Policies()
	if err != nil {
		return err
	}
	if f.policy {
		return printPolicies(a, policies)
	}
	findings := check.Run(ctx, conf, check.Options{
		Clusters: f.clusters, Notify: f.notify, Trace: from.Trace, Log: a.log.slog,
	})
	if ctx.Err() != nil {
		return fmt.Errorf("check: %w", context.Cause(ctx))
	}
	return judge(a, findings, policies)
}

// checkCompanions tries the files of the command line alone.
func checkCompanions(cmd *cobra.Command, a *app, f checkFlags, files companion.Files) error {
	if f.config != "" {
		return excludeConfig(cmd, "companion", "companion-from", "companion-secret", "kubeconfig")
	}
	for _, name := range []string{"cluster", "notify", "iam-policy"} {
		if given := cmd.Flags().Lookup(name); given.Changed && given.Annotations[fromEnv] == nil {
			return &usageError{fmt.Errorf("--%s needs --config: --companion alone tries only these files", name)}
		}
	}
	if err := f.companions.checkAccess(files); err != nil {
		return err
	}
	return judge(a, companions.Check(cmd.Context(), files, "host "+files.Host, f.companions.unencrypted), nil)
}

// judge prints findings. It is an error if one of them is a failure.
func judge(a *app, findings []backup.Finding, policies []config.Policy) error {
	if err := printFindings(a, findings, policies); err != nil {
		return err
	}
	if n := countFindings(findings)[backup.LevelFailure]; n > 0 {
		return fmt.Errorf("%s of %s", count(n, "failure", "failures"), count(len(findings), "finding", "findings"))
	}
	return nil
}

func countFindings(findings []backup.Finding) map[backup.Level]int {
	n := map[backup.Level]int{}
	for _, f := range findings {
		n[f.Level]++
	}
	return n
}

// checked is the answer for machines.
type checked struct {
	Failures int              `json:"failures"`
	Warnings int              `json:"warnings"`
	Findings []backup.Finding `json:"findings"`
	Policies []config.Policy  `json:"policies"`
}

type policyList struct {
	Policies []config.Policy `json:"policies"`
}

func printFindings(a *app, findings []backup.Finding, policies []config.Policy) error {
	n := countFindings(findings)
	doc := checked{n[backup.LevelFailure], n[backup.LevelWarning],
		append([]backup.Finding{}, findings...), append([]config.Policy{}, policies...)}
	if printed, err := a.document(kindCheck, doc); printed {
		return err
	}
	if a.global.writeOut == "table" {
		var rows [][]string
		for _, f := range findings {
			rows = append(rows, []string{f.Section, f.Subject, string(f.Level), f.Text, f.Hint})
		}
		return a.printRows([]string{"SECTION", "SUBJECT", "LEVEL", "FINDING", "WHAT TO DO"}, rows)
	}
	return printByHeading(a.stdout, findings, n, colourful(a.stdout))
}

func printByHeading(w io.Writer, findings []backup.Finding, n map[backup.Level]int, colours bool) error {
	var out strings.Builder
	heading := ""
	for _, f := range findings {
		if h := f.Section + ": " + f.Subject; h != heading {
			heading = h
			fmt.Fprintf(&out, "%s\n", h)
		}
		level := fmt.Sprintf("%-8s", f.Level)
		if colours {
			level = strings.Replace(level, string(f.Level), colour(string(f.Level)), 1)
		}
		fmt.Fprintf(&out, "  %s %s\n", level, indentMore(f.Text))
		if f.Hint != "" {
			fmt.Fprintf(&out, "           -> %s\n", indentMore(f.Hint))
		}
	}
	fmt.Fprintf(&out, "\n%d ok, %s, %s\n", n[backup.LevelOK], count(n[backup.LevelWarning], "warning", "warnings"),
		count(n[backup.LevelFailure], "failure", "failures"))
	_, err := io.WriteString(w, out.String())
	return err
}

// printPolicies prints a single policy in the form that a service takes.
func printPolicies(a *app, policies []config.Policy) error {
	if len(policies) == 0 {
		return errors.New("no repository of the configuration is in a bucket, so there is no policy")
	}
	if printed, err := a.document(kindPolicies, policyList{policies}); printed {
		return err
	}
	for _, p := range policies {
		if len(policies) > 1 {
			fmt.Fprintf(a.stdout, "# repository %s\n", p.Repository)
		}
		fmt.Fprintf(a.stdout, "%s\n", p.Policy)
	}
	return nil
}

func indentMore(text string) string { return strings.ReplaceAll(text, "\n", "\n           ") }
