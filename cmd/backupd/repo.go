package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/identity"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// repoFlags say where the repository is.
type repoFlags struct {
	repo    string
	id      string // that the repository must have; empty: any
	cluster string
	// timeline, if given, makes latest mean the furthest snapshot of that history.
	timeline string
	options  location.Options
}

func (r *repoFlags) register(cmd *cobra.Command) {
	r.registerPlace(cmd)
	cmd.Flags().StringVar(&r.cluster, "cluster", "", "name of the cluster in the repository")
	mustRegister(cmd.RegisterFlagCompletionFunc("cluster", completeClusters(r)))
}

// registerPlace registers what says where a repository is, and which it is.
func (r *repoFlags) registerPlace(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.repo, "repo", "", "repository: file:///path or s3://bucket/prefix")
	f.StringVar(&r.id, "repo-id", "", "id that the repository must have, as 'backupd init' prints it (default: any)")
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
		return nil, &usageError{errNoRepository}
	}
	opts := r.options
	opts.Logger = a.log.slog
	s, err := location.Open(ctx, r.repo, opts)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--repo %w", err)}
	}
	return s, nil
}

// openToRead opens a repository, which must be there. One whose marker is gone is read, with
// a warning, if its snapshots tell which one it is.
func (r *repoFlags) openToRead(ctx context.Context, a *app) (*repository.Repository, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	return openToRead(ctx, a, s, r.id, r.repo, r.options.Flags(r.repo))
}

// openToRead opens the repository id in a store. For people it has a name, and the flags that lead to it.
func openToRead(
	ctx context.Context, a *app, s storage.Store, id, name, flags string,
) (*repository.Repository, error) {
	repo, err := repository.OpenToRead(ctx, s, id)
	if err != nil {
		return nil, explainAbsent(fmt.Errorf("open repository %s: %w", name, err), flags)
	}
	if doubt := explainAbsent(repo.Doubt(), flags); doubt != nil {
		a.log.slog.Warn("the repository is only read", "id", repo.ID(), "err", doubt, "hint", hint(doubt))
	}
	return repo, nil
}

// openToWrite opens a repository, which must be there. If its marker is gone, it is put
// back if --repo-id says which repository it is.
func (r *repoFlags) openToWrite(ctx context.Context, a *app) (*repository.Repository, error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	return openToWrite(ctx, a, s, r.id, r.repo, r.options.Flags(r.repo))
}

// openToWrite is [openToRead] for who may write.
func openToWrite(
	ctx context.Context, a *app, s storage.Store, id, name, flags string,
) (*repository.Repository, error) {
	repo, err := repository.OpenToWrite(ctx, s, id)
	if err != nil {
		return nil, explainAbsent(fmt.Errorf("open repository %s: %w", name, err), flags)
	}
	if repo.Made() {
		a.log.slog.Warn("the marker of the repository was gone and was put back", "id", repo.ID(), "repository", name)
	}
	return repo, nil
}

// explainAbsent adds to the error of a repository that is not at its address, or has no
// marker, what to do about it.
func explainAbsent(err error, flags string) error {
	todo := identity.Hint(err, flags, "--repo-id")
	if todo == "" || errors.As(err, new(*backup.HintError)) {
		return err
	}
	return backup.WithHint(err, "%s", todo)
}

// missing returns the error for a cluster that the repository does not have, with the
// names that are most like it. It returns nil if there is such a cluster, or none was
// named.
func (r *repoFlags) missing(ctx context.Context, repo *repository.Repository) error {
	if r.cluster == "" {
		return nil
	}
	names, err := repo.Clusters(ctx)
	if err != nil || slices.Contains(names, r.cluster) {
		return err
	}
	if len(names) == 0 {
		return &repository.NotFoundError{Reason: fmt.Sprintf(
			"no such cluster: %s: the repository holds none, there was no backup yet", r.cluster)}
	}
	return backup.WithHint(&repository.NotFoundError{Reason: "no such cluster: " + r.cluster},
		"the nearest of %s: %s", count(len(names), "name", "names"), strings.Join(nearest(r.cluster, names), ", "))
}

// latestHelp explains a word of the command line.
const latestHelp = `"latest" means the furthest snapshot of the cluster's present history, whatever its
state and whatever time is in its id. While a new history is not accepted, or two
clusters have one name, it is refused (exit code 6): see 'backupd timeline list'.

`

