package pause

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// State is what a repository says of the pauses of a cluster.
type State struct {
	// Pauses are those that count, as far as they have not ended: see [State.At].
	Pauses []Pause
	// Ignored is why marks count for nothing that have not ended by their names; nil if
	// there are none.
	Ignored error
	// Ended is when the last pause ended that has ended by itself; zero: there is none.
	Ended time.Time

	open []catalog.Object // the marks that have not ended, those that are ignored included
	old  []string         // the names of those that ended long ago
}

// At returns the pause that goes on at a time, or nil: of several the one that ends last.
func (s State) At(now time.Time) (last *Pause) {
	for i := range s.Pauses {
		if p := &s.Pauses[i]; now.Before(p.Until) && (last == nil || last.Until.Before(p.Until)) {
			last = p
		}
	}
	return last
}

// Read reads the pauses of a cluster. A mark that is damaged, longer than [Longest], from the
// future or withheld by the store counts for nothing, and is told of: that a cluster is not
// backed up must not hang on a clock that was wrong.
func Read(ctx context.Context, c *repository.Cluster, now time.Time) (State, error) {
	in := catalog.Catalog{Store: c.Repository().Store(), Cluster: c.Name()}
	if err := backup.CheckClusterName(c.Name()); err != nil {
		return State{}, err
	}
	all, err := in.All(ctx, backup.PausePrefix(c.Name()))
	var out State
	if backup.Withheld(err) {
		out.Ignored = fmt.Errorf("pauses of the cluster cannot be read, and none counts: %w", err)
		return out, nil
	}
	if err != nil {
		return State{}, err
	}
	for _, obj := range all {
		if until := obj.Name.Until; !now.Before(until) {
			if until.After(out.Ended) && CheckLength(obj.Name.Data.Time(), until) == nil {
				out.Ended = until
			}
			if now.Sub(until) > Longest { // clocks may differ
				out.old = append(out.old, obj.Key)
			}
			continue
		}
		p, err := read(ctx, in, obj.Name, now)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was taken back since the listing
			continue
		case ofMark(err):
			out.Ignored = errors.Join(out.Ignored, fmt.Errorf("a pause counts for nothing: %s: %w", obj.Name, err))
		case err != nil:
			return State{}, err
		default:
			out.Pauses = append(out.Pauses, *p)
		}
		out.open = append(out.open, obj)
	}
	return out, nil
}

// Now returns the pause of a cluster that goes on, or nil. The error is why that is not certain:
// the repository cannot be read, or a mark is ignored.
func Now(ctx context.Context, c *repository.Cluster, now time.Time) (*Pause, error) {
	state, err := Read(ctx, c, now)
	return state.At(now), cmp.Or(err, state.Ignored)
}

// ofMark reports whether an error is of one mark, and not of the store.
func ofMark(err error) bool {
	return errors.Is(err, backup.ErrCorrupt) || errors.As(err, new(*backup.UnknownFormatError)) || backup.Withheld(err)
}

func read(ctx context.Context, in catalog.Catalog, k backup.Key, now time.Time) (*Pause, error) {
	// The name tells both times. So a pause that cannot be is never read.
	at := k.Data.Time()
	if at.After(now.Add(backup.Skew)) {
		return nil, backup.Corruptf("it was made at %s, which is in the future: a clock is wrong, or was",
			at.Format(time.RFC3339))
	}
	if err := CheckLength(at, k.Until); err != nil {
		return nil, backup.Corruptf("%w", err)
	}
	raw, err := in.Read(ctx, k.String(), backup.MaxMarkBytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", k, err)
	}
	p, err := Parse(raw)
	if err == nil && (p.Cluster != k.Cluster || !p.At.Equal(at) || !p.Until.Equal(k.Until)) {
		err = backup.Corruptf("its content is not of its name")
	}
	return p, err
}

// PausedError is returned if the cluster is paused already.
type PausedError struct{ Pause }

func (e *PausedError) Error() string {
	return fmt.Sprintf("cluster %s is %s", e.Cluster, e.Pause.String())
}

// Is makes it match [fs.ErrExist].
func (e *PausedError) Is(target error) bool { return target == fs.ErrExist }

