package rescue

import (
	"context"
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/rescue/entry"
)

// belongs refuses a log that is not that of the database: of another cluster, or of the time
// before or after a restore. What was applied of it would make data that never was.
func (s *survivor) belongs(ctx context.Context) error {
	if s.log.Missing {
		return nil
	}
	s.empty = s.facts.Revision <= 1 && s.log.first() == 1
	why := s.strange()
	if why == "" && len(s.facts.Alarms) == 0 {
		a, err := job{
			Origin: true, WAL: s.wal, Database: s.db, From: s.start.Index, Compact: s.facts.CompactRevision,
		}.run(ctx)
		if err != nil {
			return s.explain(fmt.Errorf("compare the WAL with the database: %w", err))
		}
		if s.origin = a.Origin; a.Origin == entry.Denied {
			why = "the newest keys of the database have not come of its entries"
		}
	}
	if why == "" {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the WAL in %s is not that of the database in %s: %s", s.folder.wal(), s.folder.snap(), why)},
		"give --from-wal-dir of the same member and the same time; if there is none, copy %s to DIR/member/snap/%s "+
			"and give --from-data-dir=DIR instead: what came after entry %d is lost then", s.folder.snap()+"/"+database,
		database, s.start.Index)
}

// strange says what cannot be so in a log of the database, and else nothing.
func (s *survivor) strange() string {
	l, at := s.log, s.start
	known := slices.Concat(s.facts.RemovedMembers, l.Joined)
	named := false
	for _, m := range s.facts.Members {
		known = append(known, m.ID)
		named = named || slices.Contains(l.Named, m.ID)
	}
	if l.first() == 1 && l.Damage == nil && len(s.facts.Members) > 0 && !named {
		return "it has all entries from the first on, and none names a member of the database"
	}
	for _, id := range append(slices.Clone(l.Voters), l.MemberID) {
		if id != 0 && !slices.Contains(known, id) {
			return fmt.Sprintf("it knows member %s, which the database does not", id)
		}
	}
	newest := position{}
	for _, m := range l.Marks {
		if m.Index <= l.Commit && m.Index > newest.Index {
			newest = m
		}
		if at.Term > 0 && (m.Index == at.Index && m.Term != at.Term || m.Index < at.Index && m.Term > at.Term ||
			m.Index > at.Index && m.Term < at.Term) {
			return fmt.Sprintf("it has a snapshot of entry %d, term %d, and the database ends with entry %d, term %d",
				m.Index, m.Term, at.Index, at.Term)
		}
	}
	switch next := l.first(); {
	case at.Term > 0 && l.Before > 0 && l.Before != at.Term:
		return fmt.Sprintf("entry %d has term %d in it, and term %d in the database", at.Index, l.Before, at.Term)
	case at.Term > 0 && l.term(at.Index+1) > 0 && l.term(at.Index+1) < at.Term:
		return fmt.Sprintf("entry %d has term %d in it, and the database has term %d already", at.Index+1,
			l.term(at.Index+1), at.Term)
	case next > at.Index+1:
		return fmt.Sprintf("it begins at entry %d, and the database ends at entry %d: what is between is missing", next,
			at.Index)
	case l.Damage == nil && next == 0 && newest.Index > at.Index:
		return fmt.Sprintf("it begins after entry %d, and the database ends at entry %d: what is between is missing",
			newest.Index, at.Index)
	case l.Damage == nil && l.Last > 0 && max(l.Last, newest.Index) < at.Index:
		return fmt.Sprintf("it ends at entry %d, and the database has the entries up to %d: it is of another time, or a "+
			"crash of the machine has taken its end", max(l.Last, newest.Index), at.Index)
	case next == 1 && !slices.ContainsFunc(l.Marks, func(m position) bool { return m.Index > 0 && m.Index <= at.Index }) &&
		s.facts.Revision > backup.Revision(at.Index)+1:
		return fmt.Sprintf("it begins with an empty cluster, and the database has revision %d at entry %d",
			s.facts.Revision, at.Index)
	}
	return ""
}
