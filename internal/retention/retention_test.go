package retention_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/retention"
)

var update = flag.Bool("update", false, "write the golden files")

// now is a Friday.
var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// at makes a verified snapshot that was begun then.
func at(t time.Time) retention.Snapshot {
	rev := backup.Revision(t.Unix() / 60)
	return retention.Snapshot{ID: backup.SnapshotID(fmt.Sprintf("%s-r%d-aaaaaa", t.UTC().Format("20060102T150405Z"),
		rev)),
		State: backup.Verified, StoredBytes: 100}
}

// every makes n snapshots, the newest a minute ago, with a step in between.
func every(n int, step time.Duration) []retention.Snapshot {
	var out []retention.Snapshot
	for i := range n {
		out = append(out, at(now.Add(-time.Minute-time.Duration(i)*step)))
	}
	return out
}

func suspect(s retention.Snapshot) retention.Snapshot {
	s.State = backup.Suspect
	return s
}

func damaged(s retention.Snapshot) retention.Snapshot {
	s.State = backup.Damaged
	return s
}

// further makes a snapshot the furthest of its timeline.
func further(s retention.Snapshot) retention.Snapshot {
	s.Index = 1_000_000
	return s
}

// numbered gives snapshots, the newest first, their places in the history.
func numbered(all []retention.Snapshot) []retention.Snapshot {
	for i := range all {
		all[i].Index = uint64(len(all) - i)
	}
	return all
}

// of puts snapshots into a timeline.
func of(timeline string, all []retention.Snapshot) []retention.Snapshot {
	for i := range all {
		all[i].Timeline = timeline
	}
	return all
}

