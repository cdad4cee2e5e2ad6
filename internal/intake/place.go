package intake

import (
	"context"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
)

// StrangerError says that nothing shows a file to be of the history of the cluster, or
// that something speaks against it.
type StrangerError struct {
	Cluster string
	Reason  string
	// ClusterID is the id that follows from the members in the file, if they are those that the
	// cluster began with. By it the file can be accepted as the present history. It is 0 where
	// that would not help: a timeline has the id already.
	ClusterID backup.MemberID
}

func (e *StrangerError) Error() string {
	return fmt.Sprintf("refused: it is not of the history of cluster %s: %s", e.Cluster, e.Reason)
}

// Unwrap makes it a refusal.
func (e *StrangerError) Unwrap() error { return &backup.RefusedError{Reason: e.Reason} }

// place is where in the histories a snapshot belongs.
type place struct {
	known repository.Timelines
	history.Placement
}

// neighbours are the snapshots next to a new one in the raft log of each timeline, by its name.
type neighbours map[string][]*backup.Manifest

// place finds the timeline that a file is of, and completes what the file does not tell: the id of
// the cluster, and which histories there were. It refuses what cannot be shown to belong there: a
// backup that comes after it must not look like another history because of it.
func (i *Importer) place(ctx context.Context, c *backup.Capture) (place, error) {
	known, err := repository.ReadTimelines(ctx, i.To)
	if err != nil {
		return place{}, &StoreError{err}
	}
	if len(known) == 0 {
		return place{nil, history.Place(nil, history.Of(c))}, nil
	}
	around, err := repository.Around(ctx, i.To, c.RaftIndex)
	if err != nil {
		return place{}, &StoreError{err}
	}
	p := choose(known, around, c)
	if p.Timeline == "" {
		accepted, err := i.accepted(ctx, known, c)
		if err != nil {
			return place{}, &StoreError{err}
		}
		if !accepted {
			return place{}, stranger(known, c, p.Verdict.Reason)
		}
		c.ClusterID = initialID(c.Members)
		p.Verdict.Reason = "It was imported, and its cluster was accepted. " + p.Verdict.Reason
		return place{known, p}, nil
	}
	c.ClusterID, c.NewestTimeline = inherit(around[p.Timeline], c)
	return place{known, p}, fits(around[p.Timeline], c)
}

// choose decides which timeline a file is of. Without one the reason says why not.
func choose(known repository.Timelines, around neighbours, c *backup.Capture) history.Placement {
	named := map[string]bool{} // the timelines of the cluster that the members in the file are of
	for name, all := range around {
		named[name] = slices.ContainsFunc(all, func(m *backup.Manifest) bool { return sameCluster(c, m) })
	}
	ours := slices.Contains(slices.Collect(maps.Values(named)), true)
	var heads []history.Head
	for _, l := range known {
		for _, m := range around[l.Name] {
			if !ours || named[l.Name] {
				heads = append(heads, history.Head{Timeline: l.Name, Evidence: history.Of(&m.Capture), Unordered: true})
			}
		}
	}
	if len(heads) == 0 {
		return history.Placement{Verdict: history.Verdict{
			Reason: "no manifest of the cluster can be read here, so nothing can be compared."}}
	}
	// What was taken before a history forked fits to both sides, and is of the older one: beside the
	// first snapshots of the newer one it would contradict them.
	oldest := slices.Clone(heads)
	slices.Reverse(oldest)
	p := history.Place(oldest, history.Of(c))
	if p.Timeline == "" {
		p = history.Place(heads, history.Of(c)) // why it does not continue the newest says most
	}
	l := known.Find(p.Timeline)
	switch {
	case l == nil || p.Verdict.Shared > 0:
	case !ours:
		p = history.Placement{Verdict: history.Verdict{Reason: "It has no member in common with what is stored, and no " +
			"key that both know is unchanged: nothing shows that it is of this cluster."}}
	case furthest(l, c):
		// It would be the latest: a cluster that was made again under the same addresses has
		// the same member ids.
		p = history.Placement{Verdict: history.Verdict{Reason: fmt.Sprintf("It goes further than snapshot %s, and no key "+
			"that both know is unchanged: nothing shows that it continues that one.", l.Head.ID)}}
	}
	return p
}

