package copies_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/copies"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

// TestCopy: the newest is copied first, byte for byte, with its companions and its pin, and
// a second run has nothing to do.
func TestCopy(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	old, mid, top := add(t, from, 1), add(t, from, 2, withFiles), add(t, from, 3)
	pin := mark(t, from, backup.MarkPin, mid.ID, "before the upgrade")
	mark(t, from, backup.MarkVerified, top.ID, "everything was read there")
	mark(t, from, backup.MarkReadBack, mid.ID, "the bytes were read there")
	before := keys(t, from)
	c := copier(from, to)
	p := plan(t, c)
	want := top.Stored.Bytes + 2*mid.Stored.Bytes + old.Stored.Bytes
	if got := ids(p.Missing); !slices.Equal(got, idsOf(top, mid, old)) || p.Bytes() != want || p.Held != 0 {
		t.Errorf("got %v, %d bytes, %d held", got, p.Bytes(), p.Held)
	}
	if got := keys(t, to); len(got) != 1 {
		t.Errorf("a plan changes something: %v", got)
	}
	r := copyAll(t, c)
	if got := ids(r.Copied); !slices.Equal(got, idsOf(top, mid, old)) || r.Bytes != want || len(r.LeftOut) != 0 {
		t.Errorf("got %+v", r)
	}
	if got := whole(t, to); !slices.Equal(got, idsOf(old, mid, top)) {
		t.Errorf("got %v", got)
	}
	for _, key := range append([]string{pin, old.Key(), mid.Key(), top.Key(), mid.FilesKey()}, mid.DataKey()) {
		if !bytes.Equal(read(t, from, key), read(t, to, key)) {
			t.Errorf("%s has other bytes", key)
		}
	}
	for _, key := range keys(t, to) { // the bytes there were not verified then
		if strings.Contains(key, string(backup.MarkVerified)) || strings.Contains(key, string(backup.MarkReadBack)) {
			t.Errorf("%s states something that nobody has looked at", key)
		}
	}
	if got := keys(t, from); !slices.Equal(got, before) {
		t.Errorf("the source has changed: %v", got)
	}
	again := plan(t, c)
	if len(again.Missing)+len(again.LeftOut)+len(again.Pins) != 0 || again.Held != 3 {
		t.Errorf("again: %+v", again)
	}
}

// TestCopy_Trace compares the operations of one copy with a golden file.
func TestCopy_Trace(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1, withFiles)
	mark(t, from, backup.MarkPin, m.ID, "before the upgrade")
	var rec record
	c := copier(from.through(rec.of("source", from.Store)), to.through(rec.of("destination", to.Store)))
	copyAll(t, c)
	storagetest.Golden(t, "copy.trace", storagetest.Generic(strings.Join(rec.lines, "\n")+"\n"), *update)
}

// TestCopy_Bounded: 10,000 snapshots against 9,990 of them.
func TestCopy_Bounded(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	for n := range 10_000 {
		m := add(t, from, n)
		if n < 9_990 {
			create(t, to, m.DataKey(), read(t, from, m.DataKey()))
			create(t, to, m.Key(), read(t, from, m.Key()))
		}
	}
	var rec record
	c := copier(from.through(rec.of("source", from.Store)), to.through(rec.of("destination", to.Store)))
	p := plan(t, c)
	lists, opens, stats := rec.count("source list")+rec.count("destination list"),
		rec.count("source open")+rec.count("destination open"), rec.count("source stat")+rec.count("destination stat")
	if len(p.Missing) != 10 || p.Held != 9_990 || lists > 8 || opens > 4 || stats > 0 {
		t.Errorf("%d missing, %d held: %d lists, %d opens, %d stats", len(p.Missing), p.Held, lists, opens, stats)
	}
	if _, err := c.Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	all := len(rec.lines)
	if got := rec.count("source list") + rec.count("destination list"); got != lists || all > lists+opens+10*14+1 {
		t.Errorf("%d lists, %d operations\n%s", got, all, strings.Join(rec.lines[max(0, all-30):], "\n"))
	}
}

