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
	at      time.Time
	rev     backup.Revision
	reasons []string // to keep it
	always  bool     // it stays even if the total is over MaxBytes
	over    bool     // it is removed because of MaxBytes
}

// bad reports whether it is suspect or damaged.
func (s *candidate) bad() bool { return s.State != backup.Verified }

func (s *candidate) keep(format string, args ...any) {
	s.reasons = append(s.reasons, fmt.Sprintf(format, args...))
}

// keepAlways keeps it even if the total is over MaxBytes.
func (s *candidate) keepAlways(format string, args ...any) {
	s.keep(format, args...)
	s.always = true
}

// selection holds all snapshots, the newest first, and those of them that are
// verified and not from the future.
type selection struct {
	Policy
	now           time.Time
	all, verified []*candidate
}

func newSelection(p Policy, all []Snapshot, now time.Time) *selection {
	p.MinVerified = max(p.MinVerified, 1)
	if p.Location == nil {
		p.Location = time.UTC
	}
	c := &selection{Policy: p, now: now}
	for _, s := range all {
		c.all = append(c.all, &candidate{Snapshot: s, at: s.ID.Time(), rev: s.ID.Revision()})
	}
	slices.SortFunc(c.all, func(a, b *candidate) int {
		return cmp.Or(b.at.Compare(a.at), cmp.Compare(b.rev, a.rev), strings.Compare(string(b.ID), string(a.ID)),
			compareTwins(a.Snapshot, b.Snapshot))
	})
	for _, s := range c.all {
		if !s.bad() && !c.future(s) && !s.at.IsZero() {
			c.verified = append(c.verified, s)
		}
	}
	return c
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

// keepAlways adds the reasons that no limit overrules.
func (c *selection) keepAlways() {
	for _, s := range c.all {
		if s.Pinned != "" {
			s.keepAlways("pinned: %s", s.Pinned)
		}
		switch {
		case s.at.IsZero():
			s.keepAlways("its id holds no time")
		case c.future(s):
			s.keepAlways("begun in the future: a clock was wrong")
		case c.MinAge > 0 && c.now.Sub(s.at) < c.MinAge:
			s.keepAlways("younger than %s", spell(c.MinAge))
		}
	}
	for i, s := range c.verified[:min(c.MinVerified, len(c.verified))] {
		s.keepAlways("newest verified %d of %d", i+1, c.MinVerified)
	}
	c.keepBad()
	if s := c.blocker(); s != nil {
		for _, v := range c.verified {
			v.keepAlways("a newer snapshot is %s", s.State)
		}
	}
}

// keepBad keeps bad snapshots while few verified ones are newer: they may be the
// best that exist.
func (c *selection) keepBad() {
	newer := 0 // verified ones
	for _, s := range c.all {
		switch {
		case s.bad() && newer < c.MinVerified:
			s.keepAlways("%s: %d of %d verified are newer", s.State, newer, c.MinVerified)
		case newer < len(c.verified) && s == c.verified[newer]:
			newer++
		}
	}
}

// blocker returns the newest bad snapshot if it is newer than the newest verified one
// that counts, which blocks removal; else nil. A bad snapshot dated in the future also
// blocks removal; a verified one dated in the future does not lift the block.
func (c *selection) blocker() *candidate {
	for _, s := range c.all {
		if len(c.verified) > 0 && s == c.verified[0] {
			return nil
		}
		if s.bad() {
			return s
		}
	}
	return nil
}

// applyRules adds the reasons that MaxBytes overrules.
func (c *selection) applyRules() {
	for i, s := range c.verified[:min(c.Last, len(c.verified))] {
		s.keep("last %d of %d", i+1, c.Last)
	}
	c.keepWithin()
	c.keepNewestOf("hourly", c.Hourly, func(t time.Time) string { return t.Format("2006-01-02T15Z07:00") })
	c.keepNewestOf("daily", c.Daily, func(t time.Time) string { return t.Format("2006-01-02") })
	c.keepNewestOf("weekly", c.Weekly, func(t time.Time) string {
		year, week := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, week)
	})
	c.keepNewestOf("monthly", c.Monthly, func(t time.Time) string { return t.Format("2006-01") })
	c.keepNewestOf("yearly", c.Yearly, func(t time.Time) string { return t.Format("2006") })
}

func (c *selection) keepWithin() {
	if c.Within <= 0 || len(c.verified) == 0 {
		return
	}
	newest := c.verified[0].at
	for _, s := range c.all {
		// Bad snapshots stay too: they help to find the cause.
		if newest.Sub(s.at) < c.Within && !s.at.IsZero() && !c.future(s) {
			s.keep("within %s of the newest", spell(c.Within))
		}
	}
}

// keepNewestOf keeps the newest verified snapshot of each of the n newest
// periods that have one.
func (c *selection) keepNewestOf(rule string, n int, period func(time.Time) string) {
	// A set is needed, not only the last period: where clocks are set back at
	// midnight, a day ends, the next one begins, and the first one goes on.
	seen := map[string]bool{}
	for _, s := range c.verified {
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
		d := Decision{Snapshot: s.Snapshot, Keep: len(s.reasons) > 0 && !s.over, Reasons: s.reasons}
		switch {
		case s.over:
			d.Reasons = []string{fmt.Sprintf("over the limit of %d bytes (was: %s)",
				c.MaxBytes, strings.Join(s.reasons, ", "))}
		case len(s.reasons) == 0 && s.bad():
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
