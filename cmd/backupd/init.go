package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
)

func newInitCommand(a *app) *cobra.Command {
	var repo repoFlags
	cmd := &cobra.Command{
		Use:   "init --repo REPO",
		Short: "Make a repository, and print its id",
		Long: `Make a repository, and print its id. A repository that exists stays as it is: its id is
printed, and the exit code is 0. The folder of a file:// repository is made if its parent
is there; a bucket is never made. The data directory of an etcd member is refused.

No other command makes a repository unasked, so that a disk that is not mounted is an
error, and no empty repository in the mount point. Give the id as --repo-id or
BACKUPD_REPO_ID, or as repository-id in the daemon's configuration: then another
repository at the same address is an error, too.

` + exitHelp,
		Example: `  backupd init --repo file:///mnt/backups/etcd
  backupd init --repo s3://backups/etcd --s3-endpoint https://s3.example.net`,
		Args: arguments(0, "no argument: give the repository as --repo"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runInit(cmd.Context(), a, repo) },
	}
	repo.registerPlace(cmd)
	return cmd
}

func runInit(ctx context.Context, a *app, o repoFlags) error {
	repo, err := o.openExisting(ctx, a)
	if isNotFound(err) { // it is not if a certain one is expected: see AbsentError
		repo, err = o.make(ctx, a)
	}
	if err != nil {
		return err
	}
	if a.global.writeOut == "json" {
		return printJSON(a.stdout, kindInit, struct {
			Repository string    `json:"repository"`
			ID         string    `json:"id"`
			Made       bool      `json:"made"`
			CreatedAt  time.Time `json:"createdAt"`
		}{o.repo, repo.ID(), repo.Made(), repo.Created()})
	}
	if repo.Made() {
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

// make makes the repository, and its folder if need be.
func (r *repoFlags) make(ctx context.Context, a *app) (*repository.Repository, error) {
	loc, err := location.Parse(r.repo)
	if err != nil {
		return nil, &usageError{fmt.Errorf("--repo %w", err)}
	}
	if loc.IsFolder() {
		if err := checkSurroundings(loc.Path); err != nil {
			return nil, err
		}
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

// checkSurroundings refuses a folder inside the data directory of an etcd member, which a
// restore replaces as a whole, and inside another repository.
func checkSurroundings(path string) error {
	for dir := filepath.Clean(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		for _, inside := range []string{"member/snap", "member/wal", "snap/db"} {
			if _, err := os.Lstat(filepath.Join(dir, inside)); err == nil {
				return &backup.RefusedError{Reason: fmt.Sprintf("%s lies in the data directory of an etcd member (%s)", path, dir)}
			}
		}
		if _, err := os.Lstat(filepath.Join(dir, backup.MarkerKey)); err == nil && dir != filepath.Clean(path) {
			return &backup.RefusedError{Reason: fmt.Sprintf("%s lies in another repository (%s)", path, dir)}
		}
	}
	return nil
}
