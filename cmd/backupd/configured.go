package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/location"
)

// packagedPath is where the packages put the daemon's configuration.
const packagedPath = "/etc/backupd/backupd.yaml"

// packagedConfig is [packagedPath], but not in tests.
var packagedConfig = packagedPath

// configured marks a command that finds its repository by the daemon's configuration.
const configured = "configuration"

// registerConfigured registers the flag of the daemon's configuration, which says in place of
// --repo where the snapshots are.
func registerConfigured(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "the daemon's configuration, in place of --repo and its settings (default: "+
		packagedPath+", if it is there)")
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[configured] = "yes"
}

// The errors of commands that are not told where to work.
var (
	errNoConfiguration = errors.New("no configuration: give --config (or BACKUPD_CONFIG)")
	errNoRepository    = errors.New("no repository: give --repo (or BACKUPD_REPO) as file:///path or " +
		"s3://bucket/prefix, or the daemon's configuration by --config (or BACKUPD_CONFIG)")
)

// notTold is the error of a command that works on all that a configuration names: it takes
// none that nobody has named, but says which there is.
func notTold(cmd *cobra.Command, err error) error {
	err = &usageError{err}
	if _, serr := os.Stat(packagedConfig); serr != nil {
		return err
	}
	return backup.WithHint(err, "with the configuration of this host: %s",
		commandWith(cmd, nil, "--config="+packagedConfig))
}

// configuration is the file that says where the snapshots are.
type configuration struct {
	*config.Places
	path string
	why  string // it is taken, if the command line does not name it
}

