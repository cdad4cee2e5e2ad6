package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
)

// Latest is the reference to the furthest snapshot of the current history,
// whatever its state and whatever the clocks said.
const Latest = "latest"

// Allow says which snapshots [Cluster.Choose] may return although something speaks
// against them.
type Allow struct{ Suspect bool }

// ChoiceError is returned if a reference could mean more than one snapshot, or
// means one that cannot be restored while another can. Nothing is guessed: the
// caller must name a snapshot by its id.
type ChoiceError struct {
	Reason string
	// Suspect is the snapshot that needs [Allow], or nil.
	Suspect *Item
	// Others are snapshots that can be restored by their ids, the best first.
	Others []Item
}

func (e *ChoiceError) Error() string { return "refused: " + e.Reason }

// Unwrap makes it a refusal.
func (e *ChoiceError) Unwrap() error {
	r := &backup.RefusedError{Reason: e.Reason}
	if e.Suspect != nil {
		r.Override = "--allow-suspect"
	}
	return r
}

// Find returns the snapshot that ref names: by its id, by the beginning of its id,
// or as [Latest]. It looks in one cluster or, if cluster is empty, in all of them;
// [Latest] then needs a repository with only one cluster. Where ref could mean more than
// one snapshot the error is a [*ChoiceError]. It does not judge: see [Cluster.Choose].
func (r *Repository) Find(ctx context.Context, cluster, ref string, now time.Time) (*Cluster, Item, error) {
	if cluster != "" {
		return r.find(ctx, []string{cluster}, ref, now)
	}
	names, err := r.Clusters(ctx)
	if err != nil {
		return nil, Item{}, err
	}
	return r.find(ctx, names, ref, now)
}

// Find returns the snapshot of the cluster that ref names: an id, the beginning
// of one, or [Latest]. It does not judge: see [Cluster.Choose].
func (c *Cluster) Find(ctx context.Context, ref string, now time.Time) (Item, error) {
	_, i, err := c.repo.find(ctx, []string{c.Name()}, ref, now)
	return i, err
}

func (r *Repository) find(ctx context.Context, names []string, ref string, now time.Time) (*Cluster, Item, error) {
	switch ref {
	case Latest:
		return r.findLatest(ctx, names, now)
	case "": // the beginning of every id
		return nil, Item{}, errors.New(
			"the reference of a snapshot is empty: want an id, the beginning of one, or latest")
	}
	var found []Item
	for _, name := range names {
		items, err := matching(ctx, r.Cluster(name).objects, ref)
		if err != nil {
			return nil, Item{}, err
		}
		found = append(found, items...)
	}
	switch len(found) {
	case 0:
		return nil, Item{}, &NotFoundError{"no such snapshot: " + ref}
	case 1:
		c := r.Cluster(found[0].Cluster)
		i, err := existing(ctx, c, found[0].ID)
		return c, i, err
	}
	slices.SortFunc(found, func(a, b Item) int { return backup.CompareIDs(b.ID, a.ID) })
	return nil, Item{}, &ChoiceError{
		Reason: fmt.Sprintf("%q is the beginning of %d snapshot ids", ref, len(found)), Others: found,
	}
}

// findLatest looks for the latest snapshot of the only cluster that has any.
func (r *Repository) findLatest(
	ctx context.Context, names []string, now time.Time,
) (of *Cluster, latest Item, refusal error) {
	var in []string
	var choices []Item
	var none error = &NotFoundError{"no such snapshot: the repository holds none"}
	for _, name := range names {
		var choice *ChoiceError
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
		case !errors.As(err, new(*NotFoundError)):
			return nil, Item{}, err
		case len(names) == 1: // else it holds litter only
			none = err
		}
	}
	switch len(in) {
	case 0:
		return nil, Item{}, none
	case 1:
		return of, latest, refusal
	}
	return nil, Item{}, &ChoiceError{Others: choices, Reason: fmt.Sprintf(
		"the repository holds %d clusters, each with a latest snapshot: name one with --cluster (%s)",
		len(in), strings.Join(in, ", "))}
}

// matching lists the snapshots whose ids begin with ref, each id once. An id with
// several manifests, which backupd never makes, is one snapshot that clashes.
func matching(ctx context.Context, in catalog.Catalog, ref string) ([]Item, error) {
	items, err := names(ctx, in, ref)
	items = slices.DeleteFunc(items, func(i Item) bool { return !strings.HasPrefix(string(i.ID), ref) })
	return slices.CompactFunc(items, func(a, b Item) bool { return a.ID == b.ID }), err
}

// latestOf returns the snapshot that [Latest] names. It lists all manifests, because
// only their names tell how far each snapshot of the history is.
func latestOf(ctx context.Context, c *Cluster) (Item, error) {
	items, err := names(ctx, c.objects, "")
	if err != nil {
		return Item{}, err
	}
	all := divide(items)
	if len(all) == 0 {
		return Item{}, &NotFoundError{"no such snapshot: the repository holds none of cluster " + c.Name()}
	}
	if len(all) > 1 {
		if all, err = timelinesOf(ctx, c, items, nil); err != nil {
			return Item{}, err
		}
	}
	present, err := all.Present()
	if err != nil {
		choice := &ChoiceError{Reason: "the latest snapshot is not known: " + err.Error()}
		for _, t := range all.Live() {
			choice.Others = append(choice.Others, t.Head)
		}
		return Item{}, choice
	}
	return existing(ctx, c, present.Head.ID)
}

