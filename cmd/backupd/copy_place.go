package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// copyPlace is one of the two repositories of a copy, with settings of its own.
type copyPlace struct {
	side    string // the flag that names it, and what its other flags begin with
	text    string // of the flag
	url     string
	id      string // that the repository must have; empty: any
	options location.Options
}

func (p *copyPlace) register(cmd *cobra.Command, usage string) {
	f := cmd.Flags()
	f.StringVar(&p.text, p.side, "", usage)
	f.StringVar(&p.id, p.side+"-repo-id", "", "id that the repository of --"+p.side+" must have (default: any)")
	mustRegister(cmd.RegisterFlagCompletionFunc(p.side, completeRepositories))
	for _, s := range p.options.Settings() {
		if p.side == "from" && s.Section == "file" {
			continue // nothing is written there
		}
		name := p.side + "-" + s.Section + "-" + s.Key
		f.StringVar(s.Value, name, "", "of --"+p.side+": "+s.Usage)
		if len(s.Choices) > 0 {
			mustRegister(cmd.RegisterFlagCompletionFunc(name, fixed(s.Choices...)))
		}
	}
}

// find finds out where the place is: its flag is an address or a name.
func (p *copyPlace) find(cmd *cobra.Command, a *app) error {
	switch {
	case p.text == "":
		return &usageError{fmt.Errorf("no repository: give --%s as file:///path, s3://bucket/prefix or the name of a "+
			"repository in the daemon's configuration", p.side)}
	case strings.Contains(p.text, "/"):
		p.url = p.text
		return nil
	}
	path, places, err := namedPlaces(cmd, p.side)
	if err != nil {
		return err
	}
	if !slices.Contains(places.Repositories(), p.text) {
		return &usageError{fmt.Errorf("--%s: there is no repository %q in %s%s",
			p.side, p.text, path, strict.DidYouMean(p.text, places.Repositories()))}
	}
	r := places.Repository(p.text)
	for _, name := range pathFlags() {
		name = p.side + "-" + name
		f := cmd.Flags().Lookup(name)
		switch {
		case f == nil || !f.Changed:
		case name == p.side+"-repo-id" && (r.ID == "" || r.ID == p.id):
			r.ID = p.id // it is one more thing to check
		default:
			return &usageError{fmt.Errorf("--%s needs an address: %s says how to reach the repository %s",
				name, path, p.text)}
		}
	}
	p.url, p.id, p.options = r.URL, r.ID, r.Options
	a.log.slog.Info("a configuration says where the repository is", "file", path, "flag", "--"+p.side,
		"name", p.text, "repository", p.url)
	return nil
}

// namedPlaces reads the configuration that knows the name of a repository.
func namedPlaces(cmd *cobra.Command, side string) (string, *config.Places, error) {
	path := cmd.Flags().Lookup("config").Value.String()
	if path == "" {
		path = packagedConfig
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return "", nil, &usageError{fmt.Errorf("--%s is a name, and no configuration knows it: give --config (or "+
				"BACKUPD_CONFIG), or an address: file:///path or s3://bucket/prefix", side)}
		}
	}
	places, err := config.LoadPlaces(path)
	if err != nil {
		return "", nil, backup.WithHint(err, "correct it, or give --%s as an address", side)
	}
	return path, places, nil
}

// open opens the repository at the place. It is written to only by who opens it for that.
func (p *copyPlace) open(ctx context.Context, a *app, how func(
	ctx context.Context, a *app, s storage.Store, id, name, flags string,
) (*repository.Repository, error)) (*repository.Repository, error) {
	opts := p.options
	opts.Logger = a.log.slog
	s, err := location.Open(ctx, p.url, opts)
	if err != nil {
		return nil, &usageError{p.ownFlags(fmt.Errorf("--%s %w", p.side, err))}
	}
	if p.side == "from" {
		s = storage.ReadOnly(s, errors.New("the source of a copy is only read"))
	}
	r, err := how(ctx, a, s, p.id, p.url, p.options.Flags(p.url))
	return r, p.ownFlags(err)
}

// ownFlags makes a hint name the flags of this place.
func (p *copyPlace) ownFlags(err error) error {
	var given *backup.HintError
	if !errors.As(err, &given) {
		return err
	}
	own := strings.NewReplacer("by --s3-", "by --"+p.side+"-s3-", "as --s3-", "as --"+p.side+"-s3-",
		", --s3-", ", --"+p.side+"-s3-", "and --s3-", "and --"+p.side+"-s3-", "takes --repo-id", "takes --"+p.side+"-repo-id",
		"correct --repo-id", "correct --"+p.side+"-repo-id")
	return backup.WithHint(err, "%s", own.Replace(given.Hint)) // but not those of 'backupd init'
}

// completeRepositories offers the names of the repositories in the configuration.
func completeRepositories(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if _, err := applyEnvironment(cmd, os.LookupEnv); err == nil {
		if _, places, err := namedPlaces(cmd, ""); err == nil {
			names = places.Repositories()
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeCopied offers the clusters of the source.
func completeCopied(o *copyOptions) cobra.CompletionFunc {
	return completion(func(ctx context.Context, cmd *cobra.Command, _ []string) []string {
		a := &app{log: quietLogs()}
		if _, err := applyEnvironment(cmd, os.LookupEnv); err != nil || o.from.find(cmd, a) != nil {
			return nil
		}
		s, err := location.Open(ctx, o.from.url, o.from.options)
		if err != nil {
			return nil
		}
		names, _ := repository.At(s, "").Clusters(ctx)
		return names
	})
}