// oneReference takes the one argument that names a snapshot. What is not said is never
// taken for the latest.
func oneReference(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return &usageError{fmt.Errorf("%s expects one snapshot: an id, the beginning of one, or latest",
			cmd.CommandPath())}
	}
	return nil
}

// oneID takes the one argument that names a snapshot for certain: what takes something
// away must not depend on which other snapshots there are.
func oneID(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		if _, err := backup.ParseSnapshotID(args[0]); err == nil {
			return nil
		}
	}
	return &usageError{fmt.Errorf("%s expects one snapshot, by its full id: 'backupd list' shows it",
		cmd.CommandPath())}
}

// latestOfTimeline is the usage of --timeline where one snapshot is named.
const latestOfTimeline = "with latest: the furthest snapshot of this history (needs --cluster)"

func (r *repoFlags) registerTimeline(cmd *cobra.Command, usage string) {
	cmd.Flags().StringVar(&r.timeline, "timeline", "", usage)
}

// refer returns the reference that the argument means with --timeline: an id.
func (r *repoFlags) refer(ctx context.Context, repo *repository.Repository, ref string) (string, error) {
	if r.timeline == "" {
		return ref, nil
	}
	if ref != choice.Latest || r.cluster == "" {
		return "", &usageError{errors.New("--timeline goes with the reference latest, and with --cluster")}
	}
	all, err := repository.ReadTimelines(ctx, repo.Cluster(r.cluster))
	if err != nil {
		return "", err
	}
	of := all.Find(r.timeline)
	if of == nil {
		return "", &repository.NotFoundError{
			Reason: fmt.Sprintf("cluster %s has no snapshot of timeline %s", r.cluster, r.timeline),
		}
	}
	return string(of.Head.ID), nil
}

// find finds the snapshot that a command's argument names, whatever its state.
func (r *repoFlags) find(
	cmd *cobra.Command, repo *repository.Repository, ref string,
) (*repository.Cluster, repository.Item, error) {
	ref, err := r.refer(cmd.Context(), repo, ref)
	if err != nil {
		return nil, repository.Item{}, r.explain(cmd, repo, err)
	}
	in, item, err := choice.Find(cmd.Context(), repo, r.cluster, ref)
	return in, item, r.explain(cmd, repo, err)
}

// explain adds a hint to the error of a reference. If more than one snapshot can be
// chosen, it is the running command for each of them.
func (r *repoFlags) explain(cmd *cobra.Command, repo *repository.Repository, err error) error {
	var several *choice.Error
	switch {
	case errors.As(err, &several):
		return explainChoice(cmd, several, err)
	case isNotFound(err):
		if missing := r.missing(cmd.Context(), repo); missing != nil {
			return missing
		}
		return backup.WithHint(err, "backupd list %s shows what is there", r.options.Flags(r.repo))
	}
	return err
}

// findRest finds a snapshot, or by its full id the remains of one whose manifest is
// gone.
func (r *repoFlags) findRest(
	cmd *cobra.Command, repo *repository.Repository, ref string,
) (*repository.Cluster, repository.Item, error) {
	ref, err := r.refer(cmd.Context(), repo, ref)
	if err != nil {
		return nil, repository.Item{}, r.explain(cmd, repo, err)
	}
	in, item, err := choice.Find(cmd.Context(), repo, r.cluster, ref)
	if id, perr := backup.ParseSnapshotID(ref); isNotFound(err) && perr == nil && r.cluster != "" {
		in = repo.Cluster(r.cluster)
		item, err = in.Item(cmd.Context(), id)
	}
	return in, item, r.explain(cmd, repo, err)
}

// identityFlag names the secret keys that decrypt snapshots.
type identityFlag struct{ files []string }

func (i *identityFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&i.files, "identity", nil,
		"age identity file or SSH key that decrypts snapshots (repeatable)")
}

func (i *identityFlag) read(a *app) (codec.Identities, error) {
	ids, err := a.hand().ReadIdentities(i.files)
	if err != nil {
		return nil, &usageError{err}
	}
	return ids, nil
}

// hand is the person at the terminal, if there is one.
func (a *app) hand() *codec.Hand {
	return &codec.Hand{
		Secret: a.askSecret,
		Say:    func(text string) { fmt.Fprintln(a.stderr, text) },
	}
}