// Undoubted returns the furthest snapshot of the newest history that was not suspect
// when it was taken, whether the history is accepted or not. To verify it is never
// wrong. It returns a [*NotFoundError] if there is none.
func Undoubted(ctx context.Context, c *Cluster) (Item, error) {
	items, err := names(ctx, c.objects, "")
	if err != nil {
		return Item{}, err
	}
	items = slices.DeleteFunc(items, func(i Item) bool { return i.Taken == backup.Suspect })
	if len(items) == 0 {
		return Item{}, &NotFoundError{"no such snapshot: the repository holds no verified one of cluster " + c.Name()}
	}
	return existing(ctx, c, slices.MaxFunc(items, compareHistory).ID)
}

// existing returns a snapshot that was listed a moment ago, with its data and
// marks. It returns a [*NotFoundError] if the snapshot was deleted since.
func existing(ctx context.Context, c *Cluster, id backup.SnapshotID) (Item, error) {
	i, err := c.Item(ctx, id)
	if err == nil && !i.Exists {
		err = noSuch(id)
	}
	return i, err
}

// Item returns everything that is stored under the id of a snapshot. If the
// manifest is gone, it returns the rest of the snapshot: see [Item.Exists]. It
// returns a [*NotFoundError] if there is nothing.
func (c *Cluster) Item(ctx context.Context, id backup.SnapshotID) (Item, error) {
	second := catalog.SecondOf(string(id))
	var found []Item
	for i, err := range itemsFrom(ctx, c.objects, second) {
		if err != nil {
			return Item{}, err
		}
		if catalog.SecondOf(string(i.Name)) != second {
			break
		}
		if i.ID == id || i.ID == "" && i.Name == id.DataName() {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return Item{}, noSuch(id)
	}
	i := found[len(found)-1] // if there are several they clash, and each of them says so
	i.ID = id
	if !i.Marked(backup.MarkDamaged) {
		return i, nil
	}
	marks, err := c.Marks().read(ctx, []Item{i}, nil)
	i.explain(marks)
	return i, err
}

// Choose returns the snapshot that ref names, if it may be restored. No other code
// decides this. A snapshot that is known to be damaged is an error that wraps
// [backup.ErrCorrupt]; a suspect one is refused unless it is allowed. If [Latest]
// names such a snapshot, the error is a [*ChoiceError] that names the furthest
// verified one of the same history.
func (c *Cluster) Choose(ctx context.Context, ref string, a Allow, now time.Time) (Item, error) {
	i, err := c.Find(ctx, ref, now)
	if err != nil {
		return Item{}, err
	}
	state := i.State()
	if state.Usable() || state == backup.Suspect && a.Suspect {
		return i, nil
	}
	reason, err := against(ctx, c, i)
	if err != nil {
		return Item{}, err
	}
	refusal := &ChoiceError{Reason: reason}
	if ref == Latest {
		refusal.Reason = "the latest " + reason
		if refusal.Others, err = Alternatives(ctx, c, i, now); err != nil {
			return Item{}, err
		}
	}
	if state == backup.Suspect {
		refusal.Suspect = &i
	} else if len(refusal.Others) == 0 {
		return Item{}, fmt.Errorf("snapshot %s is damaged: %w", i.ID, i.Defect()) // there is no choice
	}
	return Item{}, refusal
}

// Choose is [Cluster.Choose] in one cluster or, if cluster is empty, in the
// cluster in which [Repository.Find] finds ref.
func (r *Repository) Choose(
	ctx context.Context, cluster, ref string, a Allow, now time.Time,
) (*Cluster, Item, error) {
	c := r.Cluster(cluster)
	if cluster == "" {
		var err error
		if c, _, err = r.Find(ctx, cluster, ref, now); err != nil {
			return nil, Item{}, err
		}
	}
	i, err := c.Choose(ctx, ref, a, now)
	return c, i, err
}

// against returns the reason not to restore a snapshot.
func against(ctx context.Context, c *Cluster, i Item) (string, error) {
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
func Alternatives(ctx context.Context, c *Cluster, i Item, now time.Time) ([]Item, error) {
	o, err := c.Look(ctx, 1, nil, now)
	if err != nil {
		return nil, err
	}
	for _, state := range []backup.State{backup.Verified, backup.Unconfirmed} {
		good := slices.DeleteFunc(slices.Clone(o.Items), func(other Item) bool {
			return other.ID == i.ID || other.Timeline != i.Timeline || other.State() != state
		})
		if len(good) > 0 {
			return []Item{slices.MaxFunc(good, compareProgress)}, nil
		}
	}
	return nil, nil
}
