package identity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// UnmarkedError is returned if snapshots are at an address, and the marker of their
// repository is gone. A rule that removes the oldest objects removes the marker first.
type UnmarkedError struct {
	Known string   // the id that was asked for; empty: any
	IDs   []string // that whole manifests name, sorted; none: no manifest is whole
	// Since is when the first snapshot of those that were read was begun.
	Since time.Time
	// Withheld are the manifests that the store did not give, and Why is one reason. What they
	// say is not known.
	Withheld int
	Why      error
	Err      error // why there is no marker
}

func (e *UnmarkedError) Error() string {
	what := "the marker of the repository is gone, and its snapshots are there"
	switch len(e.IDs) {
	case 0:
		what += ": none of the manifests that were read is whole"
	case 1:
		what += fmt.Sprintf(": they are of repository %s", e.IDs[0])
	default:
		what += fmt.Sprintf(": they are of %d repositories (%s)", len(e.IDs), strings.Join(e.IDs, ", "))
	}
	if e.Withheld > 0 {
		what += fmt.Sprintf("; %d manifests cannot be read here (%v)", e.Withheld, e.Why)
	}
	return fmt.Sprintf("%s: %v", what, e.Err)
}

func (e *UnmarkedError) hint(flags string) string {
	cause := "find out what has removed it: a life-cycle rule of the bucket, or a job that cleans folders, " +
		"removes the snapshots next; "
	switch len(e.IDs) {
	case 0:
		return cause + fmt.Sprintf("put back %s from a copy of the repository; if there is none, 'backupd init %s' makes "+
			"another, with a new id", backup.MarkerKey, flags)
	case 1:
		return cause + fmt.Sprintf("'backupd init %s --repo-id %s' puts it back", flags, e.IDs[0])
	}
	lines := []string{cause + "then say which repository it is:"}
	for _, id := range e.IDs {
		lines = append(lines, fmt.Sprintf("backupd init %s --repo-id %s", flags, id))
	}
	return strings.Join(append(lines, "a command that only reads takes --repo-id, too"), "\n")
}

// Certain returns the id of the repository if the snapshots leave no doubt: all of them
// name the one that is known or, if none is, the same one.
func (e *UnmarkedError) Certain() (id string, ok bool) {
	if len(e.IDs) != 1 || e.Known != "" && e.Known != e.IDs[0] {
		return "", false
	}
	return e.IDs[0], true
}

// Chosen is [UnmarkedError.Certain] for a person, whose word decides among several.
func (e *UnmarkedError) Chosen() (id string, ok bool) {
	if e.Known != "" {
		return e.Known, slices.Contains(e.IDs, e.Known)
	}
	return e.Certain()
}

// missing returns the error for a root without a marker, by the snapshots that are there.
func missing(ctx context.Context, s Store, known string, why error) error {
	e, err := evidence(ctx, s)
	switch {
	case errors.Is(err, fs.ErrNotExist): // nor is the folder or the bucket
		return &AbsentError{Known: known, Err: why}
	case err != nil:
		return fmt.Errorf("open repository: it has no marker: look for its snapshots: %w", err)
	case e == nil:
		return &AbsentError{Known: known, Err: why}
	}
	e.Known, e.Err = known, why
	if known != "" && len(e.IDs) == 1 && e.IDs[0] != known {
		return &AbsentError{Known: known, Found: e.IDs[0]}
	}
	return e
}

// evidenceOf is how many of the oldest and of the newest manifests of a cluster are read.
const evidenceOf = 100

