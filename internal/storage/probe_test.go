package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

const probePart = 64 << 10

// steps are those of any store, if all is well.
var steps = []string{
	"create", "stat", "clock", "create if absent", "read", "read ranges", "missing object",
	"list", "large object", "large object if absent", "delete",
}

func probe(t *testing.T, s storage.Store) []backup.Finding {
	t.Helper()
	return storage.ProbeParts(t.Context(), s, probePart)
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"plain", "wrapped"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, s := range map[string]storage.Store{
		"Mem":     mem.New(),
		"File":    file.New(filepath.Join(dir, "plain")),
		"Wrapped": storage.WithObserver(file.New(filepath.Join(dir, "wrapped")), func(storage.Event) {}),
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range probe(t, s) {
				got = append(got, f.Subject)
				if f.Level != backup.LevelOK || f.Text == "" || f.Hint != "" {
					t.Errorf("%+v", f)
				}
			}
			if diff := cmp.Diff(steps, got); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			for o, err := range s.List(t.Context(), "", "") {
				t.Errorf("left: %v, %v", o, err)
			}
		})
	}
}

// on calls do before or after each operation of one kind.
func on(op storage.Op, do func(ctx context.Context, key string) error) func(context.Context, storage.Op, string) error {
	return func(ctx context.Context, o storage.Op, key string) error {
		if o != op {
			return nil
		}
		return do(ctx, key)
	}
}

// refusing is a store whose operations of one kind fail.
func refusing(m *mem.Store, op storage.Op, err error) storage.Store {
	return &storagetest.Hook{Store: m, Before: on(op, func(context.Context, string) error { return err })}
}

// replacing is a store that replaces objects.
func replacing(m *mem.Store, wrong func(key string) bool) storage.Store {
	return &storagetest.Hook{Store: m, Before: on(storage.OpCreate, func(ctx context.Context, key string) error {
		if wrong(key) {
			return m.Delete(ctx, key)
		}
		return nil
	})}
}

// replacingSilently is a store that replaces objects and denies it.
func replacingSilently(m *mem.Store) storage.Store {
	replaced := false
	return &storagetest.Hook{
		Store: m,
		Before: on(storage.OpCreate, func(ctx context.Context, key string) error {
			_, err := m.Stat(ctx, key)
			replaced = err == nil
			return m.Delete(ctx, key)
		}),
		After: on(storage.OpCreate, func(context.Context, string) error {
			if replaced {
				return fs.ErrExist
			}
			return nil
		}),
	}
}

// lying is a store that changes the first byte of what it returns.
func lying(m *mem.Store, wrong func(key string, offset int64) bool) storage.Store {
	h := &storagetest.Hook{Store: m}
	h.Download = func(_ context.Context, key string, offset int64, r io.Reader) io.Reader {
		if !wrong(key, offset) {
			return r
		}
		first := make([]byte, 1)
		_, _ = io.ReadFull(r, first) // never fails
		first[0]++
		return io.MultiReader(bytes.NewReader(first), r)
	}
	return h
}

// otherClock is a store with another time.
type otherClock struct {
	storage.Store
	ahead time.Duration
}

func (c otherClock) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := c.Store.Stat(ctx, key)
	o.ModTime = o.ModTime.Add(c.ahead)
	return o, err
}

// otherOrder is a store that lists without regard to case.
type otherOrder struct{ storage.Store }

func (s otherOrder) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		var all []storage.Object
		for o := range s.Store.List(ctx, prefix, after) {
			all = append(all, o)
		}
		slices.SortFunc(all, func(a, b storage.Object) int {
			return strings.Compare(strings.ToLower(a.Key), strings.ToLower(b.Key))
		})
		for _, o := range all {
			if !yield(o, nil) {
				return
			}
		}
	}
}

type probeFault struct {
	make func(m *mem.Store) storage.Store
	want map[string]backup.Level // of the steps that are not ok
	text string
	todo string
}

var errDenied = fmt.Errorf("403 AccessDenied: %w", fs.ErrPermission)

