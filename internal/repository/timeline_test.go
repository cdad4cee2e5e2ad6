package repository_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

const line3 = "t3-cccccc"

// member is a snapshot of a timeline, taken when the repository held another already.
func member(timeline string, index int, id backup.MemberID, knew string) *backup.Manifest {
	m := manifestOf(timeline, started.Add(time.Duration(index)*time.Minute), backup.Revision(index))
	m.RaftIndex, m.ClusterID, m.NewestTimeline = uint64(index), id, knew
	if timeline != line1 {
		m.Origin = &backup.Origin{Timeline: line1, Snapshot: m.ID, Reason: "its data was lost"}
	}
	return m
}

func accept(t *testing.T, s storage.Store, timeline string) {
	t.Helper()
	if _, err := acceptance.Accept(t.Context(), prod(s), timeline, "it was restored", "op"); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s storage.Store, id backup.MemberID) {
	t.Helper()
	if err := acceptance.Expect(t.Context(), prod(s), id, nil, "a restore makes it", "op"); err != nil {
		t.Fatal(err)
	}
}

// TestTimelines: which history is the present one is known, or it is a question.
func TestTimelines(t *testing.T) {
	old, fresh := member(line1, 10, 1, ""), member(line2, 5, 2, line1)
	for name, c := range map[string]struct {
		all     []*backup.Manifest
		accept  func(t *testing.T, s storage.Store)
		present string // or
		both    bool
		open    []string
	}{
		"None":   {},
		"One":    {all: []*backup.Manifest{old}, present: line1},
		"OldOne": {all: []*backup.Manifest{fresh}, present: line2}, // the first was removed
		"New":    {all: []*backup.Manifest{old, fresh}, open: []string{line2}},
		"NewAccepted": {all: []*backup.Manifest{old, fresh}, present: line2,
			accept: func(t *testing.T, s storage.Store) { accept(t, s, line2) }},
		"NewExpected": {all: []*backup.Manifest{old, fresh}, present: line2,
			accept: func(t *testing.T, s storage.Store) { expect(t, s, 2) }},
		"OtherExpected": {all: []*backup.Manifest{old, fresh}, open: []string{line2},
			accept: func(t *testing.T, s storage.Store) { expect(t, s, 3) }},
		// The cluster that a restore made lost its data, and has its id again.
		"LostAgain": {all: []*backup.Manifest{old, fresh, member(line3, 1, 2, line2)}, open: []string{line3},
			accept: func(t *testing.T, s storage.Store) { expect(t, s, 2) }},
		// A restore cannot announce the id that the cluster has already.
		"SameID": {all: []*backup.Manifest{old, member(line2, 5, 1, line1)}, open: []string{line2},
			accept: func(t *testing.T, s storage.Store) { expect(t, s, 1) }},
		"OldAccepted": {all: []*backup.Manifest{old, fresh}, present: line1,
			accept: func(t *testing.T, s storage.Store) { accept(t, s, line1) }},
		"OldAcceptedOverExpected": {all: []*backup.Manifest{old, fresh}, present: line1,
			accept: func(t *testing.T, s storage.Store) { expect(t, s, 2); accept(t, s, line1) }},
		"ChangedMind": {all: []*backup.Manifest{old, fresh}, present: line2,
			accept: func(t *testing.T, s storage.Store) { accept(t, s, line1); accept(t, s, line2) }},
		"Both": {all: []*backup.Manifest{old, fresh, member(line1, 11, 1, line2)}, both: true, open: []string{line2}},
		// Two writers saw the new history at the same moment.
		"Twins": {open: []string{line2, "t2-dddddd"}, all: []*backup.Manifest{
			old, fresh, member("t2-dddddd", 5, 2, line1), member("t2-dddddd", 6, 2, "t2-dddddd")}},
		"BothAccepted": {all: []*backup.Manifest{old, fresh, member(line1, 11, 1, line2)}, present: line2,
			accept: func(t *testing.T, s storage.Store) { accept(t, s, line2) }},
		"OneGoesOnAgain": {all: []*backup.Manifest{old, fresh}, both: true,
			accept: func(t *testing.T, s storage.Store) {
				accept(t, s, line2)
				addSnapshot(t, s, member(line1, 11, 1, line2))
			}},
		"ExpectedAndOldGoesOn": {all: []*backup.Manifest{old, fresh}, both: true,
			accept: func(t *testing.T, s storage.Store) {
				expect(t, s, 2)
				addSnapshot(t, s, member(line1, 11, 1, line2))
			}},
		// A snapshot from before the new history, which had waited for its store.
		"LateOfTheOld": {all: []*backup.Manifest{old, fresh}, present: line2,
			accept: func(t *testing.T, s storage.Store) {
				accept(t, s, line2)
				addSnapshot(t, s, member(line1, 11, 1, line1))
			}},
		"EndedGoesOn": {all: []*backup.Manifest{old, fresh}, both: false, open: []string{line2},
			accept: func(t *testing.T, s storage.Store) {
				accept(t, s, line1)
				addSnapshot(t, s, member(line2, 6, 2, line2))
			}},
		// The id came back by the token, with a database that was not restored.
		"ExpectedOtherContent": {all: []*backup.Manifest{old, fresh}, open: []string{line2},
			accept: func(t *testing.T, s storage.Store) {
				if err := acceptance.Expect(t.Context(), prod(s), 2, old, "a restore makes it", "op"); err != nil {
					t.Fatal(err)
				}
			}},
		"ExpectedContent": {all: []*backup.Manifest{old, member(line2, 12, 2, line1)}, present: line2,
			accept: func(t *testing.T, s storage.Store) {
				if err := acceptance.Expect(t.Context(), prod(s), 2, old, "a restore makes it", "op"); err != nil {
					t.Fatal(err)
				}
			}},
		"HeadOfEndedRemoved": {all: []*backup.Manifest{member(line1, 9, 1, ""), old, fresh}, present: line2,
			accept: func(t *testing.T, s storage.Store) {
				accept(t, s, line2)
				if err := s.Delete(t.Context(), old.Key()); err != nil {
					t.Fatal(err)
				}
			}},
		"DamagedAcceptance": {all: []*backup.Manifest{old, fresh}, open: []string{line2},
			accept: func(t *testing.T, s storage.Store) { create(t, s, "prod/timelines/"+line2+".json", []byte("x")) }},
		"Third": {all: []*backup.Manifest{old, fresh}, open: []string{line3},
			accept: func(t *testing.T, s storage.Store) {
				accept(t, s, line2)
				addSnapshot(t, s, member(line3, 1, 3, line2))
			}},
		"SecondOfThree": {all: []*backup.Manifest{old, fresh, member(line3, 1, 3, line2)}, present: line2,
			accept: func(t *testing.T, s storage.Store) { accept(t, s, line2) }},
		"TwoOpen": {all: []*backup.Manifest{old, fresh, member(line3, 1, 3, line2)}, open: []string{line2, line3}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			for _, m := range c.all {
				addSnapshot(t, s, m)
			}
			if c.accept != nil {
				c.accept(t, s)
			}
			all, err := repository.ReadTimelines(t.Context(), prod(s))
			if err != nil {
				t.Fatal(err)
			}
			present, err := all.Present()
			var question *repository.HistoryError
			switch {
			case c.present != "" && (err != nil || present.Name != c.present):
				t.Errorf("present is %+v, %v", present, err)
			case c.present == "" && len(c.all) > 0 && (!errors.As(err, &question) || question.Both != c.both ||
				!errors.Is(err, backup.ErrCorrupt)):
				t.Errorf("got %v", err)
			}
			var open []string
			for name, is := range all.Open() {
				if is {
					open = append(open, name)
				}
			}
			if slices.Sort(open); !slices.Equal(open, c.open) {
				t.Errorf("open are %v, want %v", open, c.open)
			}
			o := look(t, prod(s), 1, later())
			if _, again := o.Timelines.Present(); fmt.Sprint(again) != fmt.Sprint(err) {
				t.Errorf("a look says %v", again)
			}
			wantLatest(t, s, present, err)
		})
	}
}

