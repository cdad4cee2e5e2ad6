package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// candidate is a snapshot during the decision.
type candidate struct {
	Snapshot
	begun   time.Time // by the clock of its writer
	at      time.Time // what the rules use: see trusted
	rev     backup.Revision
	reasons []string // to keep it
	always  bool     // it stays even if the total is over MaxBytes
	over    bool     // it is removed because of MaxBytes
	floor   bool
	spare   string // why it is one too many of those that do not count; empty: it is not
}

// bad reports whether it is suspect or damaged.
func (s *candidate) bad() bool { return !s.State.Usable() }

func (s *candidate) keep(format string, args ...any) {
	s.reasons = append(s.reasons, fmt.Sprintf(format, args...))
}

// keepAlways keeps it even if the total is over MaxBytes.
func (s *candidate) keepAlways(format string, args ...any) {
	s.keep(format, args...)
	s.always = true
}

// line holds the snapshots of one timeline, the newest first, and those of them that
// count.
type line struct {
	name          string
	all, verified []*candidate
}

// selection holds all snapshots, the newest first, and their timelines, the latest
// first.
type selection struct {
	Policy
	now   time.Time
	all   []*candidate
	lines []*line
}

func newSelection(p Policy, all []Snapshot, now time.Time) *selection {
	p.MinVerified = max(p.MinVerified, 1)
	if p.FreezeFor == 0 {
		p.FreezeFor = FreezeFor
	}
	if p.Location == nil {
		p.Location = time.UTC
	}
	c := &selection{Policy: p, now: now}
	byName := map[string]*line{}
	for _, s := range all {
		l := byName[s.Timeline]
		if l == nil {
			l = &line{name: s.Timeline}
			byName[s.Timeline] = l
			c.lines = append(c.lines, l)
		}
		l.all = append(l.all, &candidate{Snapshot: s, begun: s.ID.Time(), rev: s.ID.Revision()})
	}
	slices.SortFunc(c.lines, func(a, b *line) int { return backup.CompareTimelines(b.name, a.name) })
	for _, l := range c.lines {
		c.order(l)
		c.all = append(c.all, l.all...)
	}
	return c
}

// order puts the snapshots of a timeline in the order of its history.
func (c *selection) order(l *line) {
	slices.SortFunc(l.all, func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(b.rev, a.rev), b.begun.Compare(a.begun),
			strings.Compare(string(b.ID), string(a.ID)), compareTwins(a.Snapshot, b.Snapshot))
	})
	times := c.trusted(l.all)
	for i, s := range l.all {
		s.at = times[i]
		if c.counts(s) {
			l.verified = append(l.verified, s)
		}
	}
}

// compareTwins orders two snapshots with one id, which should not exist: the order of
// the input must not matter.
func compareTwins(a, b Snapshot) int {
	if a == b {
		return 0
	}
	return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
}

func (c *selection) future(s *candidate) bool { return s.ID.Future(c.now) }

// counts reports whether it is verified, and no wrong clock made it.
func (c *selection) counts(s *candidate) bool {
	good := s.State == backup.Verified || s.State == backup.Unconfirmed && c.CountUnconfirmed && !s.Doubtful
	return good && !c.future(s) && !s.begun.IsZero()
}

// freeze keeps all snapshots of a timeline while a later one is not accepted: the
// history may have to go on from the older one.
func (c *selection) freeze(open map[string]bool) {
	times := c.trusted(c.all)
	var by *line // the latest that freezes
	n := 0
	for _, l := range c.lines {
		if by != nil {
			for _, s := range l.all {
				s.keepAlways("frozen: the later timeline %s is not accepted", by.name)
			}
		}
		n += len(l.all)
		// Its first snapshot may have a clock that is behind: the times of the older
		// timelines correct it.
		first := times[n-1]
		if by == nil && open[l.name] && (first.IsZero() || c.now.Sub(first) < c.FreezeFor) {
			by = l
		}
	}
}

// keepAlways adds the reasons that no limit overrules.
func (c *selection) keepAlways() {
	for _, s := range c.all {
		if s.Pinned != "" {
			s.keepAlways("pinned: %s", s.Pinned)
		}
		switch {
		case s.begun.IsZero():
			s.keepAlways("its id holds no time")
		case c.future(s):
			s.keepAlways("begun in the future: a clock was wrong")
		case c.MinAge > 0 && c.now.Sub(s.at) < c.MinAge:
			s.keepAlways("younger than %s", spell(c.MinAge))
		}
	}
	ofAll := c.blocker(c.all)
	for _, l := range c.lines {
		for i, s := range l.verified[:min(c.MinVerified, len(l.verified))] {
			s.keepAlways("newest verified %d of %d", i+1, c.MinVerified)
			s.floor = true
		}
		c.keepUncounted(l)
		if s := cmp.Or(ofAll, c.blocker(l.all)); s != nil {
			for _, v := range l.verified {
				v.keepAlways("a newer snapshot is %s", s.State)
			}
		}
	}
}