var createFaults = map[string]probeFault{
	"NoCreate": {
		func(m *mem.Store) storage.Store { return refusing(m, storage.OpCreate, errDenied) },
		map[string]backup.Level{"create": backup.LevelFailure}, "AccessDenied", "s3:PutObject",
	},
	"Hint": {
		func(m *mem.Store) storage.Store {
			err := fmt.Errorf("create: %w", backup.WithHint(errors.New("skewed"), "set the clock"))
			return refusing(m, storage.OpCreate, err)
		},
		map[string]backup.Level{"create": backup.LevelFailure}, "skewed", "set the clock",
	},
	"Replaces": {
		func(m *mem.Store) storage.Store { return replacing(m, func(string) bool { return true }) },
		map[string]backup.Level{
			"create if absent": backup.LevelFailure, "large object if absent": backup.LevelFailure,
		},
		"If-None-Match", "versioning",
	},
	"ReplacesLarge": {
		func(m *mem.Store) storage.Store {
			return replacing(m, func(key string) bool { return strings.HasSuffix(key, "/large") })
		},
		map[string]backup.Level{"large object if absent": backup.LevelFailure}, "large", "versioning",
	},
	"ReplacesAndLies": {
		replacingSilently,
		map[string]backup.Level{
			"read": backup.LevelFailure, "large object if absent": backup.LevelFailure,
		},
		"other bytes", "",
	},
}

var readFaults = map[string]probeFault{
	"LiesInRanges": {
		func(m *mem.Store) storage.Store {
			return lying(m, func(key string, offset int64) bool {
				return strings.HasSuffix(key, "/small") && offset == 500
			})
		},
		map[string]backup.Level{"read ranges": backup.LevelFailure}, "100 bytes from 500 on", "",
	},
	"LiesAtParts": {
		func(m *mem.Store) storage.Store {
			return lying(m, func(key string, offset int64) bool {
				return strings.HasSuffix(key, "/large") && offset == probePart-50
			})
		},
		map[string]backup.Level{"large object": backup.LevelFailure}, "other bytes", "",
	},
	"NoRead": {
		func(m *mem.Store) storage.Store { return refusing(m, storage.OpOpen, errDenied) },
		map[string]backup.Level{"read": backup.LevelFailure, "large object": backup.LevelFailure},
		"AccessDenied", "s3:GetObject",
	},
	"HidesMissing": {
		func(m *mem.Store) storage.Store {
			return &storagetest.Hook{Store: m, Before: on(storage.OpStat, func(ctx context.Context, key string) error {
				if _, err := m.Stat(ctx, key); err != nil {
					return errDenied
				}
				return nil
			})}
		},
		map[string]backup.Level{"missing object": backup.LevelWarning}, "looks the same", "s3:ListBucket",
	},
	"ClockAhead": {
		func(m *mem.Store) storage.Store { return otherClock{m, 10 * time.Minute} },
		map[string]backup.Level{"clock": backup.LevelWarning}, "ahead", "NTP",
	},
	"ClockBehind": {
		func(m *mem.Store) storage.Store { return otherClock{m, -10 * time.Minute} },
		map[string]backup.Level{"clock": backup.LevelWarning}, "behind", "NTP",
	},
	"NoList": {
		func(m *mem.Store) storage.Store { return refusing(m, storage.OpList, errDenied) },
		map[string]backup.Level{"list": backup.LevelFailure}, "AccessDenied", "s3:ListBucket",
	},
	"OtherOrder": {
		func(m *mem.Store) storage.Store { return otherOrder{m} },
		map[string]backup.Level{"list": backup.LevelFailure}, "in this order", "",
	},
}

var deleteFaults = map[string]probeFault{
	"NoDelete": {
		func(m *mem.Store) storage.Store { return refusing(m, storage.OpDelete, errDenied) },
		map[string]backup.Level{"delete": backup.LevelWarning}, "/small", "s3:DeleteObject",
	},
	"Locked": {
		func(m *mem.Store) storage.Store {
			return refusing(m, storage.OpDelete, fmt.Errorf("delete: %w", storage.ErrLocked))
		},
		map[string]backup.Level{"delete": backup.LevelWarning}, "/small", "when the lock ends",
	},
	"DeleteDoesNothing": {
		func(m *mem.Store) storage.Store {
			return &storagetest.Hook{Store: m, After: on(storage.OpDelete, func(ctx context.Context, key string) error {
				_ = m.Create(ctx, key, strings.NewReader("x")) // it may be back already
				return nil
			})}
		},
		map[string]backup.Level{"delete": backup.LevelFailure}, "can be read", "",
	},
}

