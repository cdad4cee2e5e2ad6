// Package check finds the faults that would show only in a disaster. It tries
// everything that a configuration names, from the certificates to the bucket, and
// reports of each thing whether it is right and, if not, what to do.
//
// It leaves nothing behind: it asks etcd the same questions as any backup, and
// removes everything that it creates in a repository or a folder. No finding holds
// a secret. The rules belong to the packages that it asks; check collects
// findings.
package check

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/companions"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/openfiles"
)

// Sections of the findings, in their order.
const (
	SectionConfiguration = "configuration"
	SectionCompanions    = companions.Section
	SectionCluster       = "cluster"
	SectionSpool         = "spool"
	SectionRepository    = "repository"
	SectionServer        = "server"
	SectionNotifications = "notifications"
)

// Options say what is checked.
type Options struct {
	// Clusters are the names of the clusters to check, with their repositories.
	// Nil means all of them, and also the repositories that no cluster uses.
	// Everything that belongs to no cluster is always checked.
	Clusters []string
	// Notify sends a test event to each receiver of notifications.
	Notify bool
	// Trace finds what files that start etcd refer to. It is needed where a cluster names some.
	Trace companion.Trace
	Log   *slog.Logger // nil discards
}

// Limits of a check: one task that hangs must not hold up the others, and not all
// of many clusters may be asked at the same moment.
const (
	maxConcurrent = 8
	checkTimeout  = 3 * time.Minute
)

// run is one run.
type run struct {
	conf     *config.Config
	options  Options
	clusters []*chosen
	now      time.Time
}

// chosen is a cluster that is checked, with the results that the checks of several
// things together need.
type chosen struct {
	conf   *config.Cluster
	live   *live // nil if no member answered
	stored stored
}

// task is a check that depends on no other.
type task func(context.Context) []backup.Finding

// Run checks a configuration and returns the findings by section. Its questions
// to the outside end with ctx.
func Run(ctx context.Context, conf *config.Config, o Options) []backup.Finding {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &run{conf: conf, options: o, now: time.Now()}
	for i := range conf.Clusters {
		if c := &conf.Clusters[i]; len(o.Clusters) == 0 || slices.Contains(o.Clusters, c.Name) {
			r.clusters = append(r.clusters, &chosen{conf: c})
		}
	}
	static, clusters, repositories, rest := r.tasks()
	results := runAll(ctx, slices.Concat(static, clusters, repositories, rest))
	next := func(n int) []backup.Finding {
		part := slices.Concat(results[:n]...)
		results = results[n:]
		return part
	}
	return slices.Concat(
		next(len(static)), checkTogether(r.clusters, r.now), next(len(clusters)),
		checkSpool(&conf.Daemon, r.clusters, conf.Endpoints()), next(len(repositories)), next(len(rest)))
}

// tasks returns the checks of each section that depend on no other.
func (r *run) tasks() (static, clusters, repositories, rest []task) {
	still := func(check func() []backup.Finding) task {
		return func(context.Context) []backup.Finding { return check() }
	}
	static = []task{
		still(func() []backup.Finding { return checkFiles(r.conf) }),
		still(func() []backup.Finding { return checkCertificates(r.conf, r.now) }),
		still(func() []backup.Finding { return checkOpenFiles(r.conf, openfiles.Limit()) }),
	}
	var beside []task
	for _, c := range r.clusters {
		static = append(static, still(func() []backup.Finding { return checkPlan(c.conf, r.conf.Clusters, r.now) }))
		files := c.conf.CompanionFiles(r.options.Trace)
		repository := r.conf.Repositories[c.conf.Repository]
		beside = append(beside, func(ctx context.Context) []backup.Finding {
			return companions.Check(ctx, files, c.conf.Name, !repository.Encrypts())
		})
		clusters = append(clusters, func(ctx context.Context) (out []backup.Finding) {
			c.live, out = (&clusterCheck{conf: c.conf, log: r.options.Log, now: r.now}).run(ctx)
			return out
		})
	}
	for _, name := range r.repositories() {
		conf := r.conf.Repositories[name]
		check := &repositoryCheck{name: name, conf: &conf, log: r.options.Log, now: r.now}
		repositories = append(repositories, func(ctx context.Context) []backup.Finding {
			return check.run(ctx, r.clusters)
		})
	}
	notifications := &notificationCheck{conf: r.conf, send: r.options.Notify, log: r.options.Log, now: r.now}
	server := still(func() []backup.Finding { return checkServer(&r.conf.Daemon.Server) })
	return slices.Concat(static, beside), clusters, repositories, []task{server, notifications.run}
}

// repositories returns the names of the repositories that the chosen clusters use,
// or of all if no cluster was chosen.
func (r *run) repositories() []string {
	var out []string
	for name := range r.conf.Repositories {
		uses := func(c *chosen) bool { return c.conf.Repository == name }
		used := slices.ContainsFunc(r.clusters, uses)
		if used || len(r.options.Clusters) == 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// runAll runs tasks, some at the same time, and returns the findings of each.
func runAll(ctx context.Context, tasks []task) [][]backup.Finding {
	results := make([][]backup.Finding, len(tasks))
	turns := make(chan struct{}, maxConcurrent)
	var wg sync.WaitGroup
	for i, t := range tasks {
		wg.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, fmt.Errorf("it did not end in %v", checkTimeout))
			defer cancel()
			results[i] = t(ctx)
		})
	}
	wg.Wait()
	return results
}

// list collects the findings about one subject.
type list struct {
	section, subject string
	findings         []backup.Finding
}

func (l *list) ok(format string, args ...any) { l.add(backup.LevelOK, "", format, args...) }

func (l *list) warn(hint, format string, args ...any) {
	l.add(backup.LevelWarning, hint, format, args...)
}

func (l *list) fail(hint, format string, args ...any) {
	l.add(backup.LevelFailure, hint, format, args...)
}

func (l *list) add(level backup.Level, hint, format string, args ...any) {
	l.findings = append(l.findings, backup.Finding{
		Section: l.section, Subject: l.subject, Level: level, Text: fmt.Sprintf(format, args...), Hint: hint,
	})
}

// hintOf returns the hint that err carries, or another.
func hintOf(err error, otherwise string) string {
	var h *backup.HintError
	if errors.As(err, &h) {
		return h.Configured()
	}
	return otherwise
}
