package acceptance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// BegunFor is how long a restore that was begun on one host is told to the others. A
// restore takes minutes on each; after a day it is another one.
const BegunFor = 24 * time.Hour

// Begin is [Expect] for a restore that goes on on other hosts: they find it by [Begun]. made
// is false if the new cluster was announced before.
func Begin(
	ctx context.Context, c *repository.Cluster, id backup.MemberID, of *backup.Manifest, begun lineage.Begun,
	reason, by string,
) (made bool, err error) {
	return announce(ctx, c, lineage.Acceptance{ClusterID: id, Reason: reason, By: by, Begun: &begun}, of)
}

// Begun returns the restores that were begun within [BegunFor] and still go on, as far as the
// repository knows: their clusters have no backup yet that a quorum has confirmed. The newest
// is the first. Hosts have clocks of their own: one that is ahead by less than BegunFor
// counts, too. If the histories cannot be read all are returned, with the error.
func Begun(ctx context.Context, c *repository.Cluster, now time.Time) ([]lineage.Acceptance, error) {
	all, err := Announced(ctx, c)
	out := slices.DeleteFunc(all, func(a lineage.Acceptance) bool { return now.Sub(a.At).Abs() >= BegunFor })
	if err != nil || len(out) == 0 {
		return out, err
	}
	done, err := confirmed(ctx, c)
	return slices.DeleteFunc(out, func(a lineage.Acceptance) bool { return slices.Contains(done, a.ClusterID) }), err
}

// confirmed returns the ids of the clusters that have a verified snapshot. A first member that
// runs alone is backed up, too, while the other members are still to be restored: unconfirmed.
func confirmed(ctx context.Context, c *repository.Cluster) (ids []backup.MemberID, err error) {
	items, err := repository.Names(ctx, c, "")
	if err != nil {
		return nil, err
	}
	timelines, err := repository.ReadTimelines(ctx, c)
	for _, t := range timelines {
		if t.Manifest != nil && slices.ContainsFunc(items, func(i repository.Item) bool {
			return i.Timeline == t.Name && i.Taken == backup.Verified
		}) {
			ids = append(ids, t.Manifest.ClusterID)
		}
	}
	return ids, err
}

// Announced returns all restores that were ever begun for several hosts and not taken back,
// the newest first.
func Announced(ctx context.Context, c *repository.Cluster) ([]lineage.Acceptance, error) {
	all, err := repository.ReadAcceptances(ctx, c)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(all, func(a lineage.Acceptance) bool { return a.Begun == nil })
	slices.SortFunc(out, func(a, b lineage.Acceptance) int { return b.At.Compare(a.At) })
	return out, nil
}

// withdrawTime bounds a withdrawal: the restore has failed already.
const withdrawTime = 10 * time.Second

// Withdraw takes back that a cluster with that id will be made, also when ctx has ended.
func Withdraw(ctx context.Context, c *repository.Cluster, id backup.MemberID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTime)
	defer cancel()
	a := lineage.Acceptance{ClusterID: id}
	if err := storage.Remove(ctx, c.Repository().Store(), a.ObjectKey(c.Name()).String()); err != nil {
		return fmt.Errorf("withdraw the announcement of the new cluster: %w", err)
	}
	return nil
}