func pinned(s retention.Snapshot, why string) retention.Snapshot {
	s.Pinned = why
	return s
}

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// TestApply_Golden shows what each rule does, and what the rules do together.
func TestApply_Golden(t *testing.T) {
	const day = 24 * time.Hour
	ages := func(mark func(i int, s retention.Snapshot) retention.Snapshot,
		all []retention.Snapshot) []retention.Snapshot {
		for i, s := range all {
			all[i] = mark(i, s)
		}
		return all
	}
	for name, c := range map[string]struct {
		policy retention.Policy
		all    []retention.Snapshot
	}{
		"no-rule":        {retention.Policy{MinVerified: 2}, every(4, day)},
		"last":           {retention.Policy{Last: 3}, every(6, time.Hour)},
		"hourly":         {retention.Policy{Hourly: 3}, every(8, 20*time.Minute)},
		"daily-berlin":   {retention.Policy{Daily: 3, Location: zone(t, "Europe/Berlin")}, every(10, 11*time.Hour)},
		"weekly":         {retention.Policy{Weekly: 3, MinVerified: 1}, every(12, 2*day)},
		"monthly-yearly": {retention.Policy{Monthly: 2, Yearly: 3}, every(12, 75*day)},
		"within": {retention.Policy{Within: 2 * day}, append(every(4, 20*time.Hour),
			suspect(at(now.Add(-30*time.Hour))), suspect(at(now.Add(-49*time.Hour))))},
		"all-together": {
			retention.Policy{Last: 3, Hourly: 2, Daily: 7, Weekly: 4, Monthly: 12, Yearly: 3, Within: 36 * time.Hour,
				MinVerified: 3, MinAge: 6 * time.Hour},
			ages(func(i int, s retention.Snapshot) retention.Snapshot {
				switch i {
				case 5, 40:
					return suspect(s)
				case 33:
					return pinned(s, "before the upgrade")
				}
				return s
			}, every(60, 30*time.Hour)),
		},
		"a-gap-uses-nothing-up": {retention.Policy{Daily: 4}, append(every(2, day), at(now.Add(-100*day)),
			at(now.Add(-101*day)), at(now.Add(-102*day)))},
		"newest-is-suspect": {retention.Policy{Last: 1, MaxBytes: 1},
			append(every(4, day)[1:], suspect(at(now.Add(-time.Hour))))},
		"suspect-in-between": {
			retention.Policy{Last: 2, MinVerified: 2},
			append(every(2, day), suspect(at(now.Add(-time.Hour))), suspect(at(now.Add(-30*time.Hour))),
				at(now.Add(-50*time.Hour))),
		},
		"newest-is-damaged": { // although a suspect one is newer than the verified ones, too
			retention.Policy{Last: 1}, append(every(3, day)[1:], damaged(at(now.Add(-time.Hour))),
				suspect(at(now.Add(-2*time.Hour)))),
		},
		"damaged-in-between": {
			retention.Policy{Last: 2, MinVerified: 2},
			append(every(2, day), damaged(at(now.Add(-time.Hour))), damaged(at(now.Add(-30*time.Hour))),
				at(now.Add(-50*time.Hour))),
		},
		"all-suspect": {retention.Policy{Last: 1}, ages(func(_ int, s retention.Snapshot) retention.Snapshot {
			return suspect(s)
		}, every(3, day))},
		"future": {
			retention.Policy{Last: 1, MinVerified: 2, Within: time.Hour},
			append(every(4, day), at(now.Add(100*day)), at(now.Add(backup.Skew+time.Second))),
		},
		"future-is-suspect": {
			retention.Policy{Last: 1, MinVerified: 1}, append(every(3, day), suspect(at(now.Add(day)))),
		},
		"max-bytes": {
			retention.Policy{Last: 6, MinVerified: 2, MinAge: 60 * time.Hour, MaxBytes: 350},
			append(every(7, day), pinned(at(now.Add(-200*day)), "release")),
		},
		"max-bytes-cannot-be-met": {retention.Policy{Last: 6, MinVerified: 2, MaxBytes: 50}, every(4, day)},
		"clocks-set-back": {
			retention.Policy{Hourly: 4, Location: zone(t, "Europe/Berlin")},
			// 2026-10-25: 02:30 CEST, and an hour later 02:30 CET.
			[]retention.Snapshot{
				at(time.Date(2026, 10, 24, 23, 30, 0, 0, time.UTC)), at(time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC)),
				at(time.Date(2026, 10, 25, 1, 30, 0, 0, time.UTC)), at(time.Date(2026, 10, 25, 2, 30, 0, 0, time.UTC)),
			},
		},
		"clocks-set-back-at-midnight": {
			retention.Policy{Daily: 2, MinVerified: 1, Location: zone(t, "America/St_Johns")},
			// 1990-10-28: 00:00:30, set back at 00:01 to the day before, and after midnight again.
			[]retention.Snapshot{
				at(time.Date(1990, 10, 28, 2, 30, 30, 0, time.UTC)), at(time.Date(1990, 10, 28, 3, 0, 0, 0, time.UTC)),
				at(time.Date(1990, 10, 28, 5, 0, 0, 0, time.UTC)), at(time.Date(1990, 10, 26, 5, 0, 0, 0, time.UTC)),
			},
		},
		"turn-of-the-year-by-weeks": {
			retention.Policy{Weekly: 2, Yearly: 1, MinVerified: 1},
			[]retention.Snapshot{
				at(time.Date(2025, 12, 28, 1, 0, 0, 0, time.UTC)), at(time.Date(2025, 12, 29, 1, 0, 0, 0, time.UTC)),
				at(time.Date(2026, 1, 4, 1, 0, 0, 0, time.UTC)),
				at(time.Date(2025, 12, 21, 1, 0, 0, 0, time.UTC)),
			},
		},
		"no-time": {
			retention.Policy{Last: 1}, append(every(3, day), retention.Snapshot{ID: "nonsense", State: backup.Verified}),
		},
		"empty": {retention.Policy{Last: 1}, nil},
		"clock-ten-days-behind": {
			retention.Policy{Last: 3, Daily: 2, MinAge: day}, append(every(4, 6*time.Hour), further(at(now.Add(-10*day)))),
		},
		"one-writer-in-three-behind": { // its days are not its own
			retention.Policy{Daily: 3}, ages(func(i int, s retention.Snapshot) retention.Snapshot {
				if i%3 == 1 {
					s.ID = at(s.ID.Time().Add(-10 * day)).ID
				}
				return s
			}, numbered(every(9, 12*time.Hour))),
		},
		"timelines": {
			retention.Policy{Last: 2, MinVerified: 1}, append(of("t2-bbbbbb", every(3, day)),
				of("t1-aaaaaa", every(4, 2*day))...),
		},
		"timelines-max-bytes": {
			retention.Policy{Last: 3, MinVerified: 1, MaxBytes: 350}, append(of("t2-bbbbbb", every(3, day)),
				of("t1-aaaaaa", every(4, 2*day))...),
		},
		"newest-timeline-is-suspect": {
			retention.Policy{Last: 1}, append(of("t2-bbbbbb", []retention.Snapshot{suspect(at(now.Add(-time.Hour)))}),
				of("t1-aaaaaa", every(3, 2*day))...),
		},
		"unconfirmed": {
			retention.Policy{Last: 1, MinVerified: 2}, ages(func(i int, s retention.Snapshot) retention.Snapshot {
				if i%2 == 0 {
					s.State = backup.Unconfirmed
				}
				return s
			}, every(8, day)),
		},
		"unconfirmed-count": {
			retention.Policy{Last: 1, MinVerified: 2, CountUnconfirmed: true},
			ages(func(i int, s retention.Snapshot) retention.Snapshot {
				if i%2 == 0 {
					s.State = backup.Unconfirmed
				}
				return s
			}, every(5, day)),
		},
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, show(c.policy.Apply(c.all, nil, now))) })
	}
}

