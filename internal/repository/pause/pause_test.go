package pause_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func in(s storage.Store) *repository.Cluster { return repository.At(s, "any").Cluster("prod") }

// wanted is a pause of 4 hours from now.
func wanted(now time.Time) pause.Pause {
	return pause.Pause{Until: now.Add(4 * time.Hour), Reason: "an upgrade", By: "root@host"}
}

func read(t *testing.T, s storage.Store, now time.Time) pause.State {
	t.Helper()
	got, err := pause.Read(t.Context(), in(s), now)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// keys lists the marks.
func keys(t *testing.T, s storage.Store) (out []string) {
	t.Helper()
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o.Key)
	}
	return out
}

// TestSet: a pause goes on until its end, whoever reads it, and until it is taken back.
func TestSet(t *testing.T) {
	s, now := mem.New(), time.Now()
	p, err := pause.Set(t.Context(), in(s), wanted(now), now)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := backup.ParseKey(keys(t, s)[0]); err != nil || k.Kind != backup.KindPause || !k.Until.Equal(p.Until) ||
		!k.Data.Time().Equal(p.At) || k.String() != keys(t, s)[0] {
		t.Errorf("stored as %s: %+v, %v", keys(t, s)[0], k, err)
	}
	got := read(t, s, now).At(now)
	words := "paused until " + p.Until.Format(time.RFC3339) + " by root@host: an upgrade"
	if got == nil || *got != *p || got.String() != words {
		t.Errorf("got %v, want %v", got, p)
	}
	if st := read(t, s, now); st.At(p.Until.Add(-time.Second)) == nil || st.At(p.Until) != nil || st.Ignored != nil {
		t.Errorf("at its end: %+v", st)
	}
	if st := read(t, s, p.Until); len(st.Pauses) != 0 || st.Ignored != nil || !st.Ended.Equal(p.Until) {
		t.Errorf("after its end: %+v", st)
	}
	var already *pause.PausedError
	if _, err := pause.Set(t.Context(), in(s), wanted(now), now.Add(time.Minute)); !errors.As(err, &already) ||
		!already.Until.Equal(p.Until) || len(keys(t, s)) != 1 {
		t.Errorf("paused again: %v, %q", err, keys(t, s))
	}
	if st, err := pause.End(t.Context(), in(s), now); err != nil || st.At(now) == nil || len(keys(t, s)) != 0 {
		t.Errorf("ended: %+v, %v, %q", st, err, keys(t, s))
	}
	if _, err := pause.End(t.Context(), in(s), now); !errors.As(err, new(*repository.NotFoundError)) {
		t.Errorf("ended again: %v", err)
	}
}

