// Package acceptance states which of several histories of a cluster is the present one, or
// will be.
package acceptance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Accept states that a timeline is the present history of the cluster. All others
// end with their furthest snapshots of now: those stay, and what comes later is a
// fault again. It returns the names of the ended ones, and a [*repository.NotFoundError] if there
// is no such timeline.
func Accept(ctx context.Context, c *repository.Cluster, timeline, reason, by string) (ended []string, err error) {
	all, err := repository.ReadTimelines(ctx, c)
	if err != nil {
		return nil, err
	}
	if all.Find(timeline) == nil {
		return nil, &repository.NotFoundError{Reason: fmt.Sprintf("cluster %s has no timeline %s", c.Name(), timeline)}
	}
	a := lineage.Acceptance{Timeline: timeline, Reason: reason, By: by, Ended: map[string]lineage.Place{}}
	for _, t := range all {
		if t.Name != timeline {
			a.Ended[t.Name] = lineage.Place{Snapshot: t.Head.ID, Index: t.Head.Index}
			ended = append(ended, t.Name)
		}
	}
	accepted, err := repository.ReadAcceptances(ctx, c)
	if err != nil {
		return nil, err
	}
	// What contradicts the new statement goes first. If this is interrupted, nothing
	// is accepted.
	for _, old := range accepted {
		if contradicts(old, timeline, all) {
			if err := c.Repository().Store().Delete(ctx, old.ObjectKey(c.Name()).String()); err != nil {
				return nil, fmt.Errorf("delete acceptance of %s: %w", old.Timeline, err)
			}
		}
	}
	if err := c.Repository().Store().Delete(ctx, a.ObjectKey(c.Name()).String()); err != nil {
		return nil, fmt.Errorf("delete the former acceptance: %w", err)
	}
	return ended, create(ctx, c, a)
}

// contradicts reports whether an acceptance cannot hold where the timeline is the present
// one: it has ended the timeline, or a restore has announced the cluster of another.
func contradicts(a lineage.Acceptance, timeline string, all repository.Timelines) bool {
	_, ended := a.Ended[timeline]
	return ended || slices.ContainsFunc(all, func(t repository.Timeline) bool {
		return a.ClusterID != 0 && t.Name != timeline && t.Manifest != nil && t.Manifest.ClusterID == a.ClusterID
	})
}

// Expect states before the first snapshot of a cluster with that id exists that its
// history follows the present one: a restore of that snapshot has made the cluster, or
// an operator knows it. It is no error if that is stated already.
func Expect(
	ctx context.Context, c *repository.Cluster, id backup.MemberID, of *backup.Manifest, reason, by string,
) error {
	_, err := announce(ctx, c, lineage.Acceptance{ClusterID: id, Reason: reason, By: by}, of)
	return err
}

// announce reports whether the acceptance was made, and not there already.
func announce(ctx context.Context, c *repository.Cluster, a lineage.Acceptance, of *backup.Manifest) (bool, error) {
	if of != nil {
		a.Restored = &lineage.Restored{Snapshot: of.ID, Revision: of.Revision, Sketch: of.Sketch}
	}
	err := create(ctx, c, a)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

func create(ctx context.Context, c *repository.Cluster, a lineage.Acceptance) error {
	if err := backup.CheckClusterName(c.Name()); err != nil {
		return err
	}
	a.Format, a.At = lineage.Format, time.Now().UTC().Truncate(time.Second)
	raw, err := a.Marshal()
	if err != nil {
		return err
	}
	s, key := c.Repository().Store(), a.ObjectKey(c.Name()).String()
	err = storage.Keep(ctx, s, key, raw)
	if errors.As(err, new(*storage.NotKeptError)) {
		err = errors.Join(err, s.Delete(ctx, key)) // a part would be in the way of the next
	}
	if err != nil {
		return fmt.Errorf("create acceptance: %w", err)
	}
	return nil
}