// wantLatest wants latest to be the furthest of the present history, or to be refused
// with one snapshot of each.
func wantLatest(t *testing.T, s storage.Store, present *repository.Timeline, question error) {
	t.Helper()
	i, err := choice.Choose(t.Context(), prod(s), choice.Latest, choice.Allow{}, later())
	var several *choice.Error
	switch {
	case present == nil:
		if !errors.As(err, new(*repository.NotFoundError)) {
			t.Errorf("latest: got %v", err)
		}
	case question == nil:
		if err != nil || i.ID != present.Head.ID {
			t.Errorf("latest is %v, %v, want %v", i.ID, err, present.Head.ID)
		}
	case !errors.As(err, &several) || !errors.As(err, new(*backup.RefusedError)) || len(several.Others) < 2:
		t.Errorf("latest: got %v", err)
	}
}

// TestAccept_Interrupted: an acceptance that is interrupted anywhere accepts nothing
// wrong, and can be repeated.
func TestAccept_Interrupted(t *testing.T) {
	for n := 0; ; n++ {
		s := mem.New()
		addSnapshot(t, s, member(line1, 10, 1, ""))
		addSnapshot(t, s, member(line2, 5, 2, line1))
		accept(t, s, line1)
		faulty := storagetest.FailAt(s, n, storagetest.After, errFault)
		_, err := acceptance.Accept(t.Context(), prod(faulty), line2, "changed my mind", "op")
		all, rerr := repository.ReadTimelines(t.Context(), prod(s))
		if rerr != nil {
			t.Fatal(rerr)
		}
		present, question := all.Present()
		if !faulty.Fired() {
			if err != nil || question != nil || present.Name != line2 || n < 5 {
				t.Errorf("%d operations: %v, %v", n, err, question)
			}
			return
		}
		if err == nil {
			t.Errorf("operation %d: no error", n)
		}
		if len(all.Live()) == 0 || question == nil && present.Name == line2 && !errors.Is(err, errFault) {
			t.Errorf("operation %d: %v", n, all)
		}
		accept(t, s, line2)
	}
}