// TestCopy_States: what is not verified is copied if it is asked for, and is reported
// otherwise; and it stays what it was.
func TestCopy_States(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	good, u, s, d := add(t, from, 1), add(t, from, 2, unconfirmed), add(t, from, 3, suspect), add(t, from, 4)
	damaged := mark(t, from, backup.MarkDamaged, d.ID, "content differs")
	c := copier(from, to)
	r := copyAll(t, c)
	leftOut(t, r.LeftOut, copies.ByState, copies.ByState, copies.ByState)
	for n, words := range []string{"damaged: ", "suspect", "unconfirmed"} {
		if !strings.HasPrefix(r.LeftOut[n].Reason, words) {
			t.Errorf("got %q, want %s", r.LeftOut[n].Reason, words)
		}
	}
	if got := whole(t, to); !slices.Equal(got, idsOf(good)) {
		t.Errorf("got %v", got)
	}
	c.Also = []backup.State{backup.Unconfirmed, backup.Suspect, backup.Damaged}
	var rec record
	c.To = to.through(rec.of("to", to.Store)).prod()
	leftOut(t, copyAll(t, c).LeftOut)
	if got := whole(t, to); !slices.Equal(got, idsOf(good, u, s, d)) {
		t.Errorf("got %v", got)
	}
	// At no moment it looks like a good one.
	marked, made := slices.Index(rec.lines, "to create "+damaged), slices.Index(rec.lines, "to create "+d.Key())
	if marked > made || !has(t, to, damaged) {
		t.Errorf("the mark comes too late: %v", rec.lines)
	}
	item, err := to.prod().Item(t.Context(), d.ID)
	if err != nil || item.State() != backup.Damaged {
		t.Errorf("got %v, %v", item.State(), err)
	}
	leftOut(t, copyAll(t, c).LeftOut)
	c.Also = nil
	leftOut(t, copyAll(t, c).LeftOut, copies.ByState)
}

// TestCopy_LaterMarks: a pin follows; damage that is found at the source later says nothing
// of the copy, which may be the last good one.
func TestCopy_LaterMarks(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1)
	c := copier(from, to)
	copyAll(t, c)
	pin := mark(t, from, backup.MarkPin, m.ID, "before the upgrade")
	damaged := mark(t, from, backup.MarkDamaged, m.ID, "the disk has lost it")
	if r := copyAll(t, c); len(r.Pins) != 1 || r.Pins[0].String() != pin || !has(t, to, pin) || has(t, to, damaged) {
		t.Errorf("got %+v, %v", r, keys(t, to))
	}
	if err := from.Delete(t.Context(), pin); err != nil {
		t.Fatal(err)
	}
	if copyAll(t, c); !has(t, to, pin) {
		t.Error("the pin of the copy is gone because the first one is")
	}
}

// denied is a store that does not give one object.
type denied struct {
	storage.Store
	key string
}

func (d *denied) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == d.key {
		return nil, fmt.Errorf("open %s: %w", key, fs.ErrPermission)
	}
	return d.Store.Open(ctx, key, offset, length)
}

// TestCopy_PinWithheld: a pin that the source does not give holds up nothing else, and is told.
func TestCopy_PinWithheld(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	held := add(t, from, 2)
	copyAll(t, copier(from, to))
	older, newer := add(t, from, 1), add(t, from, 3)
	pin := mark(t, from, backup.MarkPin, newer.ID, "before the upgrade")
	r := copyAll(t, copier(from.through(&denied{from.Store, pin}), to))
	leftOut(t, r.LeftOut, copies.Withheld)
	if got := ids(r.Copied); !slices.Equal(got, idsOf(older)) || has(t, to, newer.Key()) {
		t.Errorf("got %v", got)
	}

	pin = mark(t, from, backup.MarkPin, held.ID, "before the upgrade")
	c := copier(from.through(&denied{from.Store, pin}), to)
	r, err := c.Run(t.Context(), plan(t, c))
	if err == nil || !strings.Contains(err.Error(), string(held.ID)) {
		t.Errorf("got %v", err)
	}
	if got := ids(r.Copied); !slices.Equal(got, idsOf(newer)) || len(r.Pins) != 0 {
		t.Errorf("got %v, %v", got, r.Pins)
	}
}

