package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/again"
	"github.com/etcd-backupd/backupd/internal/restore/alive"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
)

const emptyHelp = `--if-empty is for what runs at every start, as the init container of a pod: by --plan, or by
a full snapshot id with --initial-cluster and --initial-cluster-token. Only an empty folder is
restored to. A member that this restore has made is left as it is (exit code 0), without the
repository, which may be gone by then. So is one of another history; --require-this refuses it.
An interrupted restore is finished. A pod above the size of the plan is left to etcd's own
means. Members of the new cluster that run are asked: one that has taken part in it and has
lost its data is refused, for it would have forgotten what it has confirmed, and the command
that replaces it is printed. So it is if none answers, and the repository has backups of the
new cluster. --allow-again restores it all the same.

`

// emptyFlags are those of a restore that runs again and again.
type emptyFlags struct {
	set, requireThis, again bool

	peerCA, peerCert, peerKey string

	cluster again.Cluster // that is restored
	tls     *tls.Config   // nil without certificates
	never   bool          // members of it run, and this one has never taken part
}

func (e *emptyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&e.set, "if-empty", false,
		"restore only if the folder has no member yet: for what runs at every start of a pod")
	f.BoolVar(&e.requireThis, "require-this", false,
		"with --if-empty: refuse a folder that has a member of another history")
	f.BoolVar(&e.again, "allow-again", false,
		"restore a member although it has taken part in its new cluster already, if all members are restored again")
	f.StringVar(&e.peerCA, "peer-trusted-ca-file", "",
		"the CA bundle by which members know one another, as etcd's flag: members of the new cluster are asked with it")
	f.StringVar(&e.peerCert, "peer-cert-file", "", "the certificate that members show one another")
	f.StringVar(&e.peerKey, "peer-key-file", "", "the key of --peer-cert-file")
}

// check refuses flags that do not go together.
func (e *emptyFlags) check(cmd *cobra.Command, o *restoreOptions, args []string) error {
	if !e.set {
		if e.requireThis {
			return &usageError{errors.New("--require-this goes with --if-empty")}
		}
		return e.checkPair()
	}
	for name, given := range map[string]bool{"replace": o.target.replace, "all-members": o.allMembers} {
		if given {
			return &usageError{fmt.Errorf("--if-empty and --%s exclude each other", name)}
		}
	}
	if err := e.checkPair(); err != nil {
		return err
	}
	if len(args) > 0 {
		if _, err := backup.ParseSnapshotID(args[0]); err != nil {
			return &usageError{fmt.Errorf("--if-empty takes the full id of a snapshot, and not %q: the members are restored at "+
				"different times, and from different snapshots then; give --plan FILE", args[0])}
		}
	}
	if o.plan.file == "" && (o.target.token == "" || o.target.initialCluster == "") {
		return &usageError{errors.New("--if-empty without --plan needs --initial-cluster and --initial-cluster-token: " +
			"they say whether a member is of this restore, also when the repository is gone")}
	}
	return nil
}

func (e *emptyFlags) checkPair() error {
	if (e.peerCert == "") != (e.peerKey == "") {
		return &usageError{errors.New("--peer-cert-file and --peer-key-file go together")}
	}
	return nil
}

// look finishes what was interrupted, and reports whether nothing is to be restored. It asks
// no store.
func (e *emptyFlags) look(cmd *cobra.Command, a *app, order restoreOrder, p *restore.Plan) (done bool, err error) {
	if p != nil {
		e.cluster = again.Planned(p)
	} else if e.cluster, err = again.Named(order.request.InitialCluster, order.request.Token); err != nil {
		return false, err
	}
	finished, err := e.finish(cmd.Context(), order)
	if err != nil {
		return false, err
	}
	site := order.site
	dir := absolute(site.DataDir)
	if dir == "" {
		dir = absolute(site.Name + ".etcd")
	}
	found, err := e.cluster.Look(site.Name, dir, absolute(site.WALDir))
	if err != nil && !errors.Is(err, again.ErrNoWAL) {
		return false, err
	}
	if found == nil {
		joins, jerr := e.askPeers(cmd.Context(), site)
		switch {
		case joins:
			found = e.cluster.Joins(site.Name, dir)
		case err != nil:
			return false, err
		default:
			return false, jerr
		}
	}
	if e.requireThis {
		if err := found.RefuseOther(); err != nil {
			return false, err
		}
	}
	if finished != nil {
		return true, printFinished(a, *finished)
	}
	return true, printUnneeded(a, found)
}