// TestSet_Refused: what is no pause is not stored.
func TestSet_Refused(t *testing.T) {
	s, now := mem.New(), time.Now()
	for name, change := range map[string]func(*pause.Pause){
		"at most 30 days": func(p *pause.Pause) { p.Until = now.Add(pause.Longest + time.Hour) },
		"ends after":      func(p *pause.Pause) { p.Until = now },
		"needs a reason":  func(p *pause.Pause) { p.Reason = " " },
		"one line":        func(p *pause.Pause) { p.Reason = "a\nb" },
	} {
		p := wanted(now)
		change(&p)
		if _, err := pause.Set(t.Context(), in(s), p, now); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := keys(t, s); len(got) != 0 {
		t.Errorf("stored %q", got)
	}
}

// put stores a mark as any program may, with other names or bytes than Set makes.
func put(t *testing.T, s storage.Store, at, until time.Time, change func(*pause.Pause), damage bool) string {
	t.Helper()
	at, until = at.UTC().Truncate(time.Second), until.UTC().Truncate(time.Second)
	p := pause.Pause{Format: pause.Format, Cluster: "prod", Reason: "x", At: at, Until: until}
	change(&p)
	raw, err := backup.Seal(&p, backup.MaxMarkBytes)
	if err != nil {
		t.Fatal(err)
	}
	if damage {
		raw[len(raw)/2] ^= 1
	}
	k := backup.Key{Cluster: "prod", Kind: backup.KindPause, Data: backup.NewDataName(at), Until: until}
	if err := s.Create(t.Context(), k.String(), strings.NewReader(string(raw))); err != nil {
		t.Fatal(err)
	}
	return k.String()
}

// TestRead_Ignored: no mark silences a cluster that a wrong clock, an accident or another
// version has made, and each is told of. All can be taken back.
func TestRead_Ignored(t *testing.T) {
	now := time.Now()
	same := func(*pause.Pause) {}
	longer := func(p *pause.Pause) { p.Until = p.Until.Add(time.Hour) }
	for name, tt := range map[string]struct {
		at, until time.Time
		change    func(*pause.Pause)
		damage    bool
	}{
		"at most 30 days":          {now, now.Add(pause.Longest + time.Hour), same, false},
		"in the future":            {now.Add(time.Hour), now.Add(2 * time.Hour), same, false},
		"damaged":                  {now, now.Add(time.Hour), same, true},
		"needs a reason":           {now, now.Add(time.Hour), func(p *pause.Pause) { p.Reason = "" }, false},
		"not known to this":        {now, now.Add(time.Hour), func(p *pause.Pause) { p.Format = "backupd/pause/v2" }, false},
		"content is not of its":    {now, now.Add(time.Hour), func(p *pause.Pause) { p.Cluster = "other" }, false},
		"is not of its name":       {now, now.Add(time.Hour), longer, false},
		"ends after its begin":     {now, now.Add(time.Hour), func(p *pause.Pause) { p.Until = p.At }, false},
		"its content is not of it": {now, now.Add(time.Hour), func(p *pause.Pause) { p.At = p.At.Add(time.Second) }, false},
	} {
		s := mem.New()
		key := put(t, s, tt.at, tt.until, tt.change, tt.damage)
		got := read(t, s, now)
		if got.At(now) != nil || got.Ignored == nil || !strings.Contains(got.Ignored.Error(), name) ||
			!strings.Contains(got.Ignored.Error(), key) {
			t.Errorf("%s: %v", name, got.Ignored)
		}
		// A pause that counts is made beside it.
		if _, err := pause.Set(t.Context(), in(s), wanted(now), now); err != nil || read(t, s, now).At(now) == nil {
			t.Errorf("%s: paused beside it: %v", name, err)
		}
		if _, err := pause.End(t.Context(), in(s), now); err != nil || len(keys(t, s)) != 0 {
			t.Errorf("%s: %q stay, %v", name, keys(t, s), err)
		}
	}
}

// TestRead_Several: of several pauses the one that ends last goes on; foreign objects are left
// alone.
func TestRead_Several(t *testing.T) {
	s, now := mem.New(), time.Now()
	none := func(*pause.Pause) {}
	put(t, s, now.Add(-time.Hour), now.Add(3*time.Hour), none, false)
	put(t, s, now, now.Add(time.Hour), none, false)
	put(t, s, now.Add(-3*time.Hour), now.Add(-2*time.Hour), none, false) // ended
	for _, foreign := range []string{"prod/pauses/readme.txt", "prod/pauses/x.20261120T101500Z.json", "prod2/pauses/x"} {
		if err := s.Create(t.Context(), foreign, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	st := read(t, s, now)
	if p := st.At(now.Add(2 * time.Hour)); st.Ignored != nil || len(st.Pauses) != 2 || p == nil ||
		!p.Until.Equal(now.Add(3*time.Hour).UTC().Truncate(time.Second)) {
		t.Errorf("got %+v", st)
	}
	if _, err := pause.End(t.Context(), in(s), now); err != nil || len(keys(t, s)) != 4 || read(t, s, now).At(now) != nil {
		t.Errorf("left %q, %v", keys(t, s), err)
	}
}

// TestSet_Together: two that pause at the same moment never both hear that they did, and what
// one has heard is true.
func TestSet_Together(t *testing.T) {
	now := time.Now()
	var other error
	racing := false
	s := mem.New()
	hook := &storagetest.Hook{Store: s, Before: func(ctx context.Context, op storage.Op, _ string) error {
		if op == storage.OpCreate && !racing { // the other has looked, made its own, and looked again
			racing = true
			_, other = pause.Set(ctx, in(s), wanted(now), now)
		}
		return nil
	}}
	_, err := pause.Set(t.Context(), in(hook), wanted(now), now)
	if err == nil || !strings.Contains(err.Error(), "at the same time") || other != nil {
		t.Errorf("got %v and %v", err, other)
	}
	if len(keys(t, s)) != 1 || read(t, s, now).At(now) == nil {
		t.Errorf("left %q", keys(t, s))
	}
	// Both are created before either looks.
	s = mem.New()
	var looked, created sync.WaitGroup
	looked.Add(2)
	created.Add(2)
	meet := func(at *sync.WaitGroup) func(context.Context, storage.Op, string) error {
		return func(_ context.Context, op storage.Op, _ string) error {
			if op == storage.OpCreate {
				at.Done()
				at.Wait()
			}
			return nil
		}
	}
	var both [2]error
	var g sync.WaitGroup
	for i := range both {
		g.Go(func() {
			hook := &storagetest.Hook{Store: s, Before: meet(&looked), After: meet(&created)}
			_, both[i] = pause.Set(t.Context(), in(hook), wanted(now), now)
		})
	}
	g.Wait()
	paused := read(t, s, now).At(now) != nil
	if both[0] == nil && both[1] == nil || paused != (both[0] == nil || both[1] == nil) {
		t.Errorf("paused %v: %v and %v", paused, both[0], both[1])
	}
}

// TestSet_Clocks: a host whose clock is not that of the store makes no pause: nobody would
// know when it ends.
func TestSet_Clocks(t *testing.T) {
	for _, off := range []time.Duration{-48 * time.Hour, -time.Hour, time.Hour, 48 * time.Hour} {
		s, now := mem.New(), time.Now().Add(off)
		_, err := pause.Set(t.Context(), in(s), wanted(now), now)
		if !errors.As(err, new(*backup.RefusedError)) || !strings.Contains(err.Error(), "by the clock of this host") {
			t.Errorf("off by %v: %v", off, err)
		}
		if got := keys(t, s); len(got) != 0 {
			t.Errorf("off by %v: left %q", off, got)
		}
	}
}

// TestSet_Crash: at whatever operation the store fails or loses its answer, an error leaves no
// pause, or says that there may be one.
func TestSet_Crash(t *testing.T) {
	down := errors.New("down")
	for _, when := range []storagetest.When{storagetest.Before, storagetest.After, storagetest.Crash} {
		for at := 0; ; at++ {
			s, now := mem.New(), time.Now()
			faulty := storagetest.FailAt(s, at, when, down)
			_, err := pause.Set(t.Context(), in(faulty), wanted(now), now)
			if !faulty.Fired() {
				break
			}
			paused := read(t, s, now).At(now) != nil
			var hint *backup.HintError
			told := errors.As(err, &hint) && strings.Contains(hint.Hint, "may be there")
			if paused == (err != nil) && !(paused && told) {
				t.Errorf("%v at %d: paused %v, %v", when, at, paused, err)
			}
		}
	}
}

// TestRead_Withheld: a mark that the store withholds counts for nothing and is told of; a
// store that fails is an error.
func TestRead_Withheld(t *testing.T) {
	s, now := mem.New(), time.Now()
	put(t, s, now, now.Add(time.Hour), func(*pause.Pause) {}, false)
	for _, op := range []storage.Op{storage.OpOpen, storage.OpList} {
		for _, why := range []error{fs.ErrPermission, errors.New("down")} {
			hook := &storagetest.Hook{Store: s, Before: func(_ context.Context, got storage.Op, _ string) error {
				if got == op {
					return fmt.Errorf("no: %w", why)
				}
				return nil
			}}
			st, err := pause.Read(t.Context(), in(hook), now)
			withheld := errors.Is(why, fs.ErrPermission)
			if (err == nil) != withheld || withheld != errors.Is(st.Ignored, fs.ErrPermission) || st.At(now) != nil {
				t.Errorf("%v, %v: %+v, %v", op, why, st, err)
			}
		}
	}
}

// TestSet_Old: marks that ended long ago are removed by the next pause, others stay.
func TestSet_Old(t *testing.T) {
	s, now := mem.New(), time.Now()
	put(t, s, now.Add(-40*24*time.Hour), now.Add(-31*24*time.Hour), func(*pause.Pause) {}, true)
	young := put(t, s, now.Add(-3*24*time.Hour), now.Add(-2*24*time.Hour), func(*pause.Pause) {}, false)
	if _, err := pause.Set(t.Context(), in(s), wanted(now), now); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s); len(got) != 2 || !slices.Contains(got, young) {
		t.Errorf("left %q", got)
	}
}

// TestKnown: a pause counts for a day after it was last read, and for a while after its end
// nobody misses a backup.
func TestKnown(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	long := pause.State{Pauses: []pause.Pause{{Until: now.Add(72 * time.Hour)}}}
	var k pause.Known
	if k.Now(now) != nil || k.Rests(now) || !k.Due(now, now).Equal(now) {
		t.Error("nothing was read, and it is paused")
	}
	k = k.With(long, now)
	for after, want := range map[time.Duration]bool{0: true, 23 * time.Hour: true, 25 * time.Hour: false} {
		if got := k.Now(now.Add(after)) != nil; got != want {
			t.Errorf("%v after it was read: paused %v", after, got)
		}
	}
	if next := now.Add(time.Hour); !k.Due(next, now).Equal(now.Add(72*time.Hour)) || !k.Due(time.Time{}, now).IsZero() {
		t.Errorf("the next run is at %v", k.Due(next, now))
	}
	if late := now.Add(80 * time.Hour); !k.Due(late, now).Equal(late) {
		t.Errorf("a run after the pause is at %v", k.Due(late, now))
	}
	var later pause.Known // of a host that was suspended, or a process that was started
	later = later.With(pause.State{Ended: now}, now.Add(time.Minute))
	if later.Now(now) != nil || !later.Rests(now.Add(44*time.Minute)) || later.Rests(now.Add(46*time.Minute)) {
		t.Errorf("after it has ended: %+v", later)
	}
	k = k.With(pause.State{}, now.Add(time.Minute)) // resumed
	if k.Now(now) != nil || !k.Rests(now.Add(44*time.Minute)) || k.Rests(now.Add(46*time.Minute)) {
		t.Errorf("after it was resumed: %+v", k)
	}
}

// TestParse refuses bytes that were changed.
func TestParse(t *testing.T) {
	s, now := mem.New(), time.Now()
	key := put(t, s, now, now.Add(time.Hour), func(*pause.Pause) {}, false)
	r, err := s.Open(t.Context(), key, 0, backup.MaxMarkBytes)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw := make([]byte, backup.MaxMarkBytes)
	n, _ := r.Read(raw)
	raw = raw[:n]
	if _, err := pause.Parse(raw); err != nil {
		t.Fatalf("%s: %v", path.Base(key), err)
	}
	for i := range raw {
		bad := slices.Clone(raw)
		bad[i] ^= 1
		if _, err := pause.Parse(bad); err == nil {
			t.Fatalf("byte %d was changed, and it is read", i)
		}
	}
}