// TestCopy_PinTakenForLitter: a prune that saw the pin and no data yet removes it just before
// the manifest is made. When the copy is told as done the pin is there.
func TestCopy_PinTakenForLitter(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1)
	pin := mark(t, from, backup.MarkPin, m.ID, "before the upgrade")
	hook := &storagetest.Hook{Store: to.Store, Before: func(ctx context.Context, op storage.Op, key string) error {
		if op != storage.OpCreate || key != m.Key() {
			return nil
		}
		if !has(t, to, pin) {
			t.Error("it is not pinned before it exists")
		}
		return to.Delete(ctx, pin)
	}}
	if copyAll(t, copier(from, to.through(hook))); !has(t, to, pin) {
		t.Error("the pin is gone")
	}
	to = newPlace(t) // and right after it was made
	hook = &storagetest.Hook{Store: to.Store, After: func(ctx context.Context, op storage.Op, key string) error {
		if op != storage.OpCreate || key != pin || has(t, to, m.Key()) {
			return nil
		}
		return to.Delete(ctx, pin)
	}}
	if copyAll(t, copier(from, to.through(hook))); !has(t, to, pin) {
		t.Error("the pin is gone")
	}
}

// TestCopy_PinNotKept: a destination that never keeps a pin is a failure, and not a copy
// without one.
func TestCopy_PinNotKept(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1)
	pin := mark(t, from, backup.MarkPin, m.ID, "before the upgrade")
	hook := &storagetest.Hook{Store: to.Store, After: func(ctx context.Context, op storage.Op, key string) error {
		if op != storage.OpCreate || key != pin {
			return nil
		}
		return to.Delete(ctx, pin)
	}}
	c := copier(from, to.through(hook))
	if r, err := c.Run(t.Context(), plan(t, c)); !errors.As(err, new(*storage.NotKeptError)) || len(r.Copied) != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	whole(t, to)
}

// TestCopy_Chosen: by time and by id.
func TestCopy_Chosen(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	old, mid, top := add(t, from, 1), add(t, from, 2), add(t, from, 3)
	c := copier(from, to)
	c.Since = mid.ID.Time()
	if got := ids(plan(t, c).Missing); !slices.Equal(got, idsOf(top, mid)) {
		t.Errorf("since: %v", got)
	}
	c.Since, c.Only = time.Time{}, old.ID
	if got := ids(copyAll(t, c).Copied); !slices.Equal(got, idsOf(old)) {
		t.Errorf("only: %v", got)
	}
	c.Only = "20200101T000000Z-r1-aaaaaa"
	if _, err := c.Plan(t.Context(), now()); !errors.As(err, new(*repository.NotFoundError)) {
		t.Errorf("got %v", err)
	}
}

// TestCopy_Removed: what the destination has removed on purpose does not come back by
// itself, and does if it is asked for by its id.
func TestCopy_Removed(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1)
	mark(t, to, backup.MarkRemoved, m.ID, "retention: no rule keeps it")
	c := copier(from, to)
	r := copyAll(t, c)
	leftOut(t, r.LeftOut, copies.Removed)
	create(t, to, m.DataKey(), read(t, from, m.DataKey())) // its removal is not over
	c.Only = m.ID
	leftOut(t, copyAll(t, c).LeftOut, copies.Waiting)
	if err := to.Delete(t.Context(), m.DataKey()); err != nil {
		t.Fatal(err)
	}
	leftOut(t, copyAll(t, c).LeftOut)
	if got := whole(t, to); !slices.Equal(got, idsOf(m)) {
		t.Errorf("got %v", got)
	}
}

