package rescue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/rescue/entry"
	"github.com/etcd-backupd/backupd/internal/rescue/snapfile"
)

// Report says what was rescued, and what was not.
type Report struct {
	ClusterID backup.MemberID `json:"clusterID"`
	Survivors []Survivor      `json:"survivors"`
	// DataDir is that of the survivor whose database was taken.
	DataDir  string          `json:"dataDir"`
	Revision backup.Revision `json:"revision"`
	HashKV   backup.HashKV   `json:"hashKV"`
	// RaftIndex is the newest entry that the database has.
	RaftIndex uint64          `json:"raftIndex"`
	Members   []backup.Member `json:"members"`
	// Compared has each pair of survivors. ClusterID is 0 if the survivor has no WAL.
	Compared []Compared `json:"compared"`
	// CommittedIndex is the newest entry that any survivor shows as committed.
	CommittedIndex uint64 `json:"committedIndex"`
	// Uncommitted are the entries after it, if there are any.
	Uncommitted *Tail `json:"uncommitted,omitempty"`
	// LostEntries is how many entries the cluster has committed that no survivor has.
	LostEntries int64 `json:"lostEntries"`
	// NotKnown says why more may be committed than any survivor shows.
	NotKnown []string `json:"notKnown,omitempty"`
	Notes    []string `json:"notes"`
	// File and SHA256 are of the snapshot file that was written; empty before.
	File   string        `json:"file,omitempty"`
	SHA256 backup.Digest `json:"sha256,omitzero"`
}

// Survivor is what one data directory gave.
type Survivor struct {
	DataDir  string          `json:"dataDir"`
	Name     string          `json:"name"`
	MemberID backup.MemberID `json:"memberID"`
	// StoredIndex is the newest entry that its database had, and RaftIndex the newest one
	// that it has after the replay.
	StoredIndex uint64          `json:"storedIndex"`
	RaftIndex   uint64          `json:"raftIndex"`
	Replayed    int64           `json:"replayed"`
	Revision    backup.Revision `json:"revision"`
	HashKV      backup.HashKV   `json:"hashKV"`
}

// Tail are entries at the end of a log of which nobody knows whether they are committed.
type Tail struct {
	DataDir string           `json:"dataDir"`
	From    uint64           `json:"from"` // index of the first one
	Count   int64            `json:"count"`
	Kinds   map[string]int64 `json:"kinds"`
	Taken   bool             `json:"taken"`
}

// changes reports whether any of the entries changes something that is stored.
func (t Tail) changes() bool { return len(entry.Changes(t.Kinds)) > 0 }

// String describes the entries.
func (t Tail) String() string {
	what := strings.Join(entry.Changes(t.Kinds), ", ")
	if what == "" {
		what = "changing nothing"
	}
	if t.Count == 1 {
		return fmt.Sprintf("entry %d (%s)", t.From, what)
	}
	return fmt.Sprintf("entries %d to %d (%s)", t.From, t.From+uint64(t.Count)-1, what)
}