func TestAccept_Unknown(t *testing.T) {
	s := mem.New()
	addSnapshot(t, s, member(line1, 10, 1, ""))
	before := keys(t, s)
	if _, err := acceptance.Accept(t.Context(), prod(s), line2, "x", ""); !errors.As(err,
		new(*repository.NotFoundError)) {
		t.Errorf("got %v", err)
	}
	if _, err := acceptance.Accept(t.Context(), prod(s), line1, " ", ""); err == nil {
		t.Error("accepted without a reason")
	}
	if after := keys(t, s); !slices.Equal(before, after) {
		t.Errorf("got %v", after)
	}
}

// TestTimelines_Order: whatever the clocks say, the snapshots of a timeline are in the
// order of the raft index, and timelines in that of their numbers.
func TestTimelines_Order(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := mem.New()
		furthest := map[string]*backup.Manifest{}
		for n := range rapid.IntRange(1, 8).Draw(rt, "snapshots") {
			m := member(rapid.SampledFrom([]string{line1, line2, line3, "t10-aaaaaa"}).Draw(rt, "timeline"), n+1, 1, "")
			m.ID = backup.NewDataName(started.Add(time.Duration(rapid.IntRange(-300, 300).Draw(rt, "hours")) * time.Hour)).
				WithRevision(m.Revision)
			addSnapshot(t, s, m)
			furthest[m.Timeline] = m
		}
		all, err := repository.ReadTimelines(t.Context(), prod(s))
		if err != nil || len(all) != len(furthest) {
			rt.Fatalf("got %v, %v", all, err)
		}
		for n, l := range all {
			if want := furthest[l.Name]; l.Head.ID != want.ID || l.Manifest.ID != want.ID {
				rt.Fatalf("%s: got %v, want %v", l.Name, l.Head.ID, want.ID)
			}
			if n > 0 && backup.TimelineNumber(all[n-1].Name) < backup.TimelineNumber(l.Name) {
				rt.Fatalf("%s comes after %s", l.Name, all[n-1].Name)
			}
		}
	})
}

// TestHistoryError: the words name what an operator must know.
func TestHistoryError(t *testing.T) {
	s := mem.New()
	addSnapshot(t, s, member(line1, 10, 0xa, ""))
	addSnapshot(t, s, member(line2, 5, 0xb, line1))
	question := func() string {
		all, err := repository.ReadTimelines(t.Context(), prod(s))
		if err != nil {
			t.Fatal(err)
		}
		_, err = all.Present()
		return err.Error()
	}
	for _, want := range []string{line1, line2, "-r10-", "-r5-", "its data was lost", "nobody has accepted"} {
		if got := question(); !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	addSnapshot(t, s, member(line1, 11, 0xa, line2))
	for _, want := range []string{"two clusters are backed up under the name prod", "cluster id a", "cluster id b"} {
		if got := question(); !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}