// TestCopy_RemovedMeanwhile: a prune of either side comes between the plan and its run.
func TestCopy_RemovedMeanwhile(t *testing.T) {
	t.Run("Source", func(t *testing.T) {
		from, to := newPlace(t), newPlace(t)
		gone, half, m := add(t, from, 1), add(t, from, 2), add(t, from, 3)
		c := copier(from, to)
		p := plan(t, c)
		for _, key := range []string{gone.Key(), gone.DataKey(), half.DataKey()} {
			if err := from.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		r, err := c.Run(t.Context(), p)
		if err != nil || !slices.Equal(ids(r.Copied), idsOf(m)) {
			t.Errorf("got %+v, %v", r, err)
		}
		leftOut(t, r.LeftOut, copies.Damaged, copies.Removed)
	})
	t.Run("Destination", func(t *testing.T) {
		from, to := newPlace(t), newPlace(t)
		m := add(t, from, 1)
		c := copier(from, to)
		p := plan(t, c)
		mark(t, to, backup.MarkRemoved, m.ID, "by hand")
		r, err := c.Run(t.Context(), p)
		if err != nil || has(t, to, m.Key()) {
			t.Errorf("got %+v, %v", r, err)
		}
		leftOut(t, r.LeftOut, copies.Removed)
	})
	// Another run has copied it, and a prune has removed the manifest and is about to remove
	// the data.
	t.Run("DestinationAtLast", func(t *testing.T) {
		from, to := newPlace(t), newPlace(t)
		m := add(t, from, 1)
		hook := &storagetest.Hook{Store: to.Store}
		hook.Before = func(_ context.Context, op storage.Op, key string) error {
			if op == storage.OpCreate && key == m.Key() {
				mark(t, to, backup.MarkRemoved, m.ID, "retention: no rule keeps it")
			}
			return nil
		}
		hook.After = func(ctx context.Context, op storage.Op, key string) error {
			if op == storage.OpCreate && key == m.Key() {
				return to.Delete(ctx, m.DataKey())
			}
			return nil
		}
		leftOut(t, copyAll(t, copier(from, to.through(hook))).LeftOut, copies.Removed)
		if len(whole(t, to)) > 0 {
			t.Error("it exists")
		}
	})
	t.Run("ReplacedDuringData", func(t *testing.T) {
		from, to := newPlace(t), newPlace(t)
		m := add(t, from, 1)
		hook := &storagetest.Hook{Store: to.Store, After: func(_ context.Context, op storage.Op, key string) error {
			if op != storage.OpCreate || key != m.DataKey() {
				return nil
			}
			return to.Delete(t.Context(), backup.MarkerKey)
		}}
		c := copier(from, to.through(hook))
		var absent *repository.AbsentError
		if _, err := c.Run(t.Context(), plan(t, c)); !errors.As(err, &absent) || has(t, to, m.Key()) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("Replaced", func(t *testing.T) {
		from, to := newPlace(t), newPlace(t)
		m := add(t, from, 1)
		c := copier(from, to)
		p := plan(t, c)
		if err := to.Delete(t.Context(), backup.MarkerKey); err != nil {
			t.Fatal(err)
		}
		at(t, to.Store)
		var absent *repository.AbsentError
		if _, err := c.Run(t.Context(), p); !errors.As(err, &absent) || has(t, to, m.DataKey()) {
			t.Errorf("got %v", err)
		}
	})
}

// TestCopy_Leftover: data that an interrupted run has left is used if its bytes are the
// same, and never overwritten.
func TestCopy_Leftover(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	same, short, other, extra := add(t, from, 1), add(t, from, 2), add(t, from, 3), add(t, from, 4)
	create(t, to, same.DataKey(), read(t, from, same.DataKey()))
	create(t, to, short.DataKey(), []byte("cut"))
	changed := bytes.ToUpper(read(t, from, other.DataKey()))
	create(t, to, other.DataKey(), changed)
	foreign := add(t, from, 5)
	create(t, to, foreign.DataKey()+".zst", []byte("of somebody else"))
	var rec record
	c := copier(from.through(rec.of("from", from.Store)), to)
	r := copyAll(t, c)
	if got := ids(r.Copied); !slices.Equal(got, idsOf(extra, same)) {
		t.Errorf("got %v", got)
	}
	leftOut(t, r.LeftOut, copies.Differs, copies.Differs, copies.Differs)
	if has(t, to, foreign.Key()) {
		t.Error("it has data of somebody else")
	}
	if n := rec.count("from open " + same.DataKey()); n != 0 {
		t.Error("it was read again")
	}
	if !bytes.Equal(read(t, to, other.DataKey()), changed) {
		t.Error("it was overwritten")
	}
	whole(t, to)
}

// aged is a store that says that some objects are older than they are.
func aged(s storage.Store, part string) storage.Store { return &agedStore{s, part} }

type agedStore struct {
	storage.Store
	part string
}

func (a *agedStore) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := a.Store.Stat(ctx, key)
	if strings.Contains(key, a.part) {
		o.ModTime = o.ModTime.Add(-13 * time.Hour)
	}
	return o, err
}

// TestCopy_Litter: data that a prune may remove at any moment gets no manifest.
func TestCopy_Litter(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1)
	create(t, to, m.DataKey(), read(t, from, m.DataKey()))
	mark(t, to, backup.MarkLitter, m.ID, "no manifest names it")
	r := copyAll(t, copier(from, to.through(aged(to.Store, ".litter.json"))))
	leftOut(t, r.LeftOut, copies.Waiting)
	if has(t, to, m.Key()) {
		t.Error("it exists")
	}
	leftOut(t, copyAll(t, copier(from, to)).LeftOut) // the mark is young: a day is left
	whole(t, to)
}

// TestCopy_Differs: what has the same name at both places, and is not the same, is named.
func TestCopy_Differs(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	name, size, state, meanwhile, good := add(t, from, 1), add(t, from, 2), add(t, from, 3), add(t, from, 4),
		add(t, from, 5)
	for _, m := range []*backup.Manifest{name, size, state} {
		there := *m
		data := read(t, from, m.DataKey())
		switch m {
		case name:
			there.RaftIndex++
		case state:
			suspect(&there)
		case size:
			data = data[1:]
		}
		create(t, to, m.DataKey(), data)
		create(t, to, there.Key(), marshal(t, &there))
	}
	c := copier(from, to)
	p := plan(t, c)
	leftOut(t, p.LeftOut, copies.Differs, copies.Differs, copies.Differs)
	if !strings.Contains(p.LeftOut[2].Reason, name.Key()) || !strings.Contains(p.LeftOut[2].Reason, ".t1-aaaaaa.3.json") {
		t.Errorf("both must be named: %s", p.LeftOut[2].Reason)
	}
	other := *meanwhile
	other.Tool = "somebody else"
	create(t, to, meanwhile.DataKey(), read(t, from, meanwhile.DataKey()))
	create(t, to, meanwhile.Key(), marshal(t, &other))
	r, err := c.Run(t.Context(), p)
	if err != nil || !slices.Equal(ids(r.Copied), idsOf(good)) {
		t.Errorf("got %+v, %v", r, err)
	}
	leftOut(t, r.LeftOut, copies.Differs, copies.Differs, copies.Differs, copies.Differs)
	if !bytes.Equal(read(t, to, meanwhile.Key()), marshal(t, &other)) {
		t.Error("it was overwritten")
	}
}

// TestCopy_DamagedThere: a copy that is damaged is no copy, and nobody hears that all is
// well.
func TestCopy_DamagedThere(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	marked, lost := add(t, from, 1), add(t, from, 2, withFiles)
	c := copier(from, to)
	copyAll(t, c)
	mark(t, to, backup.MarkDamaged, marked.ID, "bytes changed")
	if err := to.Delete(t.Context(), lost.FilesKey()); err != nil {
		t.Fatal(err)
	}
	p := plan(t, c)
	leftOut(t, p.LeftOut, copies.Damaged, copies.Damaged)
	if p.Held != 0 {
		t.Errorf("got %+v", p)
	}
}

// TestCopy_NoSnapshotNamesIt: data of the source that its manifest does not name is not copied,
// and so not missing in the copy.
func TestCopy_NoSnapshotNamesIt(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	m := add(t, from, 1)
	create(t, from, strings.TrimSuffix(m.DataKey(), ".db")+".files.tar", []byte("of nobody"))
	c := copier(from, to)
	copyAll(t, c)
	p := plan(t, c)
	leftOut(t, p.LeftOut)
	if p.Held != 1 {
		t.Errorf("got %+v", p)
	}
}

// flipped changes one byte of an object on its way, as often as times says.
func flipped(key string, times int) func(context.Context, string, int64, io.Reader) io.Reader {
	return func(_ context.Context, k string, _ int64, r io.Reader) io.Reader {
		if k != key || times == 0 {
			return r
		}
		times--
		raw, _ := io.ReadAll(r)
		raw[0] ^= 1
		return bytes.NewReader(raw)
	}
}

// TestCopy_ChangedOnTheWay: bytes that are not those of the manifest are read once more, and
// never stored.
func TestCopy_ChangedOnTheWay(t *testing.T) {
	for _, times := range []int{1, 99} {
		from, to := newPlace(t), newPlace(t)
		bad, good := add(t, from, 2), add(t, from, 1)
		hook := &storagetest.Hook{Store: from.Store, Download: flipped(bad.DataKey(), times)}
		r := copyAll(t, copier(from.through(hook), to))
		want := idsOf(bad, good)
		if times > 1 {
			want = idsOf(good)
			leftOut(t, r.LeftOut, copies.Damaged)
			if has(t, to, bad.DataKey()) {
				t.Error("it is stored")
			}
		}
		if got := ids(r.Copied); !slices.Equal(got, want) {
			t.Errorf("%d: got %v", times, got)
		}
		whole(t, to)
	}
}

// TestCopy_NotKept: a destination that keeps other bytes than it gets ends the run, and has
// no manifest.
func TestCopy_NotKept(t *testing.T) {
	for _, what := range []string{"/data/", "/snapshots/"} {
		from, to := newPlace(t), newPlace(t)
		m := add(t, from, 1)
		hook := &storagetest.Hook{Store: to.Store, Upload: func(_ context.Context, key string, r io.Reader) io.Reader {
			if !strings.Contains(key, what) {
				return r
			}
			raw, _ := io.ReadAll(r)
			if n := len(raw); n > 0 {
				raw[n-1] ^= 1
			}
			return bytes.NewReader(raw)
		}}
		c := copier(from, to.through(hook))
		_, err := c.Run(t.Context(), plan(t, c))
		if !errors.Is(err, backup.ErrCorrupt) && what == "/snapshots/" || err == nil || has(t, to, m.Key()) {
			t.Errorf("%s: got %v, %v", what, err, keys(t, to))
		}
	}
}

// TestCopy_OneRepository: two addresses of one repository are no two places.
func TestCopy_OneRepository(t *testing.T) {
	from := newPlace(t)
	add(t, from, 1)
	_, err := copier(from, from.through(from.Store)).Plan(t.Context(), now())
	if !errors.As(err, new(*backup.RefusedError)) || !strings.Contains(err.Error(), from.repo.ID()) {
		t.Errorf("got %v", err)
	}
}

// TestCopy_Rate: the bound counts what is read from the source and what is read back.
func TestCopy_Rate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := newPlace(t), newPlace(t)
		m := add(t, from, 1)
		c := copier(from, to)
		c.Rate = 1
		began := time.Now()
		copyAll(t, c)
		bytes := 2 * m.Stored.Bytes
		if took := time.Since(began); took < time.Duration(bytes-1)*time.Second || took > time.Duration(bytes+1)*time.Second {
			t.Errorf("%d bytes took %v", bytes, took)
		}
	})
}

// TestCopy_MarkerOfACopy: the manifests of a copy name the first repository. So when its
// marker is gone it is not taken for itself, and nothing is written there.
func TestCopy_MarkerOfACopy(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	add(t, from, 1)
	copyAll(t, copier(from, to))
	if err := to.Delete(t.Context(), backup.MarkerKey); err != nil {
		t.Fatal(err)
	}
	if _, err := repository.OpenToWrite(t.Context(), to, to.repo.ID()); !errors.As(err, new(*repository.AbsentError)) {
		t.Errorf("got %v", err)
	}
	if _, err := repository.Create(t.Context(), to); !errors.As(err, new(*repository.UnmarkedError)) {
		t.Errorf("got %v", err)
	}
	if has(t, to, backup.MarkerKey) {
		t.Error("it has a marker of somebody else")
	}
}
