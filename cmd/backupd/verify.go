package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

type verifyOptions struct {
	repo       repoFlags
	identity   identityFlag
	all        bool
	storedOnly bool
	spool      spoolFlags
}

func newVerifyCommand(a *app) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [--repo REPO] ID|latest|--all",
		Short: "Prove that stored snapshots are whole",
		Long: `Prove that stored snapshots are whole: read the stored bytes back, decode them,
check every hash, open the database in a child process, recompute HashKV and
compare everything with the manifest.

Each defect is named: wrong length, bytes changed, swapped with another snapshot,
manifest without data, data without manifest, content differs. It is also recorded in
the repository, as a mark: from then on every command and every daemon takes the
snapshot for damaged. A later verification that finds the snapshot whole removes the
mark. That a snapshot is whole is recorded with the time, too: "show" tells it.

` + latestHelp + exitHelp,
		Example: `  backupd verify --repo s3://backups/etcd latest
  backupd verify --repo s3://backups/etcd --all --identity key.txt`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.all && len(args) == 0 {
				return nil
			}
			return oneReference(cmd, args)
		},
		ValidArgsFunction: completeIDs(&o.repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd, a, o, args)
		},
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	o.repo.registerTimeline(cmd, latestOfTimeline)
	o.identity.register(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "verify every snapshot")
	cmd.Flags().BoolVar(&o.storedOnly, "stored-only", false,
		"compare the stored bytes only, without decoding: needs no identity")
	o.spool.register(cmd, "decoded copy")
	return cmd
}

// verification is the result for one snapshot.
type verification struct {
	Cluster string            `json:"cluster"`
	ID      backup.SnapshotID `json:"id,omitempty"`
	Key     string            `json:"key,omitempty"`
	Result  string            `json:"result"` // ok, defect, note or unknown
	Defect  string            `json:"defect,omitempty"`
	Detail  string            `json:"detail,omitempty"`
}

type verifications struct {
	Snapshots []verification `json:"snapshots"`
}

func runVerify(cmd *cobra.Command, a *app, o verifyOptions, args []string) error {
	ctx := cmd.Context()
	if o.all && len(args) > 0 {
		return &usageError{errors.New("give either a snapshot or --all")}
	}
	ids, err := o.identity.read(a)
	if err != nil {
		return err
	}
	repo, err := o.repo.openToRead(ctx, a)
	if err != nil {
		return err
	}
	chosen, err := o.choose(cmd, repo, args)
	if err != nil {
		return err
	}
	var out []verification
	var errs, found []error
	if !slices.ContainsFunc(chosen, func(c candidates) bool { return len(c.items) > 0 }) {
		errs = append(errs, o.nothing(ctx, repo))
	}
	for _, c := range chosen {
		v := &snapshot.Verifier{
			Cluster: c.in, Identities: ids, Spool: o.spool.folder(), Progress: a.progress.report,
		}
		if o.storedOnly {
			v.Depth = snapshot.StoredOnly
		}
		rows, err := o.verifyAll(ctx, a, v, c.items)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && !o.all {
			err = explainDamage(cmd, c.in, c.items[0], err)
		}
		out, found = append(out, rows...), append(found, err)
		if o.all {
			rows, lost, err := orphans(ctx, c.in)
			out, found, errs = append(out, rows...), append(found, lost), append(errs, err)
		}
	}
	a.progress.stop()
	errs = append(errs, summed(out, errors.Join(found...)))
	return errors.Join(append([]error{printVerification(a, out)}, errs...)...)
}

// toldError is an error whose words the answer holds already. It tells how many there are.
type toldError struct {
	text string
	err  error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.err }

// summed counts what the rows tell, each with its own words.
func summed(rows []verification, err error) error {
	if err == nil {
		return nil
	}
	n := map[string]int{}
	for _, r := range rows {
		n[r.Result]++
	}
	return &toldError{fmt.Sprintf("verification: %s, %d unknown, %d ok",
		count(n["defect"], "defect", "defects"), n["unknown"], n["ok"]), err}
}

func (o *verifyOptions) verifyAll(
	ctx context.Context, a *app, v *snapshot.Verifier, items []repository.Item,
) ([]verification, error) {
	var out []verification
	var errs []error
	for _, i := range items {
		_, err := v.Verify(ctx, i)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, rerr := v.Record(ctx, i, err, whoami()); rerr != nil {
			// The command was asked for the result, and has it.
			a.log.slog.Warn("the result cannot be recorded in the repository", "snapshot", i.ID, "err", rerr)
		}
		out, errs = append(out, newVerification(i, err, v.Depth)), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// nothing is the error of a verification that found no snapshot: somebody may rely on
// what it says.
func (o *verifyOptions) nothing(ctx context.Context, repo *repository.Repository) error {
	if err := o.repo.missing(ctx, repo); err != nil {
		return err
	}
	return &repository.NotFoundError{Reason: "there is nothing to verify: the repository holds no snapshot"}
}

// candidates are the snapshots of one cluster that will be verified.
type candidates struct {
	in    *repository.Cluster
	items []repository.Item
}

func (o *verifyOptions) choose(cmd *cobra.Command, repo *repository.Repository, args []string) ([]candidates, error) {
	ctx := cmd.Context()
	if !o.all {
		in, item, err := o.repo.findRest(cmd, repo, args[0])
		return []candidates{{in, []repository.Item{item}}}, err
	}
	clusters := []string{o.repo.cluster}
	if o.repo.cluster == "" {
		var err error
		if clusters, err = repo.Clusters(ctx); err != nil {
			return nil, err
		}
	}
	var out []candidates
	for _, name := range clusters {
		c := candidates{in: repo.Cluster(name)}
		for i, err := range c.in.Items(ctx) {
			if err != nil {
				return nil, err
			}
			if i.Exists {
				c.items = append(c.items, i)
			}
		}
		slices.Reverse(c.items) // the newest first
		out = append(out, c)
	}
	return out, nil
}

func newVerification(i repository.Item, err error, depth snapshot.Depth) verification {
	v := verification{Cluster: i.Cluster, ID: i.ID, Result: "ok"}
	var defect *backup.DefectError
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

// orphans finds data without a manifest. lost is the defect that this is. Fresh data may be
// a backup in progress: it is reported, and is no defect.
func orphans(ctx context.Context, in *repository.Cluster) (out []verification, lost, err error) {
	var errs []error
	for i, err := range in.Items(ctx) {
		if err != nil {
			return nil, nil, err
		}
		if i.Exists {
			continue
		}
		litter := i.Litter(time.Now())
		for _, obj := range i.Data {
			v := verification{Cluster: in.Name(), Key: obj.Key, Result: "defect", Defect: string(backup.ManifestMissing)}
			if len(litter) == 0 {
				v.Result, v.Detail = "note", "younger than a day: a backup in progress, or one that was interrupted"
			} else {
				errs = append(errs, &backup.DefectError{Kind: backup.ManifestMissing, Key: obj.Key,
					Err: backup.Corruptf("no manifest names it")})
			}
			out = append(out, v)
		}
	}
	return out, errors.Join(errs...), nil
}

func printVerification(a *app, rows []verification) error {
	if printed, err := a.document(kindVerification, verifications{append([]verification{}, rows...)}); printed {
		return err
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
