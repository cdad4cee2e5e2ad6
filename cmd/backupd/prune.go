package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // time zones, where the machine has none

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/repository/streams"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
)

type pruneOptions struct {
	repo        repoFlags
	config      string
	allClusters bool
	policy      retention.Policy
	maxBytes    byteSize
	timeZone    string
	hashCheck   string
	dryRun      bool
}

func newPruneCommand(a *app) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune --repo REPO --cluster NAME --keep-... | --config FILE",
		Short: "Remove the snapshots that no rule keeps",
		Long: `Remove the snapshots that no rule keeps, and the remains of interrupted work: data
older than a day that no manifest names, unfinished uploads, and marks of snapshots
that are gone. Such data is marked first, and removed by a prune a day later that still
finds no manifest. A removed snapshot leaves a mark for 30 days, which says that it was
not lost.

A snapshot stays if any rule keeps it; without a keep rule all stay. The rules apply to
each timeline by itself, and the newest snapshot is the furthest of its timeline, whatever
the clocks said. While a timeline is not accepted, all snapshots of the older ones stay
(--freeze-for). Pinned snapshots and the newest verified ones (--min-verified) always stay.
Suspect, damaged and unconfirmed snapshots count for no rule, and while the newest one is
suspect or damaged no verified one is removed. Of many suspect ones in a row some stay.

--dry-run shows the same decisions and removes nothing. An object that the store has
locked is skipped and reported. The first deletion that fails ends the work on its
cluster.

With --config the daemon's configuration gives the clusters, repositories and rules.
If some of them fail, the others are pruned all the same.

` + exitHelp,
		Example: `  backupd prune --repo s3://backups/etcd --cluster prod --keep-daily 14 --keep-weekly 8 --dry-run
  backupd prune --config /etc/backupd/backupd.yaml`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runPrune(cmd, a, o) },
	}
	o.repo.register(cmd)
	o.register(cmd)
	return cmd
}

// policyFlags are the flags that --config replaces.
var policyFlags = []string{
	"keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly", "keep-within",
	"min-verified", "min-age", "max-bytes", "freeze-for", "hash-check", "time-zone",
}

func (o *pruneOptions) register(cmd *cobra.Command) {
	f, p := cmd.Flags(), &o.policy
	f.IntVar(&p.Last, "keep-last", 0, "keep that many newest snapshots")
	f.IntVar(&p.Hourly, "keep-hourly", 0, "keep the newest snapshot of each of that many hours that have one")
	f.IntVar(&p.Daily, "keep-daily", 0, "keep the newest snapshot of each of that many days that have one")
	f.IntVar(&p.Weekly, "keep-weekly", 0, "keep the newest snapshot of each of that many weeks that have one")
	f.IntVar(&p.Monthly, "keep-monthly", 0, "keep the newest snapshot of each of that many months that have one")
	f.IntVar(&p.Yearly, "keep-yearly", 0, "keep the newest snapshot of each of that many years that have one")
	f.DurationVar(&p.Within, "keep-within", 0,
		"keep all snapshots begun less than this before the newest verified one, such as 168h")
	f.IntVar(&p.MinVerified, "min-verified", 3,
		"how many of the newest verified snapshots of a timeline always stay, at least 1")
	f.DurationVar(&p.MinAge, "min-age", 0, "age below which no snapshot is removed")
	f.Var(&o.maxBytes, "max-bytes", "maximum total size, such as 500GiB: the oldest snapshots are removed, "+
		"even if a keep rule matches, until the total fits")
	f.DurationVar(&p.FreezeFor, "freeze-for", retention.FreezeFor,
		"how long a timeline that is not accepted keeps all snapshots of older timelines")
	f.StringVar(&o.hashCheck, "hash-check", compare.One.String(),
		"how snapshots are compared when they are taken: one, all, off; with off unconfirmed ones count as verified")
	mustRegister(cmd.RegisterFlagCompletionFunc("hash-check", fixed(compare.Policies...)))
	f.StringVar(&o.timeZone, "time-zone", "UTC", "time zone in which hours, days and weeks are counted")
	f.BoolVar(&o.allClusters, "all-clusters", false, "prune every cluster of the repository by these rules")
	f.StringVar(&o.config, "config", "", "the daemon's configuration, in place of --repo and the rules")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be removed")
}

// byteSize is a flag for a number of bytes, with a unit or without.
type byteSize int64

func (b *byteSize) String() string { return fmt.Sprint(int64(*b)) }
func (b *byteSize) Type() string   { return "bytes" }

func (b *byteSize) Set(text string) error {
	n, err := humanize.ParseBytes(text)
	if err != nil || n > 1<<62 {
		return errors.New("want a number of bytes, such as 500GiB")
	}
	*b = byteSize(n)
	return nil
}

func runPrune(cmd *cobra.Command, a *app, o pruneOptions) error {
	ctx := cmd.Context()
	pruners, err := o.pruners(cmd, a)
	if err != nil {
		return err
	}
	var out []pruned
	var failed []error
	for _, p := range pruners {
		done := p.prune(ctx, o.dryRun, a.log.slog)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if done.err != nil {
			failed = append(failed, ofCluster(p.name, done.err))
		}
		out = append(out, done)
	}
	if err := printPruned(a, out, o.dryRun); err != nil {
		return err
	}
	if err := errors.Join(failed...); len(failed) == 0 || len(failed) == len(out) {
		return err
	}
	return &partialError{errors.Join(failed...)}
}