// TestProbe_Faults: each fault is reported at its step, and at no other.
func TestProbe_Faults(t *testing.T) {
	for _, faults := range []map[string]probeFault{createFaults, readFaults, deleteFaults} {
		for name, c := range faults {
			t.Run(name, func(t *testing.T) { testProbeFault(t, c) })
		}
	}
}

func testProbeFault(t *testing.T, c probeFault) {
	m := mem.New()
	got := map[string]backup.Level{}
	for _, f := range probe(t, c.make(m)) {
		if f.Level == backup.LevelOK {
			continue
		}
		got[f.Subject] = f.Level
		if !strings.Contains(f.Text, c.text) || !strings.Contains(f.Hint, c.todo) {
			t.Errorf("%+v: want %q, and to do %q", f, c.text, c.todo)
		}
	}
	if diff := cmp.Diff(c.want, got); diff != "" {
		t.Errorf("not ok (-want +got):\n%s", diff)
	}
	if _, stay := c.want["delete"]; stay {
		return
	}
	for o := range m.List(t.Context(), "", "") {
		t.Errorf("left: %s", o.Key)
	}
}

// TestProbe_Names: nothing of a probe is ever taken for a part of a repository.
func TestProbe_Names(t *testing.T) {
	n := 0
	s := storage.WithObserver(mem.New(), func(e storage.Event) {
		if e.Op != storage.OpCreate {
			return
		}
		n++
		if _, err := backup.ParseKey(e.Key); err == nil || e.Key == backup.MarkerKey {
			t.Errorf("%s has the name of an object of ours", e.Key)
		}
		if !strings.HasPrefix(e.Key, ".backupd-probe-") {
			t.Errorf("%s is outside of the probe's folder", e.Key)
		}
	})
	probe(t, s)
	if n < 6 {
		t.Errorf("%d objects", n)
	}
}

// TestProbe_Cancelled: the objects are removed all the same.
func TestProbe_Cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := mem.New()
	s := &storagetest.Hook{Store: m, Before: on(storage.OpList, func(context.Context, string) error {
		cancel()
		return nil
	})}
	found := storage.ProbeParts(ctx, s, probePart)
	failed := func(f backup.Finding) bool { return f.Subject == "probe" && f.Level == backup.LevelFailure }
	if !slices.ContainsFunc(found, failed) {
		t.Errorf("got %+v", found)
	}
	for o := range m.List(t.Context(), "", "") {
		t.Errorf("left: %s", o.Key)
	}
}

// TestProbe_ReadOnly: a folder that may not be written to.
func TestProbe_ReadOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found := probe(t, file.New(filepath.Join(dir, "below")))
	if len(found) != 1 || found[0].Level != backup.LevelFailure || found[0].Subject != "create" {
		t.Errorf("got %+v", found)
	}
}

type inspected struct {
	storage.Store
	folder string
}

func (i *inspected) Inspect(_ context.Context, folder string) []backup.Finding {
	i.folder = folder
	return []backup.Finding{{Subject: "inspected", Level: backup.LevelOK}}
}

// TestProbe_Inspect: an observer does not hide that a store can be inspected.
func TestProbe_Inspect(t *testing.T) {
	in := &inspected{Store: mem.New()}
	ignore := func(storage.Event) {}
	found := probe(t, storage.WithObserver(storage.WithObserver(in, ignore), ignore))
	if !slices.ContainsFunc(found, func(f backup.Finding) bool { return f.Subject == "inspected" }) {
		t.Errorf("not inspected: %+v", found)
	}
	if !strings.HasPrefix(in.folder, ".backupd-probe-") {
		t.Errorf("inspected %s", in.folder)
	}
}
