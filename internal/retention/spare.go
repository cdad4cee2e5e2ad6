package retention

import (
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// suspectDays is how many days of a trouble that lasts keep a suspect snapshot each.
const suspectDays = 30

// series are snapshots in one state, of one member, that no verified one comes between;
// the newest first.
type series struct {
	state  backup.State
	source backup.MemberID
}

// content tells which database a snapshot holds.
type content struct {
	index uint64
	rev   backup.Revision
	hash  backup.HashKV
}

// findSpare finds the snapshots that are too many in a trouble that lasts, for example
// while members have diverged. Without this the suspect copies of weeks would fill the
// store, for nothing that a verified one is not newer than is removed.
func (c *selection) findSpare(l *line) {
	open := map[series][]*candidate{}
	end := func() {
		for of, all := range open {
			thin(c.Policy, of, all)
		}
		clear(open)
	}
	for _, s := range l.all {
		of := series{s.State, s.Source}
		switch {
		case c.counts(s):
			end()
		case s.State != backup.Suspect && s.State != backup.Unconfirmed, s.always, s.begun.IsZero(),
			s.Source == 0 && s.Content == backup.HashKV{}:
		default:
			open[of] = append(open[of], s)
		}
	}
	end()
}

// thin finds the spare ones of a series. Of those with the same content the newest and the
// oldest may stay. Of the suspect ones among these the oldest stays, the newest ones, and
// the newest of each day; all of them if it is not known which member they are of.
func thin(p Policy, of series, all []*candidate) {
	copies := map[content][]*candidate{}
	for _, s := range all {
		k := content{s.Index, s.rev, s.Content}
		copies[k] = append(copies[k], s)
	}
	for k, same := range copies {
		if k.hash == (backup.HashKV{}) || len(same) < 3 {
			continue
		}
		for _, s := range same[1 : len(same)-1] {
			s.spare = "the same content is in " + string(same[0].ID)
		}
	}
	if of.state != backup.Suspect || of.source == 0 {
		return
	}
	days := map[string]bool{}
	all = slices.DeleteFunc(slices.Clone(all), func(s *candidate) bool { return s.spare != "" })
	for i, s := range all {
		day := s.at.In(p.Location).Format("2006-01-02")
		first := !days[day] && len(days) < suspectDays
		days[day] = true
		if !first && i >= p.MinVerified && i < len(all)-1 {
			s.spare = "one of this member a day is enough"
		}
	}
}
