package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/location"
	"github.com/etcd-backupd/backupd/internal/storage/s3"
)

// repoFlags say where the repository is.
type repoFlags struct {
	repo    string
	cluster string
	s3      s3.Options
}

func (r *repoFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.repo, "repo", "", "repository: file:///path or s3://bucket/prefix (required)")
	f.StringVar(&r.cluster, "cluster", "", "name of the cluster in the repository")
	f.StringVar(&r.s3.Endpoint, "s3-endpoint", "", "URL of an S3 service other than Amazon's")
	f.StringVar(&r.s3.Region, "s3-region", "", "region of the bucket")
	f.StringVar(&r.s3.PathStyle, "s3-path-style", "", "bucket in the path of the URL: on, off (default: on with --s3-endpoint)")
	f.StringVar(&r.s3.CAFile, "s3-ca-file", "", "CA bundle that the service's certificate is verified against")
	f.StringVar(&r.s3.CredentialsFile, "s3-credentials-file", "", "file with aws_access_key_id and aws_secret_access_key (default: the AWS SDK's chain)")
	f.StringVar(&r.s3.Profile, "s3-profile", "", "profile in the credentials or AWS configuration file")
	f.StringVar(&r.s3.StorageClass, "s3-storage-class", "", "storage class of new objects")
	f.StringVar(&r.s3.SSE, "s3-sse", "", "server-side encryption of new objects: AES256, aws:kms")
	f.StringVar(&r.s3.SSEKMSKeyID, "s3-sse-kms-key-id", "", "key for --s3-sse aws:kms")
	f.StringVar(&r.s3.SSECKeyFile, "s3-sse-c-key-file", "", "file with a customer key of 32 bytes for SSE-C")
	f.StringVar(&r.s3.Checksum, "s3-checksum", "", "checksum of uploads: auto, sha256, md5, none (default: auto)")
	mustRegister(cmd.RegisterFlagCompletionFunc("s3-path-style", fixed("on", "off")))
	mustRegister(cmd.RegisterFlagCompletionFunc("s3-sse", fixed("AES256", "aws:kms")))
	mustRegister(cmd.RegisterFlagCompletionFunc("s3-checksum", fixed("auto", "sha256", "md5", "none")))
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
	opts := r.s3
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
