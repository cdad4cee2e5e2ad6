package repository_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

const (
	here    = "the-only-repository"
	another = "quite-another-repository"
)

// unmarkedStore holds snapshots of repositories whose marker is gone.
func unmarkedStore(t *testing.T, ids ...string) storage.Store {
	t.Helper()
	s := mem.New()
	for n, id := range ids {
		m := manifest("prod", started.AddDate(0, 0, n), backup.Revision(n+1))
		m.Repository = id
		addSnapshot(t, s, m)
	}
	return s
}

// TestUnmarked_Open: what may be done with a repository whose marker is gone depends on
// what its snapshots and the caller know of it.
func TestUnmarked_Open(t *testing.T) {
	type want struct {
		read, write bool
		found       string // another repository that is there
	}
	for name, c := range map[string]struct {
		ids   []string
		known string
		want  want
	}{
		"NotKnown":           {[]string{here, here}, "", want{read: true}},
		"Known":              {[]string{here, here}, here, want{read: true, write: true}},
		"Other":              {[]string{here}, another, want{found: here}},
		"Several":            {[]string{here, another}, "", want{}},
		"Several/Known":      {[]string{here, another}, here, want{read: true}},
		"Several/OtherKnown": {[]string{here, another}, "some-third-repository", want{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := unmarkedStore(t, c.ids...)
			before := len(keys(t, s))
			var unmarked *repository.UnmarkedError
			var absent *repository.AbsentError
			_, err := repository.Open(t.Context(), s, c.known)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				t.Errorf("it counts as one that was never there: %v", err)
			case c.want.found != "":
				if !errors.As(err, &absent) || absent.Found != c.want.found || absent.Known != c.known {
					t.Errorf("got %v", err)
				}
			case !errors.As(err, &unmarked) || !strings.Contains(err.Error(), c.ids[0]):
				t.Errorf("got %v", err)
			}
			if _, err := repository.Create(t.Context(), s); !errors.As(err, &unmarked) {
				t.Errorf("create: got %v", err)
			}

			r, err := repository.OpenToRead(t.Context(), s, c.known)
			if (err == nil) != c.want.read {
				t.Fatalf("to read: got %v", err)
			}
			if err == nil {
				checkOnlyRead(t, r)
			}
			if got := len(keys(t, s)); got != before {
				t.Errorf("the store holds %d objects, before %d", got, before)
			}

			r, err = repository.OpenToWrite(t.Context(), s, c.known)
			if (err == nil) != c.want.write {
				t.Fatalf("to write: got %v", err)
			}
			if err != nil {
				if got := len(keys(t, s)); got != before {
					t.Errorf("the store holds %d objects, before %d", got, before)
				}
				return
			}
			if r.ID() != here || !r.Made() || r.Doubt() != nil || !r.Created().Equal(started) {
				t.Errorf("got %+v", r)
			}
			if r, err := repository.Open(t.Context(), s, here); err != nil || !r.Created().Equal(started) {
				t.Errorf("got %+v, %v", r, err)
			}
			if r, err := repository.OpenToWrite(t.Context(), s, here); err != nil || r.Made() {
				t.Errorf("again: got %+v, %v", r, err)
			}
		})
	}
}

