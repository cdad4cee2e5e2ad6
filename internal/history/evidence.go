package history

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Evidence is what one snapshot tells of its history.
type Evidence struct {
	// ClusterID is 0 if it is not known: no file tells it.
	ClusterID backup.MemberID
	// Revision is the exact revision of the database.
	Revision backup.Revision
	// Index and Term are of the last raft entry that was applied to the database.
	// 0 is unknown.
	Index, Term uint64
	// HighWater is not less than Revision, Index and Term.
	HighWater Mark
	// Committed is the commit index that a quorum confirmed when the snapshot was
	// taken, by a linearizable read whose answer is part of HighWater. 0: nobody
	// confirmed anything.
	Committed uint64
	// HashKV is of the database, at its revision.
	HashKV backup.HashKV
	// HashBefore is of the same database, at the revision and the compact revision
	// of the previous snapshot; nil if it cannot be computed.
	HashBefore *backup.HashKV
	Sketch     backup.Sketch
}

// Mark is how far the members of a cluster had come when a snapshot was taken: the
// largest that any of them reported, each for itself.
type Mark struct {
	Revision    backup.Revision
	Index, Term uint64 // of the last raft entry that was applied
}

// Of returns the evidence that was captured with a snapshot.
func Of(c *backup.Capture) Evidence {
	return Evidence{
		ClusterID: c.ClusterID, Revision: c.Revision, Index: c.RaftIndex, Term: c.RaftTerm,
		HighWater: Mark{
			Revision: max(c.HighWaterRevision, c.Revision), Index: max(c.HighWaterIndex, c.RaftIndex),
			Term: max(c.HighWaterTerm, c.RaftTerm),
		},
		Committed: c.CommittedIndex, HashKV: c.HashKV, Sketch: c.Sketch,
	}
}

// Relation is what two snapshots are to each other.
type Relation int

const (
	// Continues: nothing speaks against one history.
	Continues Relation = iota + 1
	// Unclear: the cluster was behind, and no quorum said how far it had come.
	Unclear
	// Contradicts: they cannot be of one history.
	Contradicts
)

// String returns the name of the relation.
func (r Relation) String() string {
	switch r {
	case Continues:
		return "continues"
	case Unclear:
		return "unclear"
	case Contradicts:
		return "contradicts"
	}
	return fmt.Sprintf("relation %d", int(r))
}

// Verdict is a relation with its reason.
type Verdict struct {
	Relation Relation
	// Shared is how many keys were compared and are the same in both sketches. An
	// equal HashKV of at least one key counts as one.
	Shared int
	// Reason is one sentence for people.
	Reason string
}

// Judge compares a snapshot with one that was taken before it. Clocks do not tell
// which one was taken before: the caller must know. For a snapshot that is stored
// late, see [Fits].
func Judge(previous, next Evidence) Verdict {
	v := Fits(previous, next)
	if v.Relation == Contradicts {
		return v
	}
	if reason := confirmedBehind(previous, next); reason != "" {
		return Verdict{Contradicts, v.Shared, reason}
	}
	if reason := behind(previous, next); reason != "" && next.Committed == 0 {
		return Verdict{Unclear, v.Shared, reason}
	}
	return v
}

// Fits compares two snapshots of which nobody knows which one was taken before: one
// was stored late, perhaps by a host with another clock. It uses only what holds in
// both orders, so it does not use Committed and HighWater.
func Fits(a, b Evidence) Verdict {
	if a.ClusterID != 0 && b.ClusterID != 0 && a.ClusterID != b.ClusterID {
		return Verdict{Contradicts, 0, fmt.Sprintf("The cluster id was %s and is %s now.", a.ClusterID, b.ClusterID)}
	}
	shared, reason := compareHashes(a, b)
	if reason != "" {
		return Verdict{Contradicts, shared, reason}
	}
	keys, reason := compareSketches(a, b)
	shared += keys
	if reason == "" {
		reason = outOfOrder(a, b)
	}
	if reason != "" {
		return Verdict{Contradicts, shared, reason}
	}
	if shared == 0 {
		return Verdict{Continues, 0, fmt.Sprintf("Nothing speaks against one history of the revisions %d and %d, but no"+
			" key that both know is unchanged.", a.Revision, b.Revision)}
	}
	return Verdict{Continues, shared, fmt.Sprintf("The revisions %d and %d agree in all that can be compared "+
		"(proofs: %d).", a.Revision, b.Revision, shared)}
}

// compareHashes compares those hashes that are of the same revision and the same
// compact revision.
func compareHashes(a, b Evidence) (shared int, reason string) {
	pairs := [][2]*backup.HashKV{{&a.HashKV, &b.HashKV}, {&a.HashKV, b.HashBefore}, {a.HashBefore, &b.HashKV}}
	for _, p := range pairs {
		x, y := p[0], p[1]
		if x == nil || y == nil || x.Revision != y.Revision || x.CompactRevision != y.CompactRevision {
			continue
		}
		if x.Hash != y.Hash {
			return 0, contradiction(b, a) + fmt.Sprintf("the HashKV of the records up to revision %d was %d and is %d.",
				x.Revision, x.Hash, y.Hash)
		}
		// Two databases without keys are equal whatever they are of.
		if len(a.Sketch.Recent) > 0 && len(b.Sketch.Recent) > 0 {
			shared = 1
		}
	}
	return shared, ""
}

