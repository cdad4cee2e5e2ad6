package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Pruner removes the snapshots of one cluster that a policy does not keep, and
// what interrupted work left of others. Objects that are not ours by their
// exact names it never touches.
type Pruner struct {
	Store   storage.Store
	Cluster string
	Policy  retention.Policy
	// Spool is a folder to remove the local copies from that processes left which
	// died; empty means that none are looked for.
	Spool string
	// Now tells the time; nil means time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// PrunePlan is what a prune does, decided before anything is touched.
type PrunePlan struct {
	Cluster string
	// Decisions about every snapshot, the newest first.
	Decisions []PruneDecision
	// Litter is data that no manifest names, old enough to belong to no backup in
	// progress.
	Litter []storage.Object
	// Pins are those of snapshots that are gone.
	Pins []backup.SnapshotID
}

// PruneDecision is what becomes of one snapshot, with the reasons.
type PruneDecision struct {
	retention.Decision
	Entry Entry
	// Doubt is why a snapshot does not count that is verified by its name.
	Doubt error

	data []storage.Object
}

// KeptBytes returns the size of the data of what is kept.
func (p *PrunePlan) KeptBytes() int64 {
	n := int64(0)
	for _, d := range p.Decisions {
		if d.Keep {
			n += d.StoredBytes
		}
	}
	return n
}

func (p *Pruner) setDefaults() {
	if p.Now == nil {
		p.Now = time.Now
	}
	if p.Log == nil {
		p.Log = slog.New(slog.DiscardHandler)
	}
}

// Plan decides. It changes nothing.
func (p *Pruner) Plan(ctx context.Context) (*PrunePlan, error) {
	p.setDefaults()
	if err := backup.CheckClusterName(p.Cluster); err != nil {
		return nil, err
	}
	if err := p.Policy.Check(); err != nil {
		return nil, fmt.Errorf("retention policy: %w", err)
	}
	pins, err := Pins(ctx, p.Store, p.Cluster)
	if err != nil {
		return nil, err
	}
	now := p.Now()
	plan := &PrunePlan{Cluster: p.Cluster}
	var snapshots []*judged
	for item, err := range Catalog(ctx, p.Store, p.Cluster) {
		switch {
		case err != nil:
			return nil, err
		case item.Manifest:
			snapshots = append(snapshots, newJudged(item, pins))
		case item.Pinned && len(item.Data) == 0:
			plan.Pins = append(plan.Pins, item.ID)
		case item.Pinned:
			p.Log.Warn("a pinned snapshot has lost its manifest, its data is kept", "cluster", p.Cluster, "snapshot", item.ID)
		default:
			plan.Litter = append(plan.Litter, litterOf(item, now)...)
		}
	}
	if snapshots, err = p.vouch(ctx, snapshots, now); err != nil {
		return nil, err
	}
	plan.decide(p.Policy, snapshots, now)
	return plan, nil
}

// judged is a snapshot with what retention is told of it.
type judged struct {
	Item
	snapshot retention.Snapshot
	doubt    error
}

func newJudged(item Item, pins map[backup.SnapshotID]PinRecord) *judged {
	s := &judged{Item: item, snapshot: retention.Snapshot{ID: item.ID, Suspect: item.Suspect, StoredBytes: item.StoredBytes()}}
	switch {
	case item.Clash:
		s.distrust(&DefectError{ManifestDamaged, item.Key(), backup.Corruptf("another manifest names the same data")})
	case item.DataMissing():
		s.distrust(&DefectError{DataMissing, item.Key(), backup.Corruptf("the manifest's data object is not there")})
	}
	if pin, ok := pins[item.ID]; ok {
		s.snapshot.Pinned = pin.Reason
	} else if item.Pinned {
		s.snapshot.Pinned = "just now" // after the pins were read
	}
	return s
}

// distrust takes a snapshot for suspect that cannot be restored as it is.
func (s *judged) distrust(doubt error) { s.snapshot.Suspect, s.doubt = true, doubt }

// litterOf returns the data of an item that belongs to no backup in progress: it
// was begun long ago, and nothing of it was stored lately.
func litterOf(item Item, now time.Time) []storage.Object {
	for _, o := range item.Data {
		if (Orphan{o.Key, orphanAge(item, o, now)}).Fresh() {
			return nil
		}
	}
	return item.Data
}

// vouch reads the manifests of as many of the newest verified snapshots as must
// always stay, until that many are good: retention must not count on one whose
// manifest is damaged or whose data is cut. Of older ones names have to do.
func (p *Pruner) vouch(ctx context.Context, all []*judged, now time.Time) ([]*judged, error) {
	good, gone := 0, map[*judged]bool{}
	var doubts []error
	for _, s := range slices.Backward(all) { // the newest first
		if good == max(p.Policy.MinVerified, 1) || !p.Policy.HasRule() {
			break
		}
		if s.snapshot.Suspect || s.ID.Time().After(now) {
			continue
		}
		m, err := readManifest(ctx, p.Store, s.Entry)
		if err == nil {
			err = s.check(m)
		}
		var unknown *backup.UnknownFormatError
		switch {
		case err == nil:
			good++
		case errors.Is(err, fs.ErrNotExist):
			gone[s] = true
		case errors.Is(err, backup.ErrCorrupt), errors.As(err, &unknown):
			s.distrust(err)
			doubts = append(doubts, err)
		default:
			return nil, err
		}
	}
	if len(doubts) > 0 { // one line, were it thousands
		p.Log.Warn("snapshots do not count as verified", "cluster", p.Cluster, "count", len(doubts), "newest", doubts[0])
	}
	return slices.DeleteFunc(all, func(s *judged) bool { return gone[s] }), nil
}

// check compares what the listing tells of the data with the manifest.
func (s *judged) check(m *backup.Manifest) error {
	i := slices.IndexFunc(s.Data, func(o storage.Object) bool { return o.Key == m.DataKey() })
	if i < 0 {
		return &DefectError{DataMissing, m.DataKey(), backup.Corruptf("the manifest's data object is not there")}
	}
	got := backup.Blob{Bytes: s.Data[i].Size, SHA256: m.Stored.SHA256}
	if err := codec.Compare("stored object", got, m.Stored); err != nil {
		return &DefectError{Truncated, m.DataKey(), err}
	}
	return nil
}

func (p *PrunePlan) decide(policy retention.Policy, all []*judged, now time.Time) {
	var snapshots []retention.Snapshot
	byID := map[backup.SnapshotID][]*judged{} // several only where somebody copied manifests
	for _, s := range all {
		snapshots = append(snapshots, s.snapshot)
		byID[s.ID] = append(byID[s.ID], s)
	}
	for _, d := range policy.Apply(snapshots, now) {
		s := byID[d.ID][0]
		byID[d.ID] = byID[d.ID][1:]
		// Removing one of them would take the data from the other.
		if s.Clash && !d.Keep {
			d.Keep, d.Reasons = true, []string{"another manifest names the same data"}
		}
		p.Decisions = append(p.Decisions, PruneDecision{d, s.Entry, s.doubt, s.Data})
	}
}
