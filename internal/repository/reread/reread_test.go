package reread_test

import (
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/reread"
	"github.com/etcd-backupd/backupd/internal/storage"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// taken is a snapshot that was begun then.
func taken(at time.Time, index int) repository.Item {
	name := backup.NewDataName(at)
	return repository.Item{
		Cluster: "prod", ID: name.WithRevision(backup.Revision(index)), Name: name, Exists: true,
		Timeline: "t1-aaaaaa", Index: uint64(index), Taken: backup.Verified,
		Data: []storage.Object{{Key: "prod/data/" + string(name) + ".db.zst", Size: 100}},
	}
}

// mark notes a verification, as [repository.Marks.Verified] does.
func mark(i *repository.Item, kind backup.MarkKind, at time.Time) {
	i.Verifications = []backup.Key{{
		Cluster: "prod", Kind: backup.KindMark, ID: i.ID, Mark: kind, Stamp: backup.TimeOf(at),
	}}
}

func encrypt(i *repository.Item) { i.Data[0].Key += ".age" }

// TestNext_All: a snapshot every hour, a verification every day, and every snapshot that is
// kept for long is read again and again, while the newest ones have turns as well.
func TestNext_All(t *testing.T) {
	const days, kept = 120, 20
	var items []repository.Item // one a day is kept, and all of the last day
	reads, fresh := map[backup.SnapshotID]int{}, 0
	now := noon
	for hour := range days * 24 {
		now = now.Add(time.Hour)
		items = append(items, taken(now, hour+1))
		for n := 0; n < len(items); n++ {
			age, hours := now.Sub(items[n].ID.Time()), items[n].ID.Time().Hour()
			if age > kept*24*time.Hour || age > 24*time.Hour && hours != 0 {
				if age > kept*24*time.Hour && reads[items[n].ID] == 0 && hour > 3*kept*24 {
					t.Errorf("%s was kept for %d days and never read again", items[n].ID, kept)
				}
				items = append(items[:n], items[n+1:]...)
				n--
			}
		}
		if hour%12 != 0 { // two a day: the kept ones have one of them
			continue
		}
		next := reread.Policy{}.Next(items, now)
		if next.ID == items[len(items)-1].ID {
			fresh++
		}
		for n := range items {
			if items[n].ID == next.ID {
				mark(&items[n], backup.MarkVerified, now)
			}
		}
		reads[next.ID]++
	}
	if fresh < days*8/10 {
		t.Errorf("the newest had %d turns in %d days", fresh, days)
	}
}

// TestNext: whose turn it is.
func TestNext(t *testing.T) {
	ago := func(hours int) time.Time { return noon.Add(-time.Duration(hours) * time.Hour) }
	a, b, c := taken(ago(30), 1), taken(ago(20), 2), taken(ago(10), 3)
	suspect := taken(ago(1), 9)
	suspect.Taken = backup.Suspect
	rest := taken(ago(1), 9)
	rest.Exists = false
	verified := func(i repository.Item, hours int) repository.Item {
		mark(&i, backup.MarkVerified, ago(hours))
		return i
	}
	back := func(i repository.Item, hours int) repository.Item {
		i.Data = []storage.Object{i.Data[0]}
		encrypt(&i)
		mark(&i, backup.MarkReadBack, ago(hours))
		return i
	}
	ahead := taken(noon.Add(time.Hour), 2)
	type items = []repository.Item
	for name, x := range map[string]struct {
		items    items
		decrypts bool
		want     *repository.Item
	}{
		"Nothing":                   {nil, false, nil},
		"OnlySuspectOrRests":        {items{suspect, rest}, false, nil},
		"NewestFirst":               {items{a, b, c, suspect}, false, &c},
		"ThenOldest":                {items{a, b, verified(c, 9)}, false, &a},
		"ThenANewOne":               {items{verified(a, 8), b, c}, false, &c},
		"NoNewOne":                  {items{verified(a, 8), b, verified(c, 9)}, false, &b},
		"AllRead":                   {items{verified(a, 8), verified(b, 7), verified(c, 9)}, false, &c},
		"TheOrderOfHistoryCounts":   {items{c, a, b}, false, &c},
		"WithinOneSecond":           {items{b, verified(c, 20)}, false, &b},
		"FromTheFuture":             {items{a, ahead, verified(c, 9)}, false, &ahead},
		"AMarkFromTheFutureIsNone":  {items{a, verified(c, -1)}, false, &c},
		"ReadBackIsAll":             {items{a, back(c, 9)}, false, &a},
		"ReadBackIsNotAll":          {items{a, back(c, 9)}, true, &c},
		"OneOlderReadAfterTheOther": {items{verified(a, 8), verified(b, 9), c}, false, &c},
	} {
		got := reread.Policy{Decrypts: x.decrypts}.Next(x.items, noon)
		if (got == nil) != (x.want == nil) || got != nil && got.ID != x.want.ID {
			t.Errorf("%s: got %v, want %v", name, got, x.want)
		}
	}
}

// TestToday: what was read on a day of UTC, whatever was read of it.
func TestToday(t *testing.T) {
	a, b, c := taken(noon, 1), taken(noon, 2), taken(noon, 3)
	mark(&a, backup.MarkVerified, reread.Day(noon))
	mark(&b, backup.MarkReadBack, noon)
	mark(&c, backup.MarkVerified, reread.Day(noon).Add(-time.Second))
	items := []repository.Item{a, b, c}
	if got := reread.Today(items, noon); got != 200 {
		t.Errorf("got %d bytes", got)
	}
	p := reread.Policy{BytesPerDay: 250}
	for used, want := range map[int64]bool{0: true, 150: true, 151: false, 900: false} {
		if p.Affords(&a, used) != want {
			t.Errorf("after %d bytes: %v", used, !want)
		}
	}
	if p.BytesPerDay = 1; !p.Affords(&a, 0) || p.Affords(&a, 1) {
		t.Error("the first of a day may have any size")
	}
	if (reread.Policy{}).Affords(&a, 1<<60) != true {
		t.Error("a limit without a limit")
	}
}

// TestDeadline: from when on verifications are missing.
func TestDeadline(t *testing.T) {
	older, newer := taken(noon.Add(-100*time.Hour), 1), taken(noon, 2)
	items := []repository.Item{newer, older}
	p := reread.Policy{Longest: 10 * time.Hour}
	want := func(when string, p reread.Policy, last, want time.Time) {
		t.Helper()
		if got := p.Deadline(items, last, noon); !got.Equal(want) {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
	}
	limit := 20*time.Hour + time.Minute
	want("no schedule", reread.Policy{}, noon, time.Time{})
	want("never verified", p, time.Time{}, older.ID.Time().Add(limit))
	want("known here alone", p, noon.Add(-time.Hour), noon.Add(-time.Hour).Add(limit))
	want("a clock was ahead", p, noon.Add(time.Hour), older.ID.Time().Add(limit))
	mark(&items[0], backup.MarkVerified, noon.Add(-time.Minute))
	want("by a mark", p, noon.Add(-time.Hour), noon.Add(-time.Minute).Add(limit))
	p.BytesPerDay = 1
	want("the budget may be used", p, time.Time{}, noon.Add(-time.Minute).Add(limit+24*time.Hour))
	items = nil
	want("nothing to verify", p, noon, time.Time{})
}