// furthest reports whether a snapshot would be the furthest of a timeline.
func furthest(l *repository.Timeline, c *backup.Capture) bool {
	if c.RaftIndex != l.Head.Index {
		return c.RaftIndex > l.Head.Index
	}
	return c.Revision > l.Head.ID.Revision()
}

// sameCluster reports whether a file and a stored snapshot have a member in common, or the file
// has the members that the cluster of the snapshot began with. A member id is a hash of its peer
// URLs and the token of its cluster.
func sameCluster(c *backup.Capture, m *backup.Manifest) bool {
	return m.ClusterID != 0 && initialID(c.Members) == m.ClusterID ||
		slices.ContainsFunc(c.Members, func(ours backup.Member) bool {
			return slices.ContainsFunc(m.Members, func(its backup.Member) bool { return its.ID == ours.ID })
		})
}

// initialID computes the id that etcd gives a cluster that begins with these members. No database
// holds the id.
func initialID(members []backup.Member) backup.MemberID {
	var ids []uint64
	for _, m := range members {
		ids = append(ids, uint64(m.ID))
	}
	slices.Sort(ids)
	raw := make([]byte, 0, 8*len(ids))
	for _, id := range ids {
		raw = binary.BigEndian.AppendUint64(raw, id)
	}
	sum := sha1.Sum(raw)
	return backup.MemberID(binary.BigEndian.Uint64(sum[:8]))
}

// inherit returns what the neighbours in one history tell: the id of their cluster, and the newest
// timeline that the repository held when the one before was taken.
func inherit(around []*backup.Manifest, c *backup.Capture) (id backup.MemberID, newest string) {
	for _, m := range around {
		if id == 0 {
			id = m.ClusterID
		}
		if m.RaftIndex <= c.RaftIndex {
			newest = m.NewestTimeline
		}
	}
	return id, newest
}

// patience is how long a snapshot may take to be saved, and how far clocks may differ, before its
// time contradicts that of another.
const patience = time.Hour

// fits refuses a time at which the snapshot cannot have been taken, because its place in the raft
// log is before or after that of another. A time that a person says is not believed either: it may be the
// right one, and the file of a cluster that was restored from a snapshot of this one. The raft log of
// that begins anew, and its keys are the same.
func fits(around []*backup.Manifest, c *backup.Capture) error {
	for _, m := range around {
		order := ""
		switch {
		case m.RaftIndex < c.RaftIndex && c.StartedAt.Before(m.StartedAt.Add(-patience)):
			order = "after"
		case m.RaftIndex > c.RaftIndex && c.StartedAt.After(m.StartedAt.Add(patience)):
			order = "before"
		default:
			continue
		}
		return &TimeError{Cluster: c.Cluster, Reason: fmt.Sprintf("it was taken at %s, by %s, and by the raft log %s "+
			"snapshot %s of %s: the time is wrong, or it is of a cluster that was restored from a snapshot of this one",
			spell(c.StartedAt), c.Imported.TimeFrom, order, m.ID, spell(m.StartedAt))}
	}
	return nil
}

// accepted reports whether somebody has accepted the cluster that the members in the file began, so
// that the file begins the present history.
func (i *Importer) accepted(ctx context.Context, known repository.Timelines, c *backup.Capture) (bool, error) {
	id := initialID(c.Members)
	if taken(known, id) {
		return false, nil
	}
	all, err := repository.ReadAcceptances(ctx, i.To)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(a lineage.Acceptance) bool {
		if a.Timeline != "" || a.ClusterID != id {
			return false
		}
		return a.Restored == nil || history.Descends(
			history.Evidence{Revision: a.Restored.Revision, Sketch: a.Restored.Sketch}, history.Of(c))
	}), nil
}

// taken reports whether a timeline is of the cluster with that id, or may be.
func taken(known repository.Timelines, id backup.MemberID) bool {
	return slices.ContainsFunc(known, func(l repository.Timeline) bool {
		return l.Manifest == nil || l.Manifest.ClusterID == id
	})
}

func stranger(known repository.Timelines, c *backup.Capture, reason string) error {
	e := &StrangerError{Cluster: c.Cluster, Reason: reason}
	if id := initialID(c.Members); !taken(known, id) {
		e.ClusterID = id
	}
	return e
}