// Set makes a pause. Its format, its cluster and its begin, now, are filled in. It returns a
// [*PausedError] if the cluster is paused already. Where it is seen too late that another pause
// was made, or that the clocks of this host and of the store differ, the pause is taken back.
func Set(ctx context.Context, c *repository.Cluster, p Pause, now time.Time) (*Pause, error) {
	p.Format, p.Cluster = Format, c.Name()
	p.At, p.Until = now.UTC().Truncate(time.Second), p.Until.UTC().Truncate(time.Second)
	raw, err := p.Marshal()
	if err != nil {
		return nil, err
	}
	before, err := Read(ctx, c, now)
	if err != nil {
		return nil, err
	}
	if other := before.At(now); other != nil {
		return nil, &PausedError{*other}
	}
	s := c.Repository().Store()
	k := backup.Key{Cluster: p.Cluster, Kind: backup.KindPause, Data: backup.NewDataName(p.At), Until: p.Until}
	if err = storage.Keep(ctx, s, k.String(), raw); err == nil {
		err = confirm(ctx, c, k, p, now)
	}
	if err != nil {
		return nil, withdraw(ctx, s, k, fmt.Errorf("pause cluster %s: %w", p.Cluster, err))
	}
	for _, key := range before.old {
		_ = s.Delete(ctx, key) // who may not delete leaves it to others
	}
	return &p, nil
}

// confirm looks at a pause as every other process will. Two that are made at the same time
// are created before either is confirmed: at least one sees the other.
func confirm(ctx context.Context, c *repository.Cluster, own backup.Key, p Pause, now time.Time) error {
	after, err := Read(ctx, c, now)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(after.open, func(o catalog.Object) bool { return o.Name == own })
	if i < 0 {
		return errors.Join(fmt.Errorf("the store does not list %s, which was just stored", own), after.Ignored)
	}
	if stored := after.open[i].ModTime; !stored.IsZero() && now.Sub(stored).Abs() > backup.Skew {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"it is %s by the clock of this host, and %s by that of the store: nobody knows when the pause would end",
			now.UTC().Format(time.RFC3339), stored.UTC().Format(time.RFC3339))}, "set the clocks right")
	}
	others := slices.DeleteFunc(slices.Clone(after.Pauses), func(o Pause) bool { return o == p })
	switch {
	case len(after.Pauses) == 0:
		return errors.Join(errors.New("it counts for nothing"), after.Ignored)
	case len(after.Pauses) > 1:
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"another pause was made at the same time, and this one was taken back: %v", append(others, p)[0].String())},
			"the other one may have been taken back, too: pause again, which says whether the cluster is paused")
	}
	return nil
}

// withdrawTime bounds a withdrawal: the pause has failed already.
const withdrawTime = 10 * time.Second

// withdraw takes back a pause that nobody may believe in, also when ctx has ended, and returns
// why it failed. A store may have it although it answered with an error.
func withdraw(ctx context.Context, s storage.Store, k backup.Key, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
	defer cancel()
	err := storage.Remove(ctx, s, k.String())
	if _, gone := s.Stat(ctx, k.String()); err != nil && !errors.Is(gone, fs.ErrNotExist) {
		return backup.WithHint(errors.Join(why, fmt.Errorf("take it back: %w", err)),
			"the pause may be there all the same: 'backupd resume' takes it back")
	}
	return why
}

// End takes back all pauses of a cluster that have not ended, and the marks that are ignored.
// It returns what there was. The error is a [*repository.NotFoundError] if there was nothing.
func End(ctx context.Context, c *repository.Cluster, now time.Time) (State, error) {
	before, err := Read(ctx, c, now)
	switch {
	case err != nil:
		return before, err
	case len(before.open) == 0 && before.Ignored != nil:
		return before, before.Ignored
	case len(before.open) == 0:
		return before, &repository.NotFoundError{Reason: fmt.Sprintf("cluster %s is not paused", c.Name())}
	}
	for _, obj := range before.open {
		if err := storage.Remove(ctx, c.Repository().Store(), obj.Key); err != nil {
			return before, fmt.Errorf("resume cluster %s: delete %s: %w", c.Name(), obj.Key, err)
		}
	}
	return before, nil
}