// findConfiguration reads the configuration of a command. It returns nil if --repo says
// where the snapshots are, or nothing does.
func findConfiguration(cmd *cobra.Command) (*configuration, error) {
	repo, conf := cmd.Flags().Lookup("repo"), cmd.Flags().Lookup("config")
	named := func(f *pflag.Flag) bool { return f.Changed && f.Annotations[fromEnv] == nil }
	c := &configuration{path: conf.Value.String()}
	switch {
	case named(repo) && named(conf):
		return nil, &usageError{errors.New("--repo and --config exclude each other: the file says it")}
	case named(conf):
	case conf.Changed && repo.Changed:
		return nil, withHints(&backup.RefusedError{
			Reason: "BACKUPD_REPO and BACKUPD_CONFIG are both set: each says where the snapshots are",
		}, "by the address: "+commandWith(cmd, []string{"config"}, cmd.Flags().Args()...),
			"by the configuration: "+commandWith(cmd, pathFlags(), cmd.Flags().Args()...))
	case conf.Changed:
		c.why = "BACKUPD_CONFIG names it"
	case repo.Changed: // by --repo, which overrules BACKUPD_CONFIG, or by BACKUPD_REPO
		return nil, nil
	default:
		c.path, c.why = packagedConfig, "no --repo and no --config was given"
		if _, err := os.Stat(c.path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	places, err := config.LoadPlaces(c.path)
	if err != nil {
		return nil, backup.WithHint(err, "correct it, or give --repo in its place: then it is not read")
	}
	c.Places = places
	return c, nil
}

// pathFlags are the flags that lead to a repository, which a configuration gives.
func pathFlags() []string {
	var o location.Options
	names := []string{"repo", "repo-id"}
	for _, s := range o.Settings() {
		names = append(names, s.Section+"-"+s.Key)
	}
	return names
}

// configure gives the flags of a command that lead to its repository the values of the
// daemon's configuration, as if they stood on the command line. So what the command
// prints for another host works there without the file.
func (a *app) configure(cmd *cobra.Command) error {
	for _, name := range []string{"finish", "abort"} { // they need no repository
		if f := cmd.Flags().Lookup(name); f != nil && f.Changed {
			return nil
		}
	}
	if f := cmd.Flags().Lookup("undo"); f != nil && f.Changed {
		return configureUndo(a, cmd)
	}
	if err := givePlan(cmd); err != nil {
		return err
	}
	c, err := findConfiguration(cmd)
	if c == nil || err != nil {
		return err
	}
	a.config = c.path
	cluster := ""
	if f := cmd.Flags().Lookup("cluster"); f != nil {
		cluster = f.Value.String()
	}
	if args := cmd.Flags().Args(); cmd.Annotations[namesCluster] != "" && len(args) > 0 {
		cluster = args[0]
	}
	cluster, name, err := c.choose(cmd, cluster, needsCluster(cmd))
	if err != nil {
		return err
	}
	if err := c.apply(cmd, cluster, name); err != nil {
		return err
	}
	if err := a.giveIdentities(cmd, c.Identities(cluster)); err != nil {
		return err
	}
	if c.why != "" {
		words := []any{"file", c.path, "why", c.why, "repository", cmd.Flags().Lookup("repo").Value.String()}
		if cluster != "" {
			words = append(words, "cluster", cluster)
		}
		a.log.slog.Info("a configuration says where the snapshots are", words...)
	}
	return nil
}

// configureUndo gives an undo the repository of the configuration, if there is one that is
// understood: it has use for one, and puts the data back without it.
func configureUndo(a *app, cmd *cobra.Command) error {
	c, err := findConfiguration(cmd)
	if c == nil && err == nil {
		return nil
	}
	if err == nil {
		a.config = c.path
		var cluster, name string
		if cluster, name, err = c.choose(cmd, cmd.Flags().Lookup("cluster").Value.String(), false); err == nil {
			return c.apply(cmd, cluster, name)
		}
	}
	if errors.As(err, new(*usageError)) {
		return err
	}
	a.log.slog.Warn("the undo knows no repository by the configuration", "err", err)
	return nil
}

// needsCluster reports whether a command that names no cluster could mean another one
// than the user thinks.
func needsCluster(cmd *cobra.Command) bool {
	args := cmd.Flags().Args()
	switch {
	case strings.HasPrefix(cmd.CommandPath(), "backupd timeline"):
		return true
	case len(args) == 0: // all snapshots of the repository
		return false
	}
	_, err := backup.ParseSnapshotID(args[0])
	return err != nil
}

// choose returns the cluster, or "" for all of a repository, and the name of the
// repository.
func (c *configuration) choose(cmd *cobra.Command, cluster string, needed bool) (of, repository string, err error) {
	clusters, repositories := c.Clusters(), c.Repositories()
	if cluster == "" && len(clusters) == 1 && cmd.Flags().Lookup("cluster") != nil {
		cluster = clusters[0]
	}
	switch known := c.Of(cluster); {
	case known != "":
		return cluster, known, nil
	case len(repositories) == 1 && (cluster != "" || !needed):
		// It may hold clusters that are no longer configured, or that others back up.
		return cluster, repositories[0], nil
	case cluster != "":
		return "", "", &usageError{fmt.Errorf("there is no cluster %q in %s%s",
			cluster, c.path, strict.DidYouMean(cluster, clusters))}
	}
	var hints []string
	if cmd.Flags().Lookup("cluster") == nil {
		for _, name := range repositories {
			r := c.Repository(name)
			hints = append(hints, fmt.Sprintf("for repository %s: %s %s", name, cmd.CommandPath(), r.Flags(r.URL)))
		}
		reason := fmt.Sprintf("%s has several repositories: say which", c.path)
		return "", "", withHints(&backup.RefusedError{Reason: reason}, hints...)
	}
	for _, name := range clusters[:min(len(clusters), choicesShown)] {
		hints = append(hints, fmt.Sprintf("for cluster %s: %s", name,
			commandWith(cmd, nil, append(cmd.Flags().Args(), "--cluster="+name)...)))
	}
	if more := len(clusters) - choicesShown; more > 0 {
		hints = append(hints, fmt.Sprintf("and %d more", more))
	}
	reason := fmt.Sprintf("%s has several clusters: say which, by --cluster", c.path)
	return "", "", withHints(&backup.RefusedError{Reason: reason}, hints...)
}

// apply sets the flags. Variables give way to the file: they are there for other commands.
func (c *configuration) apply(cmd *cobra.Command, cluster, repository string) error {
	r := c.Repository(repository)
	values := map[string]string{"repo": r.URL, "repo-id": r.ID}
	for _, s := range r.Settings() {
		if *s.Value != s.Default {
			values[s.Section+"-"+s.Key] = *s.Value
		}
	}
	for _, name := range pathFlags() {
		f := cmd.Flags().Lookup(name)
		ours := f.Changed && f.Annotations[fromEnv] == nil
		switch {
		case name == "repo-id" && f.Changed && (r.ID == "" || r.ID == f.Value.String()):
			continue // it is one more thing to check
		case ours:
			return &usageError{fmt.Errorf("--%s needs --repo: without it %s says how to reach the repository", name, c.path)}
		}
		if err := give(cmd, f, values[name]); err != nil {
			return err
		}
	}
	if f := cmd.Flags().Lookup("cluster"); f != nil && cluster != "" && !f.Changed {
		if err := give(cmd, f, cluster); err != nil {
			return err
		}
	}
	// What is printed names the repository, and not the file.
	return give(cmd, cmd.Flags().Lookup("config"), "")
}

// give sets a flag, or takes its value away.
func give(cmd *cobra.Command, f *pflag.Flag, value string) error {
	if value != "" {
		return cmd.Flags().Set(f.Name, value)
	}
	err := f.Value.Set(f.DefValue)
	f.Changed = false
	return err
}

// giveIdentities sets the identities of a configuration, without those that are not on
// this host or not for this user: few snapshots need them all.
func (a *app) giveIdentities(cmd *cobra.Command, files []string) error {
	flag := cmd.Flags().Lookup("identity")
	if flag == nil || flag.Changed {
		return nil
	}
	var usable []string
	for _, file := range slices.Compact(slices.Sorted(slices.Values(files))) {
		f, err := os.Open(file)
		if err != nil {
			a.log.slog.Warn("an identity of the configuration is left out", "err", err)
			continue
		}
		f.Close()
		usable = append(usable, file)
	}
	if len(usable) == 0 {
		return nil
	}
	if err := give(cmd, flag, usable[0]); err != nil {
		return err
	}
	return flag.Value.(pflag.SliceValue).Replace(usable)
}
