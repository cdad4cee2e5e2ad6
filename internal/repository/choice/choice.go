// Package choice decides which snapshot a reference names, and whether it may be
// restored. It never guesses: where more than one answer is possible it refuses, and
// names all of them.
package choice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Latest is the reference to the furthest snapshot of the current history,
// whatever its state and whatever the clocks said.
const Latest = "latest"

// Allow says which snapshots [Choose] may return although something speaks
// against them.
type Allow struct{ Suspect bool }

// Error is returned if a reference could mean more than one snapshot, or
// means one that cannot be restored while another can. Nothing is guessed: the
// caller must name a snapshot by its id.
type Error struct {
	Reason string
	// Suspect is the snapshot that needs [Allow], or nil.
	Suspect *repository.Item
	// Others are snapshots that can be restored by their ids, the best first.
	Others []repository.Item
	// Keys are how many keys some of them hold, as far as their manifests were read.
	Keys map[backup.SnapshotID]int64
}

func (e *Error) Error() string { return "refused: " + e.Reason }

// Unwrap makes it a refusal.
func (e *Error) Unwrap() error {
	r := &backup.RefusedError{Reason: e.Reason}
	if e.Suspect != nil {
		r.Override = "--allow-suspect"
	}
	return r
}

// Find returns the snapshot that ref names: by its id, by the beginning of its id,
// or as [Latest]. It looks in one cluster or, if cluster is empty, in all of them;
// [Latest] then needs a repository with only one cluster. Where ref could mean more than
// one snapshot the error is a [*Error]. It does not judge: see [Choose].
func Find(
	ctx context.Context, r *repository.Repository, cluster, ref string,
) (*repository.Cluster, repository.Item, error) {
	if cluster != "" {
		return find(ctx, r, []string{cluster}, ref)
	}
	names, err := r.Clusters(ctx)
	if _, bad := backup.ParseSnapshotID(ref); bad == nil && errors.Is(err, backup.ErrUnordered) {
		err = backup.WithHint(err, "name the cluster of the snapshot with --cluster: then its id is enough")
	}
	if err != nil {
		return nil, repository.Item{}, err
	}
	return find(ctx, r, names, ref)
}

// FindIn returns the snapshot of one cluster that ref names: an id, the beginning
// of one, or [Latest]. It does not judge: see [Choose].
func FindIn(ctx context.Context, c *repository.Cluster, ref string) (repository.Item, error) {
	_, i, err := find(ctx, c.Repository(), []string{c.Name()}, ref)
	return i, err
}

func find(
	ctx context.Context, r *repository.Repository, names []string, ref string,
) (*repository.Cluster, repository.Item, error) {
	switch ref {
	case Latest:
		return findLatest(ctx, r, names)
	case "": // the beginning of every id
		return nil, repository.Item{}, errors.New(
			"the reference of a snapshot is empty: want an id, the beginning of one, or latest")
	}
	var found []repository.Item
	for _, name := range names {
		items, err := matching(ctx, r.Cluster(name), ref)
		if err != nil {
			return nil, repository.Item{}, err
		}
		found = append(found, items...)
	}
	switch len(found) {
	case 0:
		return nil, repository.Item{}, notFound(ctx, r, names, ref)
	case 1:
		c := r.Cluster(found[0].Cluster)
		i, err := existing(ctx, c, found[0].ID)
		return c, i, err
	}
	slices.SortFunc(found, func(a, b repository.Item) int { return backup.CompareIDs(b.ID, a.ID) })
	return nil, repository.Item{}, &Error{
		Reason: fmt.Sprintf("%q is the beginning of %d snapshot ids", ref, len(found)), Others: found,
	}
}

// notFound is the error for a reference that names nothing. If backupd removed the
// snapshot, it says so.
func notFound(ctx context.Context, r *repository.Repository, names []string, ref string) error {
	id, err := backup.ParseSnapshotID(ref)
	for _, name := range names {
		if err != nil {
			break // the beginning of an id
		}
		m, merr := r.Cluster(name).Marks().Find(ctx, id, backup.MarkRemoved)
		if merr == nil && m != nil {
			return &repository.NotFoundError{Reason: fmt.Sprintf("snapshot %s was removed at %s by %s: %s",
				id, m.At.Format(time.RFC3339), cmp.Or(m.By, "nobody knows whom"), m.Reason)}
		}
	}
	return &repository.NotFoundError{Reason: "no such snapshot: " + ref}
}

// findLatest looks for the latest snapshot of the only cluster that has any.
func findLatest(
	ctx context.Context, r *repository.Repository, names []string,
) (of *repository.Cluster, latest repository.Item, refusal error) {
	var in []string
	var choices []repository.Item
	var none error = &repository.NotFoundError{Reason: "no such snapshot: the repository holds none"}
	for _, name := range names {
		var choice *Error
		i, err := latestOf(ctx, r.Cluster(name))
		switch {
		case err == nil, errors.As(err, &choice):
			of, latest, refusal = r.Cluster(name), i, err
			in = append(in, name)
			if err == nil {
				choices = append(choices, i)
			} else {
				choices = append(choices, choice.Others...)
			}
		case !errors.As(err, new(*repository.NotFoundError)):
			return nil, repository.Item{}, err
		case len(names) == 1: // else it holds litter only
			none = err
		}
	}
	switch len(in) {
	case 0:
		return nil, repository.Item{}, none
	case 1:
		return of, latest, refusal
	}
	return nil, repository.Item{}, &Error{Others: choices, Reason: fmt.Sprintf(
		"the repository holds %d clusters, each with a latest snapshot: name one with --cluster (%s)",
		len(in), strings.Join(in, ", "))}
}

