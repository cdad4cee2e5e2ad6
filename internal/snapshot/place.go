package snapshot

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// committed returns how far the cluster has come by the word of a quorum, and the
// survey with that. It asks before the stream begins, and the member that will be the
// source first: then the database holds all that was confirmed. The position is zero if
// no member could answer.
func committed(ctx context.Context, t *Taker, s *cluster.Survey) (backup.Position, *cluster.Survey) {
	at, err := t.Source.Committed(ctx, s)
	if err != nil {
		t.log().Warn("no quorum could say how far the cluster has come",
			"revision", int64(s.HighWater), "raft index", s.Index, "err", err)
		return backup.Position{}, s
	}
	now := *s
	now.HighWater, now.Index = max(s.HighWater, at.Revision), max(s.Index, at.Index)
	now.Term = max(s.Term, at.Term)
	return at, &now
}

// notCurrent returns why nobody knows whether the database holds all that was committed.
// What a member without a quorum says of itself, and others beside it say of it, proves
// nothing: they may all be cut off.
func notCurrent(c *backup.Capture) []string {
	who := "member " + c.Source.ID.String()
	if c.Source.ID == 0 {
		who = "the member that sent the database"
	}
	switch {
	case c.Current():
		return nil
	case c.CommittedIndex == 0:
		return []string{fmt.Sprintf("no quorum confirmed how far the cluster has come: %s may be cut off or behind", who)}
	}
	return []string{fmt.Sprintf("%s is behind: its database ends at revision %d, the cluster had come to %d",
		who, c.Revision, c.HighWaterRevision)}
}

// hashBefore returns the HashKV that the received database had at the furthest known
// snapshot, or nil where a compaction forbids to compute it. The error says that the
// database is damaged.
func hashBefore(ctx context.Context, got *received, known repository.Timelines) (*backup.HashKV, error) {
	if len(known) == 0 || known[0].Manifest == nil {
		return nil, nil
	}
	was, is := known[0].Manifest.HashKV, got.facts
	if was.CompactRevision != is.CompactRevision || was.Revision >= is.Revision {
		return nil, nil
	}
	h, err := etcddb.HashAt(ctx, got.path, was.Revision, was.CompactRevision)
	if errors.Is(err, backup.ErrCorrupt) {
		return nil, err
	}
	if err != nil {
		return nil, nil // the sketch must do
	}
	return &h, nil
}

// place decides which history the snapshot is of. If it continues none that is known,
// it begins a new one.
func place(
	ctx context.Context, to *repository.Cluster, m *backup.Manifest, known repository.Timelines, before *backup.HashKV,
) error {
	next := history.Of(&m.Capture)
	next.HashBefore = before
	var heads []history.Head
	for _, l := range known {
		if l.Manifest != nil {
			heads = append(heads, history.Head{Timeline: l.Name, Evidence: history.Of(&l.Manifest.Capture)})
		}
	}
	p := history.Place(heads, next)
	if p.Timeline == "" {
		// Another writer may have begun a timeline since the listing.
		now, err := repository.ReadTimelines(ctx, to)
		if err != nil {
			return err
		}
		for _, l := range now {
			if l.Manifest != nil && known.Find(l.Name) == nil {
				head := history.Head{Timeline: l.Name, Evidence: history.Of(&l.Manifest.Capture), Unordered: true}
				heads = append([]history.Head{head}, heads...)
			}
		}
		known, p = now, history.Place(heads, next)
	}
	if p.Timeline == "" && len(heads) > 0 && m.State() == backup.Suspect {
		// The content is in doubt: what it contradicts is no proof of another history.
		reason := p.Verdict.Reason
		next.HashKV, next.HashBefore, next.Sketch = backup.HashKV{}, nil, backup.Sketch{}
		if p = history.Place(heads, next); p.Timeline != "" {
			m.Suspect = append(m.Suspect, reason)
		}
	}
	settle(m, known, p)
	return nil
}

// placeLate is [place] for a snapshot that waited for its store: others may have been
// stored since. It must fit between those that are next to it in the raft log. Those that
// were complete before it was begun, by the clocks, came before it.
func placeLate(
	ctx context.Context, to *repository.Cluster, c *backup.Capture,
) (repository.Timelines, history.Placement, error) {
	known, err := repository.ReadTimelines(ctx, to)
	if err != nil {
		return nil, history.Placement{}, err
	}
	around, err := repository.Around(ctx, to, c.RaftIndex)
	if err != nil {
		return nil, history.Placement{}, fmt.Errorf("read the snapshots around a pending one: %w", err)
	}
	var heads []history.Head
	for _, l := range known {
		for _, m := range around[l.Name] {
			heads = append(heads, history.Head{
				Timeline: l.Name, Evidence: history.Of(&m.Capture), Unordered: !m.FinishedAt.Before(c.StartedAt),
			})
		}
	}
	return known, history.Place(heads, history.Of(c)), nil
}

// settle records the timeline.
func settle(m *backup.Manifest, known repository.Timelines, p history.Placement) {
	if p.Verdict.Relation == history.Unclear {
		m.Unconfirmed = append(m.Unconfirmed, p.Verdict.Reason)
	}
	if l := known.Find(p.Timeline); l != nil {
		m.Timeline = l.Name
		if l.Manifest != nil {
			m.Origin = l.Manifest.Origin
		}
		return
	}
	newest := 0
	if len(known) > 0 {
		newest = backup.TimelineNumber(known[0].Name)
		m.Origin = &backup.Origin{Timeline: known[0].Name, Snapshot: known[0].Head.ID, Reason: p.Verdict.Reason}
		if known[0].Manifest == nil {
			m.Origin.Reason = "No manifest of the history before it can be read."
		}
	}
	m.Timeline = backup.NewTimeline(newest)
}
