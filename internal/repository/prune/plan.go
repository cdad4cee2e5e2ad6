// Package prune decides which snapshots of a repository, and which remains of
// interrupted work, may go, and removes them. A [Plan] says what a [Run] will do.
package prune

import (
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Plan says what a prune will remove. It is made before anything is touched.
type Plan struct {
	Cluster string
	// Decisions about every snapshot, the newest first.
	Decisions []Decision
	// Litter is data that no manifest names, old enough to belong to no backup in
	// progress.
	Litter []storage.Object
	// Marks are the marks of snapshots that are gone.
	Marks []backup.Key
	// Orphans are pinned snapshots that have lost their manifest. Their data
	// stays.
	Orphans []backup.SnapshotID

	floor []backup.Key // the manifests that must be there when the first snapshot is removed
}

// Decision says whether one snapshot stays, with the reasons.
type Decision struct {
	retention.Decision
	Item repository.Item
}

// KeptBytes returns the size of the data that stays.
func (p *Plan) KeptBytes() int64 {
	n := int64(0)
	for _, d := range p.Decisions {
		if d.Keep {
			n += d.StoredBytes
		}
	}
	return n
}

// Removes reports whether the plan removes any snapshot.
func (p *Plan) Removes() bool {
	for _, d := range p.Decisions {
		if !d.Keep {
			return true
		}
	}
	return false
}

// NewPlan decides by the policy which snapshots to remove. It reads nothing and
// changes nothing. The overview must vouch for as many snapshots of a timeline as the
// policy always keeps: see [Vouch].
func NewPlan(o *repository.Overview, policy retention.Policy, now time.Time) (*Plan, error) {
	if err := policy.Check(); err != nil {
		return nil, fmt.Errorf("retention policy: %w", err)
	}
	if policy.HasRule() && o.Vouched() < Vouch(policy) {
		return nil, fmt.Errorf("plan a prune: the overview vouches for %d snapshots, the policy counts on %d",
			o.Vouched(), Vouch(policy))
	}
	plan := &Plan{Cluster: o.Cluster}
	for _, i := range o.Rest {
		switch {
		case len(i.Data) > 0 && i.Pinned():
			plan.Orphans = append(plan.Orphans, i.ID)
		case len(i.Data) > 0: // its marks go later, when the data is gone
			plan.Litter = append(plan.Litter, i.Litter(now)...)
		default:
			for _, kind := range i.Marks {
				plan.Marks = append(plan.Marks, repository.MarkKey(o.Cluster, i.ID, kind))
			}
		}
	}
	plan.decide(policy, o, now)
	return plan, nil
}

// Vouch returns how many snapshots an overview must vouch for before a prune by
// the policy can be planned.
func Vouch(policy retention.Policy) int { return max(policy.MinVerified, 1) }

func (p *Plan) decide(policy retention.Policy, o *repository.Overview, now time.Time) {
	var snapshots []retention.Snapshot
	byID := map[backup.SnapshotID][]repository.Item{} // several only if somebody copied manifests
	for _, i := range o.Items {
		s := retention.Snapshot{
			ID: i.ID, Timeline: i.Timeline, Index: i.Index, State: i.State(), StoredBytes: i.StoredBytes(),
		}
		if pin := o.Mark(i.ID, backup.MarkPin); pin != nil {
			s.Pinned = pin.Reason
		} else if i.Pinned() {
			s.Pinned = "just now" // it was pinned after the marks were read
		}
		snapshots = append(snapshots, s)
		byID[i.ID] = append(byID[i.ID], i)
	}
	for _, d := range policy.Apply(snapshots, o.Timelines.Open(), now) {
		i := byID[d.ID][0]
		byID[d.ID] = byID[d.ID][1:]
		// Removing one of them would take the data from the other.
		if i.Clash() && !d.Keep {
			d.Keep, d.Reasons = true, []string{"another manifest names the same data"}
		}
		if d.Floor {
			p.floor = append(p.floor, i.Key())
		}
		p.Decisions = append(p.Decisions, Decision{d, i})
	}
}

// Row is the row of the snapshot with the decision, in a listing for machines.
func (d *Decision) Row(now time.Time) backup.PruneRow {
	row := backup.PruneRow{Row: d.Item.Row(now), Keep: d.Keep, Reasons: append([]string{}, d.Reasons...)}
	row.PinReason = d.Pinned
	return row
}