// TestApply_Frozen: an older timeline stays as it is until a later one is accepted
// or old.
func TestApply_Frozen(t *testing.T) {
	const day = 24 * time.Hour
	policy := retention.Policy{Last: 1, MaxBytes: 1}
	all := append(of("t3-cccccc", every(2, time.Hour)), of("t2-bbbbbb", []retention.Snapshot{
		at(now.Add(-5 * day)), at(now.Add(-6 * day)),
	})...)
	all = append(all, of("t1-aaaaaa", []retention.Snapshot{
		suspect(at(now.Add(-11 * day))), at(now.Add(-10 * day)), at(now.Add(-12 * day)),
	})...)
	for name, c := range map[string]struct {
		open   []string
		policy func(*retention.Policy)
	}{
		"frozen-none":      {},
		"frozen-by-all":    {open: []string{"t1-aaaaaa", "t2-bbbbbb", "t3-cccccc"}},
		"frozen-by-second": {open: []string{"t2-bbbbbb"}},
		"frozen-no-longer": {open: []string{"t2-bbbbbb"}, policy: func(p *retention.Policy) { p.FreezeFor = 6 * day }},
		"frozen-no-rule":   {open: []string{"t3-cccccc"}, policy: func(p *retention.Policy) { *p = retention.Policy{} }},
	} {
		t.Run(name, func(t *testing.T) {
			p, open := policy, map[string]bool{}
			for _, timeline := range c.open {
				open[timeline] = true
			}
			if c.policy != nil {
				c.policy(&p)
			}
			golden(t, name, show(p.Apply(all, open, now)))
		})
	}
	// The only snapshot of the later timeline has a clock that is behind.
	late := append(of("t2-bbbbbb", []retention.Snapshot{at(now.Add(-60 * day))}), of("t1-aaaaaa", every(3, day))...)
	golden(t, "frozen-by-late-clock", show(policy.Apply(late, map[string]bool{"t2-bbbbbb": true}, now)))
}

func show(all []retention.Decision) string {
	var b strings.Builder
	for _, d := range all {
		what, mark := "remove", ""
		if d.Timeline != "" {
			mark = " " + d.Timeline
		}
		if d.Keep {
			what = "keep"
		}
		if d.State != backup.Verified {
			mark += " " + strings.ToUpper(string(d.State))
		}
		fmt.Fprintf(&b, "%-6s %s%s: %s\n", what, d.ID, mark, strings.Join(d.Reasons, "; "))
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (- want, + got):\n%s", path, diff)
	}
}