// compareSketches compares the later database with the earlier one: a live key that
// was not written since the earlier revision must have been the same then. The
// opposite does not hold, because keys are deleted and overwritten.
func compareSketches(a, b Evidence) (shared int, reason string) {
	earlier, later := a, b
	if b.Revision < a.Revision {
		earlier, later = b, a
	}
	shared, reason = compareWith(earlier, later)
	if reason == "" && earlier.Revision == later.Revision {
		_, reason = compareWith(later, earlier)
	}
	return shared, reason
}

func compareWith(earlier, later Evidence) (shared int, reason string) {
	var agreed []backup.SketchEntry
	was := &earlier.Sketch
	for _, e := range slices.Concat(later.Sketch.Sample, later.Sketch.Recent) {
		switch {
		case e.Mod <= earlier.Revision:
		case e.Create == 0 || e.Create > earlier.Revision:
			continue // it came later
		default:
			// It was overwritten since. In one history it was there, created at the same revision.
			known, reason := createdAlike(was, e)
			if reason != "" {
				return len(agreed), contradiction(later, earlier) + fmt.Sprintf("by it %s, and the other has no such key.", reason)
			}
			if known {
				agreed = append(agreed, e)
			}
			continue
		}
		_, sampled := slices.BinarySearchFunc(was.Sample, e, backup.ByHash)
		_, recent := slices.BinarySearchFunc(was.Recent, e, backup.ByRevision)
		if !sampled && was.Samples(e.Key) || !recent && was.Remembers(e.Mod) {
			return len(agreed), contradiction(later, earlier) + fmt.Sprintf("it has a key (hash %x) that was last written "+
				"at revision %d, and the other did not have it so.", e.Key, e.Mod)
		}
		if sampled || recent {
			agreed = append(agreed, e)
		}
	}
	slices.SortFunc(agreed, backup.ByHash)
	return len(slices.Compact(agreed)), ""
}

// contradiction begins the reason why two databases are not of one history.
func contradiction(first, second Evidence) string {
	return fmt.Sprintf("The database at revision %d contradicts the one at revision %d: ", first.Revision, second.Revision)
}

// createdAlike looks for a key that was overwritten since: known says that it is in the
// sketch, created at the same revision. The reason says that it should be and is not.
func createdAlike(was *backup.Sketch, e backup.SketchEntry) (known bool, reason string) {
	same := func(o backup.SketchEntry) bool { return o.Key == e.Key && o.Create == e.Create && o.Mod < e.Mod }
	sampled, recent := slices.ContainsFunc(was.Sample, same), slices.ContainsFunc(was.Recent, same)
	if !sampled && was.Samples(e.Key) || !recent && was.Remembers(e.Create) {
		return false, fmt.Sprintf("a key (hash %x) was created at revision %d", e.Key, e.Create)
	}
	return sampled || recent, ""
}

// Descends reports whether a database can have come from another by nothing but writes:
// whether it is of a cluster that was restored from that one. Ids, raft log and hashes
// begin anew in a restore; the records stay.
func Descends(from, database Evidence) bool {
	_, reason := compareSketches(from, database)
	return reason == "" && database.Revision >= from.Revision
}

// outOfOrder compares the places in the raft log. A log is applied in order, its terms
// never go back, and no entry makes more than one revision.
func outOfOrder(a, b Evidence) string {
	if a.Index == 0 || b.Index == 0 {
		return ""
	}
	x, y := a, b
	if cmp.Or(cmp.Compare(x.Index, y.Index), cmp.Compare(x.Revision, y.Revision)) > 0 {
		x, y = y, x
	}
	grown := uint64(max(0, y.Revision-x.Revision))
	switch {
	case x.Index == y.Index && x.Revision != y.Revision:
		return fmt.Sprintf("Raft index %d cannot be revision %d and revision %d.", x.Index, x.Revision, y.Revision)
	case y.Revision < x.Revision:
		return fmt.Sprintf("Raft index %d is revision %d, but the later index %d is the earlier revision %d.", x.Index,
			x.Revision, y.Index, y.Revision)
	case grown > y.Index-x.Index:
		return fmt.Sprintf("From raft index %d to %d the revision cannot have grown from %d to %d.", x.Index, y.Index,
			x.Revision, y.Revision)
	case x.Term == 0 || y.Term == 0:
		return ""
	case y.Term < x.Term && x.Index < y.Index: // etcd stores an index and its term one after the other
		return fmt.Sprintf("Raft index %d is of term %d, but the later index %d is of the earlier term %d.", x.Index, x.Term,
			y.Index, y.Term)
	}
	return ""
}

// confirmedBehind compares what a quorum said with what was seen before.
func confirmedBehind(previous, next Evidence) string {
	was, is := previous.HighWater, next.HighWater
	switch {
	case next.Committed == 0:
	case next.Committed < was.Index:
		return fmt.Sprintf("A quorum has committed up to raft index %d, but a member had applied index %d before.",
			next.Committed, was.Index)
	case is.Revision < was.Revision:
		return fmt.Sprintf("A quorum confirmed that the newest revision is %d, but it was %d before.", is.Revision,
			was.Revision)
	case is.Term < was.Term:
		return fmt.Sprintf("A quorum confirmed raft term %d, but a member had applied an entry of term %d before.", is.Term,
			was.Term)
	}
	return ""
}

// behind is for a cluster in which nobody could confirm how far it has come.
func behind(previous, next Evidence) string {
	was, is := previous.HighWater, next.HighWater
	if is.Index >= was.Index && is.Revision >= was.Revision {
		return ""
	}
	return fmt.Sprintf("The members that answered are behind (revision %d and raft index %d, before: %d and %d) and no"+
		" quorum confirmed it: they lag in the same history, or they are an older copy.", is.Revision, is.Index,
		was.Revision, was.Index)
}
