// Package prune decides which snapshots of a repository, and which remains of
// interrupted work, may go, and removes them. A [Plan] says what a [Run] will do.
package prune

import (
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
)

// Plan says what a prune will remove. It is made before anything is touched.
type Plan struct {
	Cluster string
	// Decisions about every snapshot, the newest first.
	Decisions []Decision
	// Litter is data that no manifest names, old enough to belong to no backup in
	// progress. It goes: an earlier prune saw the same, or removed the manifest.
	Litter []repository.Item
	// Found is such data that is marked as litter by this prune, and Waiting such data
	// that was marked less than [repository.LitterAge] ago. Both stay: one listing is no
	// proof that there is no manifest.
	Found, Waiting []repository.Item
	// Marks are marks without a purpose: of snapshots that are gone, of data that is no
	// litter, of removals that are long ago or did not happen.
	Marks []backup.Key
	// Orphans are pinned snapshots that have lost their manifest. Their data
	// stays.
	Orphans []backup.SnapshotID
	// Allowed is asked before each snapshot is removed; an error ends the prune. It may be
	// nil.
	Allowed func() error

	removed map[backup.DataName]string // the manifests that backupd removed, of litter
	floor   []backup.Key               // the manifests that must be there when the first snapshot is removed
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

// Beyond returns the snapshots that the plan removes and another one, of the same
// snapshots, does not. Without another one it returns all that the plan removes.
func (p *Plan) Beyond(other *Plan) []backup.SnapshotID {
	gone := map[backup.SnapshotID]bool{}
	if other != nil {
		for _, d := range other.Decisions {
			gone[d.ID] = !d.Keep
		}
	}
	var out []backup.SnapshotID
	for _, d := range p.Decisions {
		if !d.Keep && !gone[d.ID] {
			out = append(out, d.ID)
		}
	}
	return out
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
	plan := &Plan{Cluster: o.Cluster, removed: map[backup.DataName]string{}}
	for _, i := range o.Rest {
		if len(i.Data) > 0 {
			plan.addLitter(o, i, now)
		} else {
			plan.addMarks(i, now)
		}
	}
	plan.decide(policy, o, now)
	return plan, nil
}

// addLitter decides about data without a manifest. Its marks go later, when the data
// is gone.
func (p *Plan) addLitter(o *repository.Overview, i repository.Item, now time.Time) {
	at := i.MarkedAt(backup.MarkLitter)
	unfit := at.IsZero() || at.After(now.Add(backup.Skew)) // damaged, or made under a wrong clock
	if removal := o.Mark(i.ID, backup.MarkRemoved); removal != nil {
		p.removed[i.Name] = removal.Manifest
	}
	switch {
	case i.Pinned() || i.Claimed:
		if i.Pinned() {
			p.Orphans = append(p.Orphans, i.ID)
		}
		if i.Marked(backup.MarkLitter) {
			p.Marks = append(p.Marks, repository.MarkKey(&i, backup.MarkLitter))
		}
	case len(i.Litter(now)) == 0: // it is young
	case p.removed[i.Name] != "":
		p.Litter = append(p.Litter, i)
	case unfit:
		if i.Marked(backup.MarkLitter) {
			p.Marks = append(p.Marks, repository.MarkKey(&i, backup.MarkLitter))
		}
		p.Found = append(p.Found, i)
	case now.Sub(at) < repository.LitterAge:
		p.Waiting = append(p.Waiting, i)
	default:
		p.Litter = append(p.Litter, i)
	}
}

// addMarks decides about the marks of something that is gone.
func (p *Plan) addMarks(i repository.Item, now time.Time) {
	for _, k := range repository.MarkKeys(&i) {
		keep := i.Claimed
		switch k.Mark {
		case backup.MarkLitter:
			keep = false
		case backup.MarkRemoved:
			keep = now.Sub(i.MarkedAt(k.Mark)) < RemovalAge
		}
		if !keep {
			p.Marks = append(p.Marks, k)
		}
	}
}

// addStale decides about the marks of a snapshot that stays: it is no litter, and was
// not removed. A mark of a removal that is young may be of one that goes on.
func (p *Plan) addStale(i repository.Item, now time.Time) {
	for _, kind := range i.Marks {
		if kind == backup.MarkLitter ||
			kind == backup.MarkRemoved && now.Sub(i.MarkedAt(kind)) >= repository.LitterAge {
			p.Marks = append(p.Marks, repository.MarkKey(&i, kind))
		}
	}
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
			Doubtful: i.Doubtful, Source: i.Source, Content: i.Content,
		}
		if pin := o.Mark(i.ID, backup.MarkPin); pin != nil {
			s.Pinned = pin.Reason
		} else if i.Pinned() {
			s.Pinned = "just now" // it was pinned after the marks were read
		}
		if i.Denied != nil { // nothing may count on it
			s.State, s.Doubtful = backup.Unconfirmed, true
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
		if i.Denied != nil && !d.Keep { // nor is it known what would be lost with it
			d.Keep, d.Reasons = true, []string{"its manifest cannot be read here"}
		}
		if d.Floor {
			p.floor = append(p.floor, i.Key())
		}
		if d.Keep {
			p.addStale(i, now)
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