// checkOnlyRead checks that snapshots can be read, and nothing can be written.
func checkOnlyRead(t *testing.T, r *repository.Repository) {
	t.Helper()
	var unmarked *repository.UnmarkedError
	if r.ID() != here || !errors.As(r.Doubt(), &unmarked) {
		t.Errorf("got %+v", r)
	}
	c := r.Cluster("prod")
	i := items(t, c)[0]
	if m, err := c.Manifest(t.Context(), i); err != nil || m.ID != i.ID {
		t.Errorf("got %v", err)
	}
	for what, err := range map[string]error{
		"pin":    c.Marks().Pin(t.Context(), i, "reason", "me"),
		"commit": c.Commit(t.Context(), manifest("prod", started, 9)),
		"delete": r.Store().Delete(t.Context(), i.Key().String()),
		"check":  r.Check(t.Context()),
	} {
		if !errors.As(err, &unmarked) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestUnmarked_NotWhole: manifests that nobody can believe say that there was a repository,
// and not which. None is made in its place unasked.
func TestUnmarked_NotWhole(t *testing.T) {
	s := mem.New()
	m := manifest("prod", started, 1)
	create(t, s, m.Key(), marshal(t, manifest("prod", started, 2)))
	damaged := manifest("prod", started, 3)
	create(t, s, damaged.Key(), []byte("{}"))
	var unmarked *repository.UnmarkedError
	for _, known := range []string{"", here} {
		_, open := repository.Open(t.Context(), s, known)
		_, read := repository.OpenToRead(t.Context(), s, known)
		_, write := repository.OpenToWrite(t.Context(), s, known)
		_, made := repository.Create(t.Context(), s)
		for _, err := range []error{open, read, write, made} {
			if !errors.As(err, &unmarked) || len(unmarked.IDs) != 0 {
				t.Errorf("got %v", err)
			}
		}
	}
	// Data alone is no evidence: a backup may just have begun, or its repository be gone.
	s = mem.New()
	create(t, s, m.DataKey(), []byte("0123456789"))
	if _, err := repository.Open(t.Context(), s, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestUnmarked_Damaged: a marker that is damaged can be read around. It is not replaced.
func TestUnmarked_Damaged(t *testing.T) {
	s := unmarkedStore(t, here)
	create(t, s, backup.MarkerKey, []byte("nonsense"))
	r, err := repository.OpenToRead(t.Context(), s, "")
	if err != nil || r.ID() != here || !errors.Is(r.Doubt(), backup.ErrCorrupt) || len(items(t, r.Cluster("prod"))) != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := repository.OpenToRead(t.Context(), s, another); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if _, err := repository.OpenToWrite(t.Context(), s, here); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if got := string(readObject(t, s, backup.MarkerKey)); got != "nonsense" {
		t.Errorf("it holds %q", got)
	}
}

// TestUnmarked_Denied: a rule has moved the oldest object, the marker, to an archive, from
// which it cannot be read. The snapshots can. Where all is denied nothing is concluded.
func TestUnmarked_Denied(t *testing.T) {
	for _, withheld := range []error{fs.ErrPermission, backup.ErrArchived} {
		t.Run(withheld.Error(), func(t *testing.T) { testDenied(t, withheld) })
	}
}

func testDenied(t *testing.T, withheld error) {
	s := unmarkedStore(t, here)
	create(t, s, backup.MarkerKey, []byte("archived"))
	denied := backup.MarkerKey
	hooked := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpOpen && strings.HasSuffix(key, denied) {
			return withheld
		}
		return nil
	}}
	r, err := repository.OpenToRead(t.Context(), hooked, "")
	if err != nil || r.ID() != here || !errors.Is(r.Doubt(), withheld) {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := repository.OpenToWrite(t.Context(), hooked, here); !errors.Is(err, withheld) {
		t.Errorf("got %v", err)
	}
	denied = ""
	if _, err := repository.OpenToRead(t.Context(), hooked, ""); !errors.Is(err, withheld) {
		t.Errorf("got %v", err)
	}
}

// TestUnmarked_OneWithheld: beside the marker one manifest cannot be read. The others tell
// which repository it is, and the latest of them can be had. Where none can be read, the reason is told.
func TestUnmarked_OneWithheld(t *testing.T) {
	for name, c := range map[string]struct {
		marker bool // it is there, and cannot be read either; else it is gone
		err    error
	}{
		"Gone/Denied": {false, fs.ErrPermission}, "Gone/Archived": {false, backup.ErrArchived},
		"Archived/Archived": {true, backup.ErrArchived}, "Denied/Denied": {true, fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			s := unmarkedStore(t, here, here, here)
			all := items(t, in(s).Cluster("prod"))
			if c.marker {
				create(t, s, backup.MarkerKey, []byte("archived"))
			}
			hidden := []string{backup.MarkerKey, all[0].Key().String()}
			hooked := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
				if op == storage.OpOpen && slices.Contains(hidden, key) && (c.marker || key != backup.MarkerKey) {
					return c.err
				}
				return nil
			}}
			r, err := repository.OpenToRead(t.Context(), hooked, "")
			if err != nil || r.ID() != here || r.Doubt() == nil ||
				!strings.Contains(r.Doubt().Error(), "1 manifests") {
				t.Fatalf("got %+v, %v", r, err)
			}
			if o, err := r.Cluster("prod").Look(t.Context(), 3, nil, started.AddDate(0, 1, 0)); err != nil ||
				len(o.Items) != 3 || len(o.Good) != 2 || o.Items[0].Denied == nil {
				t.Errorf("look: got %+v, %v", o, err)
			}
			latest, err := choice.FindIn(t.Context(), r.Cluster("prod"), choice.Latest)
			if err != nil || latest.ID != all[2].ID {
				t.Errorf("latest: got %+v, %v", latest, err)
			}
			first, err := repository.FirstReadable(t.Context(), r.Cluster("prod"), all)
			if err != nil || first == nil || first.ID != all[1].ID {
				t.Errorf("first readable: got %+v, %v", first, err)
			}
			for _, i := range all {
				hidden = append(hidden, i.Key().String())
			}
			if _, err := repository.OpenToRead(t.Context(), hooked, ""); !errors.Is(err, c.err) {
				t.Errorf("all: got %v", err)
			}
		})
	}
}

// TestUnmarked_Race: several processes put back the same marker.
func TestUnmarked_Race(t *testing.T) {
	s := unmarkedStore(t, here)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if r, err := repository.OpenToWrite(t.Context(), s, here); err != nil || r.ID() != here {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
	wg.Wait()
}

// TestUnmarked_Many: of many manifests the oldest and the newest are read: a repository that
// got a new id has other ids at its ends.
func TestUnmarked_Many(t *testing.T) {
	ids := make([]string, 250)
	for n := range ids {
		ids[n] = here
	}
	s := &countingStore{Store: unmarkedStore(t, ids...)}
	if r, err := repository.OpenToRead(t.Context(), s, ""); err != nil || r.ID() != here {
		t.Errorf("got %+v, %v", r, err)
	}
	if n := s.opened.Load(); n > 201 {
		t.Errorf("%d objects were read", n)
	}
	ids[len(ids)-1] = another
	var unmarked *repository.UnmarkedError
	if _, err := repository.OpenToRead(t.Context(), unmarkedStore(t, ids...), ""); !errors.As(err, &unmarked) {
		t.Errorf("got %v", err)
	}
}

// countingStore counts what is read.
type countingStore struct {
	storage.Store
	opened atomic.Int64
}

func (c *countingStore) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.opened.Add(1)
	return c.Store.Open(ctx, key, offset, length)
}

func items(t *testing.T, c *repository.Cluster) (out []repository.Item) {
	t.Helper()
	for i, err := range c.Items(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, i)
	}
	return out
}
