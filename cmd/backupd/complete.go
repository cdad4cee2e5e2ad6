package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
)

const (
	// completionTimeout bounds what a shell waits for.
	completionTimeout = 2 * time.Second
	// completedIDs is how many ids of each cluster the shell shows.
	completedIDs = 50
)

// offer returns what may stand in a command line whose arguments before are args. It only
// reads. What it does not find it leaves out: an error must not disturb the shell.
type offer func(ctx context.Context, cmd *cobra.Command, args []string) []string

// completion makes a completion of an offer. The shell waits for it no longer than
// [completionTimeout], also if a disk or a name server hangs.
func completion(get offer) cobra.CompletionFunc {
	const directive = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		found := make(chan []string, 1)
		go func() { found <- get(ctx, cmd, args) }()
		select {
		case out := <-found:
			return out, directive
		case <-ctx.Done():
			return nil, directive
		}
	}
}

// lookAt opens the repository of a command line that is not whole, to read. It returns
// help if more must be known first.
func lookAt(ctx context.Context, cmd *cobra.Command, r *repoFlags) (*repository.Repository, []string) {
	a := &app{log: quietLogs()}
	if _, err := applyEnvironment(cmd, os.LookupEnv); err != nil {
		return nil, nil
	}
	if cmd.Annotations[configured] != "" {
		if err := a.configure(cmd); errors.As(err, new(*backup.RefusedError)) {
			return nil, cobra.AppendActiveHelp(nil, err.Error())
		}
	}
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, nil
	}
	return repository.At(s, ""), nil
}

// completeIDs offers the newest snapshots of the cluster, or of all.
func completeIDs(r *repoFlags) cobra.CompletionFunc {
	return completion(func(ctx context.Context, cmd *cobra.Command, args []string) []string {
		if len(args) > 0 {
			return nil
		}
		repo, help := lookAt(ctx, cmd, r)
		if repo == nil {
			return help
		}
		ids, clusters := []string{choice.Latest}, []string{r.cluster}
		if r.cluster == "" {
			clusters, _ = repo.Clusters(ctx)
		}
		for _, name := range clusters {
			newest, _ := repo.Cluster(name).Newest(ctx, completedIDs, "", time.Now())
			for _, i := range newest {
				ids = append(ids, string(i.ID))
			}
		}
		return ids
	})
}

// withoutLatest offers ids alone.
func withoutLatest(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		offered, directive := complete(cmd, args, begun)
		return slices.DeleteFunc(offered, func(id string) bool { return id == choice.Latest }), directive
	}
}

// completeClusters offers the clusters of the configuration, or else of the repository.
func completeClusters(r *repoFlags) cobra.CompletionFunc {
	return completion(func(ctx context.Context, cmd *cobra.Command, _ []string) []string {
		if _, err := applyEnvironment(cmd, os.LookupEnv); err != nil {
			return nil
		}
		if names := configuredClusters(cmd); len(names) > 0 {
			return names
		}
		repo, _ := lookAt(ctx, cmd, r)
		if repo == nil {
			return nil
		}
		names, _ := repo.Clusters(ctx)
		return names
	})
}

// completeCluster is [completeClusters] for the argument of a command.
func completeCluster(r *repoFlags) cobra.CompletionFunc {
	complete := completeClusters(r)
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}

// configuredClusters returns the clusters of the configuration that a command would use.
func configuredClusters(cmd *cobra.Command) []string {
	if cmd.Annotations[configured] != "" {
		if c, err := findConfiguration(cmd); c != nil && err == nil {
			return c.Clusters()
		}
		return nil
	}
	f := cmd.Flags().Lookup("config") // of a command that works on all clusters of a file
	if f == nil || !f.Changed {
		return nil
	}
	places, err := config.LoadPlaces(f.Value.String())
	if err != nil {
		return nil
	}
	return places.Clusters()
}

// completeMembers offers the members that the snapshot of a restore records.
func completeMembers(r *repoFlags) cobra.CompletionFunc {
	return completion(func(ctx context.Context, cmd *cobra.Command, args []string) []string {
		if names := plannedMembers(cmd); len(names) > 0 {
			return names
		}
		repo, help := lookAt(ctx, cmd, r)
		if repo == nil || len(args) != 1 {
			return help
		}
		in, item, err := choice.Find(ctx, repo, r.cluster, args[0])
		if err != nil {
			return nil
		}
		m, err := in.Manifest(ctx, item)
		if err != nil {
			return nil
		}
		var names []string
		for _, member := range m.Members {
			names = append(names, member.Name)
		}
		return names
	})
}
