package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
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
	f.StringVar(&r.repo, "repo", "", "repository: file:///path or s3://bucket/prefix")
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
		return nil, &usageError{errors.New(
			"no repository: give --repo (or BACKUPD_REPO) as file:///path or s3://bucket/prefix")}
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
func (r *repoFlags) openExisting(ctx context.Context, a *app) (*repository.Repository, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	repo, err := repository.Open(ctx, s, "")
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r.repo, err)
	}
	return repo, nil
}

// latestHelp explains a word of the command line.
const latestHelp = `"latest" means the snapshot with the highest revision of the cluster's present history,
whatever its state and whatever time is in its id.

`

// reference returns the argument that names a snapshot; without one it is the
// latest.
func reference(args []string) string {
	if len(args) == 0 {
		return repository.Latest
	}
	return args[0]
}

// find finds the snapshot that a command's argument names, whatever its state.
func (r *repoFlags) find(
	cmd *cobra.Command, repo *repository.Repository, args []string,
) (*repository.Cluster, repository.Item, error) {
	in, item, err := repo.Find(cmd.Context(), r.cluster, reference(args), time.Now())
	return in, item, r.explain(cmd, err)
}

// explain adds a hint to the error of a reference. If more than one snapshot can be
// chosen, it is the running command for each of them.
func (r *repoFlags) explain(cmd *cobra.Command, err error) error {
	var choice *repository.ChoiceError
	switch {
	case errors.As(err, &choice):
		return explainChoice(cmd, choice, err)
	case isNotFound(err):
		return backup.WithHint(err, "backupd list --repo %s shows what is there", r.repo)
	}
	return err
}

// findRest finds a snapshot, or by its full id the remains of one whose manifest is
// gone.
func (r *repoFlags) findRest(
	cmd *cobra.Command, repo *repository.Repository, ref string,
) (*repository.Cluster, repository.Item, error) {
	in, item, err := repo.Find(cmd.Context(), r.cluster, ref, time.Now())
	if id, perr := backup.ParseSnapshotID(ref); isNotFound(err) && perr == nil && r.cluster != "" {
		in = repo.Cluster(r.cluster)
		item, err = in.Item(cmd.Context(), id)
	}
	return in, item, r.explain(cmd, err)
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

// completedIDs is how many ids of each cluster the shell shows.
const completedIDs = 50

// completeIDs offers the newest snapshots of the cluster, or of all.
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
		repo, ids := repository.At(s, ""), []string{repository.Latest}
		clusters := []string{r.cluster}
		if r.cluster == "" {
			clusters, _ = repo.Clusters(ctx) // an error must not disturb the shell
		}
		for _, name := range clusters {
			newest, _ := repo.Cluster(name).Newest(ctx, completedIDs, "", time.Now())
			for _, i := range newest {
				ids = append(ids, string(i.ID))
			}
		}
		return ids, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	}
}