func printUnneeded(a *app, found *again.Found) error {
	if printed, err := a.document(kindUnneeded, found); printed {
		return err
	}
	_, err := fmt.Fprintln(a.stdout, strings.ToUpper(found.Text[:1])+found.Text[1:])
	return err
}

// finish completes an interrupted restore to the folder, whichever it was: what is there then
// is looked at as everything else. An undo was a person's.
func (e *emptyFlags) finish(ctx context.Context, order restoreOrder) (*restore.Summary, error) {
	undone, err := undo.Interrupted(order.site)
	if err != nil {
		return nil, err
	}
	var interrupted *restore.InterruptedError
	err = restore.CheckInterrupted(order.site)
	if errors.As(err, &interrupted) && (undone || order.dryRun) {
		return nil, withHints(err, interruptedHints(interrupted)...)
	}
	if order.dryRun {
		return nil, err
	}
	done, err := restore.FinishAny(ctx, order.site)
	return done, explainUnmoved(err)
}

// askPeers asks the members of the cluster that run whether the member of this host, which
// has no data, may be restored. joins is true if it needs no restore.
func (e *emptyFlags) askPeers(ctx context.Context, site restore.Site) (joins bool, err error) {
	m, in := e.cluster.Member(site.Name)
	if !in || site.AllowRunning || e.again {
		return false, nil
	}
	found := alive.Ask(ctx, alive.Question{New: e.cluster.ID, Planned: e.cluster.Members, TLS: e.tls})
	return found.RefuseAgain(m)
}

// mayAgain refuses to restore a member that has taken part in the new cluster already, as
// far as those of it that run know: raft does not survive a member that has forgotten what it
// has confirmed. A restore that joins none begins a cluster, of which no member runs.
func (e *emptyFlags) mayAgain(found *alive.Found, j *restoreJob, targets []restore.Target) error {
	if e.again || !e.set && !j.joins() {
		return nil
	}
	for _, t := range targets {
		e.never = found.Part(t.Member) == alive.Never
		joins, err := found.RefuseAgain(t.Member)
		if joins {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"the running cluster has added %s anew, and fills it", t.Member.Name)},
				"restore nothing: start it with an empty folder")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readTLS returns how members reach one another, or nil if no certificate was given.
func (e *emptyFlags) readTLS() (*tls.Config, error) {
	if e.peerCA == "" && e.peerCert == "" {
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.peerCA != "" {
		pool, err := certs.ReadPool(e.peerCA)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--peer-trusted-ca-file: %w", err)}
		}
		conf.RootCAs = pool
	}
	if e.peerCert != "" {
		pair, err := certs.ReadPair(e.peerCert, e.peerKey)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--peer-cert-file: %w", err)}
		}
		conf.Certificates = []tls.Certificate{*pair}
	}
	return conf, nil
}

// checkLost refuses to restore a member of a cluster that has run since its restore, as far as
// the repository knows, if no member of it has said that this one never took part.
func (e *emptyFlags) checkLost(ctx context.Context, j *restoreJob, p *restore.Plan) error {
	// A token that was made up may be that of the old cluster, and so the id.
	if _, ours := restore.TokenBump(p.Token); j.stored == nil || e.never || e.again || !e.set && (!j.joins() || !ours) {
		return nil
	}
	ran, err := j.exists(ctx, p.ClusterID)
	if err != nil && !e.set {
		j.app.log.slog.Warn("nobody knows whether the new cluster has run already: the histories cannot be read", "err", err)
		return nil
	}
	if err != nil || !ran {
		return err
	}
	return withHints(&backup.RefusedError{Reason: fmt.Sprintf(
		"the repository has backups of the cluster of this restore (%s): it has run since, and what member %s has "+
			"confirmed would be lost. None of its members says that it has not taken part", p.ClusterID, j.site.Name)},
		"if other members have their data, start them: this one is not to be restored from old data then, but replaced",
		"if all is lost, make a new plan of the newest snapshot, for all members: backupd plan latest",
		"--allow-again goes back to the snapshot of this restore, which is right only if all members are restored again")
}
