package storage_test

import (
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
	"github.com/etcd-backupd/backupd/internal/storage/mem"
)

const probePart = 64 << 10

// steps are those of any store, if all is well.
var steps = []string{
	"create", "stat", "clock", "create if absent", "read", "read ranges", "missing object",
	"list", "large object", "large object if absent", "delete",
}

func probe(t *testing.T, s storage.Store) []storage.Finding {
	t.Helper()
	return storage.Probe(t.Context(), s, storage.ProbeOptions{PartBytes: probePart})
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	for name, s := range map[string]storage.Store{
		"Mem":     mem.New(),
		"File":    file.New(filepath.Join(dir, "plain")),
		"Wrapped": storage.WithPrefix(storage.WithObserver(file.New(filepath.Join(dir, "wrapped")), func(storage.Event) {}), "some/prefix"),
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, f := range probe(t, s) {
				got = append(got, f.Step)
				if f.Level != storage.LevelOK || f.Text == "" || f.Todo != "" {
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

// faulty is a store with one method that does something else.
type faulty struct {
	storage.Store
	create func(ctx context.Context, key string, r io.Reader) error
	open   func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	stat   func(ctx context.Context, key string) (storage.Object, error)
	list   func(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error]
	remove func(ctx context.Context, key string) error
}

func (f *faulty) Create(ctx context.Context, key string, r io.Reader) error {
	if f.create != nil {
		return f.create(ctx, key, r)
	}
	return f.Store.Create(ctx, key, r)
}

func (f *faulty) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if f.open != nil {
		return f.open(ctx, key, offset, length)
	}
	return f.Store.Open(ctx, key, offset, length)
}

func (f *faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	if f.stat != nil {
		return f.stat(ctx, key)
	}
	return f.Store.Stat(ctx, key)
}

func (f *faulty) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	if f.list != nil {
		return f.list(ctx, prefix, after)
	}
	return f.Store.List(ctx, prefix, after)
}

func (f *faulty) Delete(ctx context.Context, key string) error {
	if f.remove != nil {
		return f.remove(ctx, key)
	}
	return f.Store.Delete(ctx, key)
}

// TestProbe_Faults: each fault is told at its step, and at no other.
func TestProbe_Faults(t *testing.T) {
	denied := fmt.Errorf("403 AccessDenied: %w", fs.ErrPermission)
	replace := func(m *mem.Store) func(context.Context, string, io.Reader) error {
		return func(ctx context.Context, key string, r io.Reader) error {
			_ = m.Delete(ctx, key)
			return m.Create(ctx, key, r)
		}
	}
	shifted := func(m *mem.Store, wrong func(key string, offset int64) bool) func(context.Context, string, int64, int64) (io.ReadCloser, error) {
		return func(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
			if wrong(key, offset) {
				offset--
			}
			return m.Open(ctx, key, offset, length)
		}
	}
	at := func(m *mem.Store, d time.Duration) func(context.Context, string) (storage.Object, error) {
		return func(ctx context.Context, key string) (storage.Object, error) {
			o, err := m.Stat(ctx, key)
			o.ModTime = o.ModTime.Add(d)
			return o, err
		}
	}
	for name, c := range map[string]struct {
		make func(m *mem.Store) *faulty
		want map[string]storage.Level // of the steps that are not ok
		text string
		todo string
	}{
		"NoCreate": {
			func(m *mem.Store) *faulty {
				return &faulty{create: func(context.Context, string, io.Reader) error { return denied }}
			},
			map[string]storage.Level{"create": storage.LevelFailure}, "AccessDenied", "s3:PutObject",
		},
		"Hint": {
			func(m *mem.Store) *faulty {
				return &faulty{create: func(context.Context, string, io.Reader) error {
					return fmt.Errorf("create: %w", backup.WithHint(errors.New("skewed"), "set the clock"))
				}}
			},
			map[string]storage.Level{"create": storage.LevelFailure}, "skewed", "set the clock",
		},
		"Replaces": {
			func(m *mem.Store) *faulty { return &faulty{create: replace(m)} },
			map[string]storage.Level{"create if absent": storage.LevelFailure, "large object if absent": storage.LevelFailure},
			"If-None-Match", "versioning",
		},
		"ReplacesLarge": {
			func(m *mem.Store) *faulty {
				return &faulty{create: func(ctx context.Context, key string, r io.Reader) error {
					if strings.HasSuffix(key, "/large") {
						return replace(m)(ctx, key, r)
					}
					return m.Create(ctx, key, r)
				}}
			},
			map[string]storage.Level{"large object if absent": storage.LevelFailure}, "large", "versioning",
		},
		"ReplacesAndLies": {
			func(m *mem.Store) *faulty {
				return &faulty{create: func(ctx context.Context, key string, r io.Reader) error {
					if _, err := m.Stat(ctx, key); err == nil {
						return errors.Join(replace(m)(ctx, key, r), fs.ErrExist)
					}
					return m.Create(ctx, key, r)
				}}
			},
			map[string]storage.Level{"read": storage.LevelFailure, "large object if absent": storage.LevelFailure}, "other bytes", "",
		},
		"LiesInRanges": {
			func(m *mem.Store) *faulty {
				return &faulty{open: shifted(m, func(key string, offset int64) bool { return strings.HasSuffix(key, "/small") && offset == 500 })}
			},
			map[string]storage.Level{"read ranges": storage.LevelFailure}, "100 bytes from 500 on", "",
		},
		"LiesAtParts": {
			func(m *mem.Store) *faulty {
				return &faulty{open: shifted(m, func(key string, offset int64) bool { return strings.HasSuffix(key, "/large") && offset == probePart-50 })}
			},
			map[string]storage.Level{"large object": storage.LevelFailure}, "other bytes", "",
		},
		"NoRead": {
			func(m *mem.Store) *faulty {
				return &faulty{open: func(context.Context, string, int64, int64) (io.ReadCloser, error) { return nil, denied }}
			},
			map[string]storage.Level{"read": storage.LevelFailure, "large object": storage.LevelFailure}, "AccessDenied", "s3:GetObject",
		},
		"HidesMissing": {
			func(m *mem.Store) *faulty {
				return &faulty{stat: func(ctx context.Context, key string) (storage.Object, error) {
					o, err := m.Stat(ctx, key)
					if err != nil {
						err = denied
					}
					return o, err
				}}
			},
			map[string]storage.Level{"missing object": storage.LevelWarning}, "cannot be told", "s3:ListBucket",
		},
		"ClockAhead": {
			func(m *mem.Store) *faulty { return &faulty{stat: at(m, 10*time.Minute)} },
			map[string]storage.Level{"clock": storage.LevelWarning}, "ahead", "NTP",
		},
		"ClockBehind": {
			func(m *mem.Store) *faulty { return &faulty{stat: at(m, -10*time.Minute)} },
			map[string]storage.Level{"clock": storage.LevelWarning}, "behind", "NTP",
		},
		"NoList": {
			func(m *mem.Store) *faulty {
				return &faulty{list: func(context.Context, string, string) iter.Seq2[storage.Object, error] {
					return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, denied) }
				}}
			},
			map[string]storage.Level{"list": storage.LevelFailure}, "AccessDenied", "s3:ListBucket",
		},
		"OtherOrder": {
			func(m *mem.Store) *faulty {
				return &faulty{list: func(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
					return func(yield func(storage.Object, error) bool) {
						var all []storage.Object
						for o := range m.List(ctx, prefix, after) {
							all = append(all, o)
						}
						slices.SortFunc(all, func(a, b storage.Object) int { return strings.Compare(strings.ToLower(a.Key), strings.ToLower(b.Key)) })
						for _, o := range all {
							if !yield(o, nil) {
								return
							}
						}
					}
				}}
			},
			map[string]storage.Level{"list": storage.LevelFailure}, "in this order", "",
		},
		"NoDelete": {
			func(m *mem.Store) *faulty {
				return &faulty{remove: func(context.Context, string) error { return denied }}
			},
			map[string]storage.Level{"delete": storage.LevelWarning}, "/small", "s3:DeleteObject",
		},
		"Locked": {
			func(m *mem.Store) *faulty {
				return &faulty{remove: func(context.Context, string) error { return fmt.Errorf("delete: %w", storage.ErrLocked) }}
			},
			map[string]storage.Level{"delete": storage.LevelWarning}, "/small", "when the lock ends",
		},
		"DeleteDoesNothing": {
			func(m *mem.Store) *faulty { return &faulty{remove: func(context.Context, string) error { return nil }} },
			map[string]storage.Level{"delete": storage.LevelFailure}, "can be read", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := mem.New()
			s := c.make(m)
			s.Store = m
			got := map[string]storage.Level{}
			for _, f := range probe(t, s) {
				if f.Level == storage.LevelOK {
					continue
				}
				got[f.Step] = f.Level
				if !strings.Contains(f.Text, c.text) || !strings.Contains(f.Todo, c.todo) {
					t.Errorf("%+v: want %q, and to do %q", f, c.text, c.todo)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("not ok (-want +got):\n%s", diff)
			}
			if s.remove != nil {
				return
			}
			for o := range m.List(t.Context(), "", "") {
				t.Errorf("left: %s", o.Key)
			}
		})
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
	s := &faulty{Store: m, list: func(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
		cancel()
		return m.List(ctx, prefix, after)
	}}
	found := storage.Probe(ctx, s, storage.ProbeOptions{PartBytes: probePart})
	if !slices.ContainsFunc(found, func(f storage.Finding) bool { return f.Step == "probe" && f.Level == storage.LevelFailure }) {
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
	if len(found) != 1 || found[0].Level != storage.LevelFailure || found[0].Step != "create" {
		t.Errorf("got %+v", found)
	}
}

type inspected struct {
	storage.Store
	folder string
}

func (i *inspected) Inspect(_ context.Context, folder string) []storage.Finding {
	i.folder = folder
	return []storage.Finding{{Step: "inspected", Level: storage.LevelOK}}
}

// TestProbe_Inspect: what wraps a store does not hide that it can be inspected.
func TestProbe_Inspect(t *testing.T) {
	in := &inspected{Store: mem.New()}
	found := probe(t, storage.WithPrefix(storage.WithObserver(storage.WithPrefix(in, "outer"), func(storage.Event) {}), "inner"))
	if !slices.ContainsFunc(found, func(f storage.Finding) bool { return f.Step == "inspected" }) {
		t.Errorf("not inspected: %+v", found)
	}
	if !strings.HasPrefix(in.folder, "outer/inner/.backupd-probe-") {
		t.Errorf("inspected %s", in.folder)
	}
}