// evidence finds out by the manifests which repository is at the root of s, as if there
// were no marker. It returns nil if there are no manifests.
func evidence(ctx context.Context, s Store) (*UnmarkedError, error) {
	var found []string
	for cluster, err := range s.Clusters(ctx) {
		if err != nil {
			return nil, err
		}
		all, err := manifests(ctx, s, cluster)
		if err != nil {
			return nil, err
		}
		found = append(found, ends(all, evidenceOf)...)
	}
	if len(found) == 0 {
		return nil, nil
	}
	e := &UnmarkedError{}
	ids := map[string]bool{}
	var mu sync.Mutex // guards e and ids
	var g errgroup.Group
	g.SetLimit(16)
	for _, key := range found {
		g.Go(func() error {
			m, err := read(ctx, s, key)
			mu.Lock()
			defer mu.Unlock()
			if backup.Withheld(err) { // the others decide
				e.Withheld, e.Why = e.Withheld+1, fmt.Errorf("read manifest %s: %w", key, err)
				return nil
			}
			if err != nil || m == nil {
				return err
			}
			ids[m.Repository] = true
			if e.Since.IsZero() || m.StartedAt.Before(e.Since) {
				e.Since = m.StartedAt
			}
			return nil
		})
	}
	err := g.Wait()
	if err == nil && len(ids) == 0 {
		err = e.Why // those that are withheld may be whole
	}
	e.IDs = slices.Sorted(maps.Keys(ids))
	return e, err
}

// manifests lists the manifests of a cluster.
func manifests(ctx context.Context, s Store, cluster string) ([]string, error) {
	var out []string
	for o, err := range s.List(ctx, backup.ManifestPrefix(cluster), "") {
		if err != nil {
			return nil, err
		}
		if k, err := backup.ParseKey(o.Key); err == nil && k.Kind == backup.KindManifest {
			out = append(out, o.Key)
		}
	}
	return out, nil
}

// ends returns the n first and the n last of all.
func ends(all []string, n int) []string {
	if len(all) <= 2*n {
		return all
	}
	return slices.Concat(all[:n], all[len(all)-n:])
}

// read returns a manifest, or nil if it is not whole. What it says of itself must be true
// of its name, too.
func read(ctx context.Context, s Store, key string) (*backup.Manifest, error) {
	r, err := s.Open(ctx, key, 0, backup.MaxManifestBytes+1)
	var raw []byte
	if err == nil {
		raw, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it was removed since
	}
	if err != nil {
		return nil, err
	}
	m, err := backup.ParseManifest(raw)
	if err != nil || m.Key() != key {
		return nil, nil
	}
	return m, nil
}

// Infer reads the marker, or tells by the snapshots which repository it is if the marker is
// gone, damaged or denied. Then doubt is the reason.
func Infer(ctx context.Context, s Store, known string) (m backup.Marker, doubt, err error) {
	m, err = Read(ctx, s, known)
	var e *UnmarkedError
	if errors.Is(err, backup.ErrCorrupt) || backup.Withheld(err) {
		if found, ferr := evidence(ctx, s); ferr == nil && found != nil {
			e, found.Known = found, known
			if e.Withheld > 0 {
				err = fmt.Errorf("%w; nor can %d manifests be read here (%w)", err, e.Withheld, e.Why)
			}
		}
	} else {
		errors.As(err, &e)
	}
	if e == nil {
		return m, nil, err
	}
	id, ok := e.Chosen()
	if !ok {
		return m, nil, err
	}
	return backup.Marker{ID: id, CreatedAt: e.Since}, err, nil
}

// Mend reads the marker of the repository that is known. If the marker is gone and the
// snapshots leave no doubt, it puts the same one back, and reports that.
func Mend(ctx context.Context, s Store, known string) (m backup.Marker, made bool, err error) {
	m, err = Read(ctx, s, known)
	var e *UnmarkedError
	if known == "" || !errors.As(err, &e) {
		return m, false, err
	}
	id, ok := e.Certain()
	if !ok {
		return m, false, err
	}
	return PutBack(ctx, s, e, id)
}

// PutBack makes the marker of the repository id again, where e was found. It was made when
// its first snapshot was begun, at the latest. An empty id makes a new repository.
func PutBack(ctx context.Context, s Store, e *UnmarkedError, id string) (backup.Marker, bool, error) {
	m := backup.NewMarker(time.Now())
	if id != "" {
		m.ID, m.CreatedAt = id, e.Since.UTC().Truncate(time.Second)
	}
	return mark(ctx, s, m, id)
}