func TestPolicy_Check(t *testing.T) {
	for _, good := range []retention.Policy{{}, {Last: 1, MaxBytes: 1}, {MinAge: time.Hour}} {
		if err := good.Check(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for want, bad := range map[string]retention.Policy{
		"keep-daily is negative": {Daily: -1}, "min-age is negative": {Last: 1, MinAge: -1},
		"freeze-for is negative":        {FreezeFor: -1},
		"max-bytes without a keep rule": {MaxBytes: 1},
	} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
}

// TestApply_ChangesNothing: the input is the caller's.
func TestApply_ChangesNothing(t *testing.T) {
	all := every(5, time.Hour)
	slices.Reverse(all)
	before := slices.Clone(all)
	retention.Policy{Last: 1}.Apply(all, nil, now)
	if diff := cmp.Diff(before, all); diff != "" {
		t.Error(diff)
	}
}

// TestApply_Lasting: members have diverged for weeks, and nobody looks. What is stored
// meanwhile does not fill the store, and what was good before stays.
func TestApply_Lasting(t *testing.T) {
	policy := retention.Policy{Last: 3, MinVerified: 2, CountUnconfirmed: false}
	const weeks = 70 * 24 // hours
	trouble := func(change func(i int, s *retention.Snapshot)) (kept []int, verified int) {
		var all []retention.Snapshot
		for i := range weeks + 5 {
			s := at(now.Add(-time.Duration(i) * time.Hour))
			s.Index = uint64(10_000 - i)
			if i < weeks {
				s.State, s.Source, s.Content = backup.Suspect, 1, backup.HashKV{Hash: uint32(i + 1)}
				change(i, &s)
			}
			all = append(all, s)
		}
		for i, d := range policy.Apply(all, nil, now) { // the newest first, as they are
			switch {
			case !d.Keep:
			case d.State == backup.Verified:
				verified++
			default:
				kept = append(kept, i)
			}
		}
		return kept, verified
	}
	same := func(i int, s *retention.Snapshot) {
		s.Index, s.Content = 20_000, backup.HashKV{Hash: 5}
		s.ID = backup.SnapshotID(strings.Replace(string(s.ID), "-r"+fmt.Sprint(s.ID.Revision()), "-r5", 1))
	}
	for name, c := range map[string]struct {
		change      func(i int, s *retention.Snapshot)
		least, most int
	}{
		"Written": {func(int, *retention.Snapshot) {}, 30, 33},
		"TwoMembers": {func(i int, s *retention.Snapshot) {
			s.Source = backup.MemberID(1 + i%2)
		}, 60, 66},
		"Idle": {same, 2, 2},
		"IdleUnconfirmed": {func(i int, s *retention.Snapshot) {
			same(i, s)
			s.State = backup.Unconfirmed
		}, 2, 2},
		"OtherContent": {func(i int, s *retention.Snapshot) { // of the same place in the log
			same(i, s)
			s.Content.Hash += uint32(i % 2)
		}, 4, 4},
		"Unconfirmed": {func(_ int, s *retention.Snapshot) { s.State = backup.Unconfirmed }, weeks, weeks},
		"Unknown":     {func(_ int, s *retention.Snapshot) { s.Source = 0 }, weeks, weeks},
		"IdleUnknown": {func(i int, s *retention.Snapshot) {
			same(i, s)
			s.Source = 0
		}, 2, 2},
		"Pinned": {func(_ int, s *retention.Snapshot) { s.Pinned = "why" }, weeks, weeks},
	} {
		t.Run(name, func(t *testing.T) {
			kept, verified := trouble(c.change)
			if n := len(kept); n < c.least || n > c.most || kept[0] != 0 || kept[n-1] != weeks-1 {
				t.Errorf("%d of %d stay, from %d to %d, want %d to %d and both ends", n, weeks, kept[0], kept[n-1],
					c.least, c.most)
			}
			if want := map[bool]int{true: 3, false: 5}[strings.Contains(name, "nconfirmed")]; verified != want {
				t.Errorf("%d verified ones stay, want %d", verified, want)
			}
		})
	}
}
