package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

type verifyOptions struct {
	repo       repoFlags
	identity   identityFlag
	all        bool
	storedOnly bool
	spool      string
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify --repo REPO [ID|latest|--all]",
		Short: "Prove that stored snapshots are whole",
		Long: `Prove that stored snapshots are whole: read the stored bytes back, decode them,
check every hash, open the database in a child process, recompute HashKV and
compare everything with the manifest.

Each defect is named: wrong length, bytes changed, swapped with another snapshot,
manifest without data, data without manifest, content differs.

` + exitHelp,
		Example:           "  backupd verify --repo s3://backups/etcd latest\n  backupd verify --repo s3://backups/etcd --all --identity key.txt",
		Args:              optionalID,
		ValidArgsFunction: completeIDs(a, &o.repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), a, o, args)
		},
	}
	o.repo.register(cmd)
	o.identity.register(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "verify every snapshot")
	cmd.Flags().BoolVar(&o.storedOnly, "stored-only", false, "compare the stored bytes only, without decoding: needs no identity")
	cmd.Flags().StringVar(&o.spool, "spool", "", "folder for the decoded copy (default: the system's temporary folder)")
	return cmd
}

// verification is what was found out about one snapshot.
type verification struct {
	Cluster string            `json:"cluster"`
	ID      backup.SnapshotID `json:"id,omitempty"`
	Key     string            `json:"key,omitempty"`
	Result  string            `json:"result"` // ok, defect or unknown
	Defect  string            `json:"defect,omitempty"`
	Detail  string            `json:"detail,omitempty"`
}

func runVerify(ctx context.Context, a *app, o verifyOptions, args []string) error {
	if o.all && len(args) > 0 {
		return &usageError{errors.New("give either a snapshot or --all")}
	}
	ids, err := o.identity.read()
	if err != nil {
		return err
	}
	store, err := o.repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	entries, err := o.entries(ctx, store, args)
	if err != nil {
		return err
	}
	v := &snapshot.Verifier{Store: store, Identities: ids, Spool: o.spool, Progress: a.progress.report}
	if o.storedOnly {
		v.Depth = snapshot.StoredOnly
	}
	var out []verification
	var errs []error
	for _, e := range entries {
		_, err := v.Verify(ctx, e)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		out, errs = append(out, newVerification(e, err, v.Depth)), append(errs, err)
	}
	if o.all {
		found, err := orphans(ctx, store, o.repo.cluster)
		out, errs = append(out, found...), append(errs, err)
	}
	a.progress.stop()
	return errors.Join(append([]error{printVerification(a, out)}, errs...)...)
}

func (o *verifyOptions) entries(ctx context.Context, store storage.Store, args []string) ([]snapshot.Entry, error) {
	if o.all {
		return snapshot.Entries(ctx, store, o.repo.cluster)
	}
	e, err := o.repo.resolve(ctx, store, args)
	if err == nil {
		return []snapshot.Entry{e}, nil
	}
	// Data whose manifest is gone can still be named by its full id.
	if id, perr := backup.ParseSnapshotID(first(args)); perr == nil && isNotFound(err) && o.repo.cluster != "" {
		return []snapshot.Entry{{Cluster: o.repo.cluster, ID: id}}, nil
	}
	return nil, err
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

func newVerification(e snapshot.Entry, err error, depth snapshot.Depth) verification {
	v := verification{Cluster: e.Cluster, ID: e.ID, Result: "ok"}
	var defect *snapshot.DefectError
	switch {
	case err == nil && depth == snapshot.StoredOnly:
		v.Detail = "stored bytes only"
	case err == nil:
	case errors.As(err, &defect):
		v.Result, v.Defect, v.Key, v.Detail = "defect", string(defect.Kind), defect.Key, defect.Err.Error()
	case errors.Is(err, codec.ErrNoIdentity):
		v.Result, v.Detail = "unknown", "stored bytes are whole, but no identity decrypts them"
	default:
		v.Result, v.Detail = "unknown", err.Error()
	}
	return v
}

// orphans looks for data without a manifest. What is fresh may be a backup that
// is just being taken: it is told, and is no defect.
func orphans(ctx context.Context, store storage.Store, cluster string) ([]verification, error) {
	found, err := snapshot.Orphans(ctx, store, cluster, time.Now())
	if err != nil {
		return nil, err
	}
	var out []verification
	var errs []error
	for _, o := range found {
		k, err := backup.ParseKey(o.Key)
		if err != nil {
			return nil, err
		}
		v := verification{Cluster: k.Cluster, Key: o.Key, Result: "defect", Defect: string(snapshot.ManifestMissing)}
		if o.Fresh() {
			v.Result, v.Detail = "note", "younger than a day: a backup in progress, or one that was interrupted"
		} else {
			errs = append(errs, &snapshot.DefectError{Kind: snapshot.ManifestMissing, Key: o.Key, Err: backup.Corruptf("no manifest names it")})
		}
		out = append(out, v)
	}
	return out, errors.Join(errs...)
}

func printVerification(a *app, rows []verification) error {
	if a.global.writeOut == "json" {
		doc := struct {
			Snapshots []verification `json:"snapshots"`
		}{append([]verification{}, rows...)}
		return printJSON(a.stdout, kindVerification, doc)
	}
	header := []string{"CLUSTER", "SNAPSHOT", "RESULT", "DEFECT", "DETAIL"}
	var cells [][]string
	for _, r := range rows {
		what := string(r.ID)
		if what == "" {
			what = r.Key
		}
		cells = append(cells, []string{r.Cluster, what, r.Result, r.Defect, r.Detail})
	}
	return a.printRows(header, cells)
}