// matching lists the snapshots whose ids begin with ref, each id once. An id with
// several manifests, which backupd never makes, is one snapshot that clashes.
func matching(ctx context.Context, c *repository.Cluster, ref string) ([]repository.Item, error) {
	items, err := repository.Names(ctx, c, ref)
	items = slices.DeleteFunc(items, func(i repository.Item) bool { return !strings.HasPrefix(string(i.ID), ref) })
	return slices.CompactFunc(items, func(a, b repository.Item) bool { return a.ID == b.ID }), err
}

// latestOf returns the snapshot that [Latest] names. It lists all manifests, because
// only their names tell how far each snapshot of the history is.
func latestOf(ctx context.Context, c *repository.Cluster) (repository.Item, error) {
	items, err := repository.Names(ctx, c, "")
	if err != nil {
		return repository.Item{}, err
	}
	if len(items) == 0 {
		return repository.Item{}, &repository.NotFoundError{
			Reason: "no such snapshot: the repository holds none of cluster " + c.Name(),
		}
	}
	if !slices.ContainsFunc(items, func(i repository.Item) bool { return i.Timeline != items[0].Timeline }) {
		return existing(ctx, c, slices.MaxFunc(items, repository.CompareHistory).ID)
	}
	all, err := repository.ReadTimelines(ctx, c)
	if err != nil {
		return repository.Item{}, err
	}
	present, err := all.Present()
	if err != nil {
		choice := &Error{
			Reason: "the latest snapshot is not known: " + err.Error(), Keys: map[backup.SnapshotID]int64{},
		}
		for _, t := range all.Live() {
			choice.Others = append(choice.Others, t.Head)
			if t.Manifest != nil && t.Manifest.ID == t.Head.ID {
				choice.Keys[t.Head.ID] = t.Manifest.Keys
			}
		}
		return repository.Item{}, choice
	}
	return existing(ctx, c, present.Head.ID)
}

// Choose returns the snapshot that ref names, if it may be restored. No other code
// decides this. A snapshot that is known to be damaged is an error that wraps
// [backup.ErrCorrupt]; a suspect one is refused unless it is allowed. If [Latest]
// names such a snapshot, the error is a [*Error] that names the furthest
// verified one of the same history.
func Choose(
	ctx context.Context, c *repository.Cluster, ref string, a Allow, now time.Time,
) (repository.Item, error) {
	i, err := FindIn(ctx, c, ref)
	if err != nil {
		return repository.Item{}, err
	}
	state := i.State()
	if defect := (*backup.DefectError)(nil); errors.As(i.Defect(), &defect) && defect.Kind == backup.CompanionsBad {
		state = i.Taken // the data is as good as it was
	}
	if state.Usable() || state == backup.Suspect && a.Suspect {
		return i, nil
	}
	reason, err := against(ctx, c, i)
	if err != nil {
		return repository.Item{}, err
	}
	refusal := &Error{Reason: reason}
	if ref == Latest {
		refusal.Reason = "the latest " + reason
		if refusal.Others, err = Alternatives(ctx, c, i, now); err != nil {
			return repository.Item{}, err
		}
	}
	if state == backup.Suspect {
		refusal.Suspect = &i
	} else if len(refusal.Others) == 0 {
		return repository.Item{}, fmt.Errorf("snapshot %s is damaged: %w", i.ID, i.Defect()) // there is no choice
	}
	return repository.Item{}, refusal
}

// ChooseAnywhere is [Choose] in one cluster or, if cluster is empty, in the cluster in
// which [Find] finds ref.
func ChooseAnywhere(
	ctx context.Context, r *repository.Repository, cluster, ref string, a Allow, now time.Time,
) (*repository.Cluster, repository.Item, error) {
	c := r.Cluster(cluster)
	if cluster == "" {
		var err error
		if c, _, err = Find(ctx, r, cluster, ref); err != nil {
			return nil, repository.Item{}, err
		}
	}
	i, err := Choose(ctx, c, ref, a, now)
	return c, i, err
}

// against returns the reason not to restore a snapshot.
func against(ctx context.Context, c *repository.Cluster, i repository.Item) (string, error) {
	if defect := i.Defect(); defect != nil {
		return fmt.Sprintf("snapshot %s is damaged: %v", i.ID, defect), nil
	}
	m, err := c.Manifest(ctx, i)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("snapshot %s is suspect: %s", i.ID, m.Suspect[0]), nil
}

// Alternatives returns the furthest verified snapshot of the history of i other than i
// or, if there is none, the furthest unconfirmed one.
func Alternatives(
	ctx context.Context, c *repository.Cluster, i repository.Item, now time.Time,
) ([]repository.Item, error) {
	o, err := c.Look(ctx, 1, nil, now)
	if err != nil {
		return nil, err
	}
	for _, state := range []backup.State{backup.Verified, backup.Unconfirmed} {
		good := slices.DeleteFunc(slices.Clone(o.Items), func(other repository.Item) bool {
			return other.ID == i.ID || other.Timeline != i.Timeline || other.State() != state
		})
		if len(good) > 0 {
			return []repository.Item{slices.MaxFunc(good, repository.CompareProgress)}, nil
		}
	}
	return nil, nil
}

// existing returns a snapshot that was listed a moment ago, with its data and
// marks. It returns a [*repository.NotFoundError] if the snapshot was deleted since.
func existing(ctx context.Context, c *repository.Cluster, id backup.SnapshotID) (repository.Item, error) {
	i, err := c.Item(ctx, id)
	if err == nil && !i.Exists {
		err = &repository.NotFoundError{Reason: "no such snapshot: " + string(id)}
	}
	return i, err
}
