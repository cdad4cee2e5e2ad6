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
	"github.com/etcd-backupd/backupd/internal/config"
)

// Sections of the findings, in their order.
const (
	SectionConfiguration = "configuration"
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
	Log    *slog.Logger // nil discards
}

// Limits of a check: one task that hangs must not hold up the others, and not all
// of many clusters may be asked at the same moment.
const (
	maxConcurrent = 8
	checkTimeout  = 3 * time.Minute
)

// checker is one check of a configuration.
type checker struct {
	conf     *config.Config
	options  Options
	clusters []config.Cluster // the chosen ones
	now      time.Time

	// Results that the checks of several things together need.
	lives  []*live  // by the index in clusters
	stored []stored // by the index in clusters
}

// task is a check that depends on no other.
type task func(context.Context) []backup.Finding

// Run checks a configuration and returns the findings by section. Its questions
// to the outside end with ctx.
func Run(ctx context.Context, conf *config.Config, o Options) []backup.Finding {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &checker{conf: conf, options: o, now: time.Now()}
	for _, cluster := range conf.Clusters {
		if len(o.Clusters) == 0 || slices.Contains(o.Clusters, cluster.Name) {
			c.clusters = append(c.clusters, cluster)
		}
	}
	c.lives, c.stored = make([]*live, len(c.clusters)), make([]stored, len(c.clusters))

	static, clusters, repositories, rest := c.tasks()
	results := runAll(ctx, slices.Concat(static, clusters, repositories, rest))
	next := func(n int) []backup.Finding {
		part := slices.Concat(results[:n]...)
		results = results[n:]
		return part
	}
	return slices.Concat(
		next(len(static)), c.checkTogether(), next(len(clusters)),
		c.checkSpool(), next(len(repositories)), next(len(rest)))
}

// tasks returns the checks of each section that depend on no other.
func (c *checker) tasks() (static, clusters, repositories, rest []task) {
	static = []task{c.checkFiles, c.checkCertificates}
	for i := range c.clusters {
		static = append(static, func(context.Context) []backup.Finding { return c.checkPlan(i) })
		clusters = append(clusters, func(ctx context.Context) (out []backup.Finding) {
			c.lives[i], out = c.checkCluster(ctx, &c.clusters[i])
			return out
		})
	}
	for _, name := range c.repositories() {
		repositories = append(repositories, func(ctx context.Context) []backup.Finding {
			return c.checkRepository(ctx, name)
		})
	}
	return static, clusters, repositories, []task{c.checkServer, c.checkNotifications}
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
		return h.Hint
	}
	return otherwise
}