// keepUncounted keeps bad and unconfirmed snapshots while few verified ones are
// newer: they may be the best that exist.
func (c *selection) keepUncounted(l *line) {
	c.findSpare(l)
	newer := 0 // verified ones
	for _, s := range l.all {
		switch {
		case newer < len(l.verified) && s == l.verified[newer]:
			newer++
		case s.spare != "" && newer < c.MinVerified:
		case s.State != backup.Verified && newer < c.MinVerified:
			s.keepAlways("%s: %d of %d verified are newer", s.State, newer, c.MinVerified)
		}
	}
}

// blocker returns the newest bad snapshot if it is newer than the newest verified one
// that counts, which blocks removal; else nil. A bad snapshot dated in the future also
// blocks removal; a verified one dated in the future does not lift the block.
func (c *selection) blocker(all []*candidate) *candidate {
	for _, s := range all {
		if c.counts(s) {
			return nil
		}
		if s.bad() {
			return s
		}
	}
	return nil
}

// applyRules adds the reasons that MaxBytes overrules.
func (c *selection) applyRules(l *line) {
	for i, s := range l.verified[:min(c.Last, len(l.verified))] {
		s.keep("last %d of %d", i+1, c.Last)
	}
	c.keepWithin(l)
	c.keepNewestOf(l, "hourly", c.Hourly, func(t time.Time) string { return t.Format("2006-01-02T15Z07:00") })
	c.keepNewestOf(l, "daily", c.Daily, func(t time.Time) string { return t.Format("2006-01-02") })
	c.keepNewestOf(l, "weekly", c.Weekly, func(t time.Time) string {
		year, week := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	})
	c.keepNewestOf(l, "monthly", c.Monthly, func(t time.Time) string { return t.Format("2006-01") })
	c.keepNewestOf(l, "yearly", c.Yearly, func(t time.Time) string { return t.Format("2006") })
}

func (c *selection) keepWithin(l *line) {
	if c.Within <= 0 || len(l.verified) == 0 {
		return
	}
	newest := l.verified[0].at
	for _, s := range l.all {
		// Bad snapshots stay too: they help to find the cause.
		if newest.Sub(s.at) < c.Within && !s.begun.IsZero() && !c.future(s) {
			s.keep("within %s of the newest", spell(c.Within))
		}
	}
}

// keepNewestOf keeps the newest verified snapshot of each of the n newest
// periods that have one.
func (c *selection) keepNewestOf(l *line, rule string, n int, period func(time.Time) string) {
	// A set is needed, not only the last period: where clocks are set back at
	// midnight, a day ends, the next one begins, and the first one goes on.
	seen := map[string]bool{}
	for _, s := range l.verified {
		name := period(s.at.In(c.Location))
		if seen[name] {
			continue
		}
		if len(seen) == n {
			return
		}
		seen[name] = true
		s.keep("%s %s", rule, name)
	}
}

// limitBytes removes the oldest snapshots until the total fits in MaxBytes.
func (c *selection) limitBytes() {
	if c.MaxBytes <= 0 {
		return
	}
	total := int64(0)
	for _, s := range c.all {
		if len(s.reasons) > 0 {
			total += s.StoredBytes
		}
	}
	for _, s := range slices.Backward(c.all) {
		if total <= c.MaxBytes {
			return
		}
		if len(s.reasons) > 0 && !s.always {
			s.over = true
			total -= s.StoredBytes
		}
	}
}

func (c *selection) decisions() []Decision {
	out := make([]Decision, 0, len(c.all))
	for _, s := range c.all {
		d := Decision{Snapshot: s.Snapshot, Keep: len(s.reasons) > 0 && !s.over, Reasons: s.reasons, Floor: s.floor}
		switch {
		case s.over:
			d.Reasons = []string{fmt.Sprintf("over the limit of %d bytes (was: %s)",
				c.MaxBytes, strings.Join(s.reasons, ", "))}
		case len(s.reasons) == 0 && s.spare != "":
			d.Reasons = []string{fmt.Sprintf("%s: %s", s.State, s.spare)}
		case len(s.reasons) == 0 && !c.counts(s):
			d.Reasons = []string{fmt.Sprintf("%s: %d of %d verified are newer", s.State, c.MinVerified, c.MinVerified)}
		case len(s.reasons) == 0:
			d.Reasons = []string{"no rule keeps it"}
		}
		out = append(out, d)
	}
	return out
}

// spell writes a duration as people do: in days if they are whole.
func spell(d time.Duration) string {
	if day := 24 * time.Hour; d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