// warnf adds a sentence that people should read.
func (r *Report) warnf(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// describe fills the report in, after all replays.
func (r *Report) describe(all []*survivor, best *survivor) {
	r.DataDir, r.RaftIndex = best.folder.DataDir, best.done.Index
	r.Revision, r.HashKV, r.Members = best.facts.Revision, best.facts.HashKV, best.facts.Members
	r.ClusterID = best.log.ClusterID
	for _, s := range all {
		r.Survivors = append(r.Survivors, Survivor{
			DataDir: s.folder.DataDir, Name: s.name(), MemberID: s.log.MemberID, StoredIndex: s.start.Index,
			RaftIndex: s.done.Index, Replayed: s.done.Entries, Revision: s.facts.Revision, HashKV: s.facts.HashKV,
		})
		r.warnOf(s)
	}
	if lost := int64(r.CommittedIndex) - int64(r.RaftIndex); lost > 0 {
		r.LostEntries = lost
		r.warnf("LOST: %d committed entries, %d to %d: no survivor has them so that they can be read and proved",
			lost, r.RaftIndex+1, r.CommittedIndex)
	}
	if t := r.Uncommitted; t != nil && t.Taken {
		r.warnf("taken although no survivor shows that they were committed: %s", t)
	} else if t != nil {
		r.warnf("left out, for no survivor shows that they were committed: %s", t)
	}
	r.warnOfQuorum(all, best)
}

// warnOfQuorum says that a quorum needs no rescue, if the data of its members was compared.
func (r *Report) warnOfQuorum(all []*survivor, best *survivor) {
	voters, here, same := 0, 0, 0
	for _, m := range r.Members {
		if m.Learner {
			continue
		}
		voters++
		for _, s := range all {
			if s.log.Missing || s.log.MemberID != m.ID {
				continue
			}
			here++
			if s == best || slices.ContainsFunc(r.Compared, func(c Compared) bool {
				return c.Revision > 0 && c.RaftIndex > 0 && slices.Contains(c.DataDirs, s.folder.DataDir) &&
					slices.Contains(c.DataDirs, best.folder.DataDir)
			}) {
				same++
			}
		}
	}
	switch {
	case voters < 2 || 2*here <= voters:
	case same == here:
		r.warnf("%d of %d voting members are here, which is a quorum, and their data is the same: started "+
			"again on their own data, on their own addresses, they go on without a restore", here, voters)
	default:
		r.warnf("%d of %d voting members are here, which is a quorum. But their data and their logs could not both be "+
			"compared: do not start them together", here, voters)
	}
}

// warnOf says what is wrong with one survivor.
func (r *Report) warnOf(s *survivor) {
	if s.log.Missing {
		r.warnf("%s has no WAL (give --from-wal-dir if it is elsewhere): what came after entry %d of it is lost, and "+
			"nothing shows which cluster and which member it is of",
			s.folder.DataDir, s.start.Index)
		r.NotKnown = append(r.NotKnown, fmt.Sprintf("what the WAL of %s had after entry %d: acknowledged writes may be "+
			"missing, and nothing shows how many", s.folder.DataDir, s.start.Index))
		return
	}
	switch d := s.log.Damage; {
	case d == nil:
	case d.Torn:
		r.warnf("the WAL of %s ends with what a crash has torn, after entry %d: %s", s, d.Index-1, s.inOriginal(
			errors.New(d.Why)))
	case d.Beyond > 0:
		r.warnf("the WAL of %s is damaged from entry %d on, and goes on to entry %d at least, which cannot be read: %s",
			s, d.Index, d.Beyond, s.inOriginal(errors.New(d.Why)))
	default:
		r.warnf("the WAL of %s is damaged from entry %d on: %s", s, d.Index, s.inOriginal(errors.New(d.Why)))
		r.NotKnown = append(r.NotKnown, fmt.Sprintf("what the WAL of %s had from entry %d on, where it is damaged", s,
			d.Index))
	}
	if s.origin == entry.Unknown && s.done.Entries > 0 && !s.empty {
		r.warnf("the WAL of %s has no entry by which it could be compared with the database: make sure that it is the "+
			"database's own", s)
	}
	if n := s.done.Kinds[entry.KindV2]; n > 0 {
		r.warnf("%s had %d requests of the v2 API in its log: keys of the v2 API are in no v3 database", s, n)
	}
	if slices.Contains(s.facts.RemovedMembers, s.log.MemberID) {
		r.warnf("%s was removed from the cluster: its data ends there", s)
	}
}

// Write writes the rescued database to a new file, as [snapfile.Write] does, and notes it in
// the report.
func (r *Result) Write(ctx context.Context, path string) error {
	frame, err := etcddb.ReadFrame(r.database)
	if err != nil {
		return err
	}
	sum, err := snapfile.Write(ctx, path, r.database, frame.DatabaseBytes)
	if err == nil {
		r.File, r.SHA256 = path, sum
	}
	return err
}