// pruned is the result for one cluster.
type pruned struct {
	plan   *prune.Plan
	result *prune.Result // nil in a dry run
	limit  int64
	err    error
}

// pruner is one cluster with the policy that it is pruned by.
type pruner struct {
	name   string
	in     *repository.Cluster
	policy retention.Policy
	closed error // why the repository cannot be opened; then in is nil
}

func (p pruner) prune(ctx context.Context, dryRun bool, log *slog.Logger) pruned {
	done := pruned{plan: &prune.Plan{Cluster: p.name}, limit: p.policy.MaxBytes, err: p.closed}
	if done.err != nil {
		return done
	}
	now := time.Now()
	o, err := p.in.Lenient(p.policy.CountUnconfirmed).Look(ctx, prune.Vouch(p.policy), nil, now)
	if err != nil {
		done.err = err
		return done
	}
	plan, err := prune.NewPlan(o, p.policy, now)
	if err != nil {
		done.err = err
		return done
	}
	done.plan = plan
	if !dryRun {
		// Since the look the repository's disk may have been replaced.
		if done.err = p.in.Repository().Check(ctx); done.err != nil {
			return done
		}
		done.result, done.err = prune.Run(ctx, p.in, plan, whoami(), log.With("cluster", p.in.Name()))
		if done.err == nil { // who takes snapshots may not delete: what they announced is over
			_, done.err = streams.Of(p.in.Repository().Store(), p.in.Name()).Open(ctx, now)
		}
	}
	return done
}

// pruners returns one pruner for each cluster that the flags name.
func (o *pruneOptions) pruners(cmd *cobra.Command, a *app) ([]pruner, error) {
	if o.config != "" {
		return o.configured(cmd, a)
	}
	if o.repo.repo == "" {
		return nil, notTold(cmd, errNoRepository)
	}
	location, err := time.LoadLocation(o.timeZone)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--time-zone %q is not known: want a name such as Europe/Berlin", o.timeZone)}
	}
	hashes, err := compare.ParsePolicy(o.hashCheck)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--%w", err)}
	}
	policy := o.policy
	policy.CountUnconfirmed = hashes == compare.Off
	policy.MaxBytes, policy.Location = int64(o.maxBytes), location
	if err := policy.Check(); err != nil {
		return nil, &usageError{fmt.Errorf("--%w", err)}
	}
	if policy.MinVerified < 1 {
		return nil, &usageError{errors.New("--min-verified: want at least 1")}
	}
	if (o.repo.cluster == "") == !o.allClusters {
		return nil, &usageError{errors.New("name the cluster with --cluster, or give --all-clusters")}
	}
	open := opener(o.repo.openToWrite)
	if o.dryRun {
		open = o.repo.openToRead
	}
	repo, err := open(cmd.Context(), a)
	if err != nil {
		return nil, err
	}
	if err := o.repo.missing(cmd.Context(), repo); err != nil {
		return nil, err
	}
	clusters := []string{o.repo.cluster}
	if o.allClusters {
		if clusters, err = repo.Clusters(cmd.Context()); err != nil {
			return nil, err
		}
	}
	var out []pruner
	for _, c := range clusters {
		out = append(out, pruner{name: c, in: repo.Cluster(c), policy: policy})
	}
	return out, nil
}

// configured returns one pruner for each cluster of the configuration that the flags
// name. A repository that cannot be opened is the failure of its clusters alone.
func (o *pruneOptions) configured(cmd *cobra.Command, a *app) ([]pruner, error) {
	if err := excludeConfig(cmd, append(policyFlags, "repo", "repo-id", "all-clusters")...); err != nil {
		return nil, err
	}
	conf, err := config.Load(o.config)
	if err != nil {
		return nil, err
	}
	var names []string
	only := givenCluster(cmd, o.repo.cluster)
	if only != "" {
		names = strings.Split(only, ",")
	}
	var chosen []config.Cluster
	for _, c := range conf.Clusters {
		if i := slices.Index(names, c.Name); i >= 0 {
			names = slices.Delete(names, i, i+1)
		} else if only != "" {
			continue
		}
		chosen = append(chosen, c)
	}
	if len(names) > 0 {
		return nil, &usageError{fmt.Errorf("--cluster %s: not in %s", strings.Join(names, ","), o.config)}
	}
	opened, failed := map[string]*repository.Repository{}, map[string]error{}
	var out []pruner
	for _, c := range chosen {
		if opened[c.Repository] == nil && failed[c.Repository] == nil {
			opened[c.Repository], failed[c.Repository] = o.openConfigured(cmd.Context(), a, conf, c.Repository)
		}
		p := pruner{name: c.Name, policy: c.Policy(), closed: failed[c.Repository]}
		if p.closed == nil {
			p.in = opened[c.Repository].Cluster(c.Name)
		}
		out = append(out, p)
	}
	return out, nil
}

func (o *pruneOptions) openConfigured(
	ctx context.Context, a *app, conf *config.Config, name string,
) (*repository.Repository, error) {
	configured := conf.Repositories[name]
	store, err := configured.Open(ctx, a.log.slog)
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", name, err)
	}
	if o.dryRun {
		return openToRead(ctx, a, store, configured.ID, name, configured.Flags(configured.URL))
	}
	return openToWrite(ctx, a, store, configured.ID, name, configured.Flags(configured.URL))
}
