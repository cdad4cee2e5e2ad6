package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// repoFlags say where the repository is.
type repoFlags struct {
	repo    string
	cluster string
	options location.Options
}

func (r *repoFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.repo, "repo", "", "repository: file:///path or s3://bucket/prefix (required)")
	f.StringVar(&r.cluster, "cluster", "", "name of the cluster in the repository")
	for _, setting := range r.options.Settings() {
		name := setting.Section + "-" + setting.Key
		f.StringVar(setting.Value, name, "", setting.Usage)
		if len(setting.Choices) > 0 {
			mustRegister(cmd.RegisterFlagCompletionFunc(name, fixed(setting.Choices...)))
		}
	}
}

// open returns the repository's store. It connects to nothing.
func (r *repoFlags) open(ctx context.Context, a *app) (storage.Store, error) {
	if r.cluster != "" {
		if err := backup.CheckClusterName(r.cluster); err != nil {
			return nil, &usageError{fmt.Errorf("--cluster: %w", err)}
		}
	}
	if r.repo == "" {
		return nil, &usageError{errors.New("no repository: give --repo (or BACKUPD_REPO) as file:///path or s3://bucket/prefix")}
	}
	opts := r.options
	opts.Logger = a.log.slog
	s, err := location.Open(ctx, r.repo, opts)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--repo %w", err)}
	}
	return s, nil
}

// openExisting opens a repository to read: it must be there.
func (r *repoFlags) openExisting(ctx context.Context, a *app) (storage.Store, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	if _, err := storage.OpenRepository(ctx, s); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r.repo, err)
	}
	return s, nil
}

// resolve finds the snapshot that a command's argument names.
func (r *repoFlags) resolve(ctx context.Context, s storage.Store, args []string) (snapshot.Entry, error) {
	ref := snapshot.Latest
	if len(args) > 0 {
		ref = args[0]
	}
	e, err := snapshot.Resolve(ctx, s, r.cluster, ref)
	if isNotFound(err) {
		err = backup.WithHint(err, "backupd list --repo %s shows what is there", r.repo)
	}
	return e, err
}

// identityFlag names the secret keys that decrypt snapshots.
type identityFlag struct{ files []string }

func (i *identityFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&i.files, "identity", nil, "age identity file that decrypts snapshots (repeatable)")
}

func (i *identityFlag) read() (codec.Identities, error) {
	ids, err := codec.ReadIdentities(i.files)
	if err != nil {
		return nil, &usageError{err}
	}
	return ids, nil
}

// completeIDs offers the snapshot ids of the repository.
func completeIDs(a *app, r *repoFlags) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 || applyEnvironment(cmd, os.LookupEnv) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		a.log = quietLogs()
		s, err := r.open(ctx, a)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		entries, _ := snapshot.Entries(ctx, s, r.cluster) // no list is no reason to disturb the shell
		ids := []string{snapshot.Latest}
		for _, e := range entries {
			ids = append(ids, string(e.ID))
		}
		return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}
