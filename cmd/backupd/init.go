package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
)

func newInitCommand(a *app) *cobra.Command {
	var repo repoFlags
	cmd := &cobra.Command{
		Use:   "init --repo REPO | --config FILE",
		Short: "Make a repository, and print its id",
		Long: `Make a repository, and print its id. A repository that exists stays as it is: its id is
printed, and the exit code is 0. The folder of a file:// repository is made if its parent
is there; a bucket is never made. The data directory of an etcd member is refused. If only
the marker is gone (backupd.json), it is put back, with the id that the snapshots name; if
they name several, --repo-id says which.

No other command makes a repository unasked, so that a disk that is not mounted is an
error, and no empty repository in the mount point. Give the id as --repo-id or
BACKUPD_REPO_ID, or as repository-id in the daemon's configuration: then another
repository at the same address is an error, too.

` + exitHelp,
		Example: `  backupd init --repo file:///mnt/backups/etcd
  backupd init --config /etc/backupd/backupd.yaml
  backupd init --repo s3://backups/etcd --s3-endpoint https://s3.example.net`,
		Args: arguments(0, "no argument: give the repository as --repo"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runInit(cmd.Context(), a, repo) },
	}
	repo.registerPlace(cmd)
	registerConfigured(cmd)
	return cmd
}

// initialized is the answer for machines.
type initialized struct {
	URL          string    `json:"url"`
	RepositoryID string    `json:"repositoryID"`
	Made         bool      `json:"made"`
	Mended       bool      `json:"mended"`
	CreatedAt    time.Time `json:"createdAt"`
}

func runInit(ctx context.Context, a *app, o repoFlags) error {
	repo, mended, err := o.openOrMend(ctx, a)
	if isNotFound(err) { // it is not if a certain one is expected: see AbsentError
		repo, err = o.make(ctx, a)
	}
	if err != nil {
		return err
	}
	printed, err := a.document(kindInit,
		initialized{o.repo, repo.ID(), repo.Made() && !mended, mended, repo.Created()})
	if printed {
		return err
	}
	if mended {
		fmt.Fprintf(a.stdout, "Put back the marker of repository %s at %s: its snapshots name it\n", repo.ID(), o.repo)
	} else if repo.Made() {
		fmt.Fprintf(a.stdout, "Made repository %s at %s\n", repo.ID(), o.repo)
		if old, err := repo.Clusters(ctx); err == nil && len(old) > 0 {
			fmt.Fprintf(a.stdout, "It holds snapshots of %s already, and has a new id: correct repository-id and --repo-id\n",
				strings.Join(old, ", "))
		}
	} else {
		fmt.Fprintf(a.stdout, "Repository %s exists at %s since %s, nothing was changed\n", repo.ID(), o.repo,
			repo.Created().Format(time.RFC3339))
	}
	return nil
}

// openOrMend opens the repository. If its marker is gone it is put back, and mended says
// so. Where no manifest is whole nobody knows which repository it was: it gets a new id.
func (r *repoFlags) openOrMend(ctx context.Context, a *app) (repo *repository.Repository, mended bool, err error) {
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, false, err
	}
	repo, err = repository.Open(ctx, s, r.id)
	var unmarked *repository.UnmarkedError
	if errors.As(err, &unmarked) {
		id, known := unmarked.Chosen()
		if known || r.id == "" && len(unmarked.IDs) == 0 {
			repo, err = repository.PutBack(ctx, s, unmarked, id)
			mended = known
		}
	}
	if err != nil {
		return nil, false, explainAbsent(fmt.Errorf("open repository %s: %w", r.repo, err), r.options.Flags(r.repo))
	}
	return repo, mended, nil
}

// make makes the repository, and its folder if need be.
func (r *repoFlags) make(ctx context.Context, a *app) (*repository.Repository, error) {
	loc, err := location.Parse(r.repo)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--repo %w", err)}
	}
	if err := loc.MakeFolder(); err != nil {
		return nil, err
	}
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	return repository.Create(ctx, s)
}
