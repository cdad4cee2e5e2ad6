package repository_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func TestRepository(t *testing.T) {
	s := mem.New()
	_, err := repository.Open(t.Context(), s, "")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "not a backupd repository") {
		t.Fatalf("got error %v", err)
	}
	made, err := repository.Create(t.Context(), s)
	if err != nil || !made.Made() {
		t.Fatalf("got %+v, %v", made, err)
	}
	var marker backup.Marker
	if err := json.Unmarshal(readObject(t, s, backup.MarkerKey), &marker); err != nil {
		t.Fatal(err)
	}
	if marker.Format != backup.MarkerFormat || len(marker.ID) < 16 || marker.CreatedAt.IsZero() ||
		marker.ID != made.ID() {
		t.Fatalf("got %+v, id %s", marker, made.ID())
	}
	for name, open := range map[string]func(context.Context, storage.Store) (*repository.Repository, error){
		"open": openAny, "create again": repository.Create,
		"open again": func(ctx context.Context, s storage.Store) (*repository.Repository, error) {
			return repository.Open(ctx, s, made.ID())
		},
	} {
		if got, err := open(t.Context(), s); err != nil || got.ID() != made.ID() || got.Made() {
			t.Errorf("%s: got %+v, want %+v, error %v", name, got, made, err)
		}
	}
}

func openAny(ctx context.Context, s storage.Store) (*repository.Repository, error) {
	return repository.Open(ctx, s, "")
}

// TestOpen_Known: a missing repository that is known is no fs.ErrNotExist, because its
// disk may not be mounted.
func TestOpen_Known(t *testing.T) {
	s := mem.New()
	var absent *repository.AbsentError
	_, err := repository.Open(t.Context(), s, "the-known-repository")
	if errors.Is(err, fs.ErrNotExist) || !errors.As(err, &absent) || absent.Found != "" ||
		!strings.Contains(err.Error(), "the-known-repository is not at its address") {
		t.Errorf("gone: got %v", err)
	}
	if left := keys(t, s); len(left) != 0 {
		t.Errorf("it was made: %v", left)
	}
	other, err := repository.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = repository.Open(t.Context(), s, "the-known-repository")
	if !errors.As(err, &absent) || absent.Found != other.ID() || errors.Is(err, fs.ErrNotExist) ||
		!strings.Contains(err.Error(), "another repository ("+other.ID()+")") {
		t.Errorf("replaced: got %v", err)
	}
	for _, when := range []storagetest.When{storagetest.Before, storagetest.After} {
		faulty := storagetest.FailAt(s, 0, when, errFault)
		if _, err := repository.Open(t.Context(), faulty, other.ID()); !errors.Is(err, errFault) {
			t.Errorf("down: got %v", err)
		}
	}
}

func TestCreate_Race(t *testing.T) {
	s := mem.New()
	const racers = 8
	var made [racers]*repository.Repository
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			var err error
			if made[i], err = repository.Create(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	makers := 0
	for _, r := range made {
		if r == nil || r.ID() != made[0].ID() {
			t.Fatalf("two identities: %+v and %+v", r, made[0])
		}
		if r.Made() {
			makers++
		}
	}
	if makers != 1 {
		t.Errorf("%d made it", makers)
	}
}

// TestCreate_NoFolder: a repository is made, its folder is not, and the hint says who makes it.
func TestCreate_NoFolder(t *testing.T) {
	_, err := repository.Create(t.Context(), file.New(filepath.Join(t.TempDir(), "gone")))
	var hint *backup.HintError
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "mount its disk") {
		t.Errorf("got %v", err)
	}
}

// TestCreate_Fails at every operation: a retry always succeeds.
func TestCreate_Fails(t *testing.T) {
	broken := errors.New("broken")
	for _, when := range []storagetest.When{storagetest.Before, storagetest.After} {
		for n := 0; ; n++ {
			s := mem.New()
			f := storagetest.FailAt(s, n, when, broken)
			_, err := repository.Create(t.Context(), f)
			if !f.Fired() {
				break
			}
			if n > 10 {
				t.Fatal("no end")
			}
			// A lost answer that there is nothing to open is no error.
			if err != nil && !errors.Is(err, broken) {
				t.Fatalf("operation %d: %v", n, err)
			}
			if _, err := repository.Create(t.Context(), s); err != nil {
				t.Fatalf("retry after operation %d: %v", n, err)
			}
		}
	}
}

// TestCreate_Member: a repository is never made in the data directory of an etcd member.
func TestCreate_Member(t *testing.T) {
	for _, key := range []string{"member/snap/db", "member/wal/0000000000000000-0000000000000000.wal"} {
		s := mem.New()
		create(t, s, key, []byte("bytes"))
		var refused *backup.RefusedError
		_, err := repository.Create(t.Context(), s)
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: got %v", key, err)
		}
		if got := keys(t, s); len(got) != 1 {
			t.Errorf("the place holds %q", got)
		}
	}
	// A cluster may have that name.
	s := mem.New()
	create(t, s, manifest("member", started, 1).DataKey(), []byte("0123456789"))
	if _, err := repository.Create(t.Context(), s); err != nil {
		t.Error(err)
	}
}

// TestCommit_Swapped: a snapshot is not stored in a repository that is not there any
// more, or is another. Its data is discarded: it will have no manifest.
func TestCommit_Swapped(t *testing.T) {
	for name, change := range map[string]func(s *mem.Store) error{
		"Gone": func(*mem.Store) error { return nil },
		"Another": func(s *mem.Store) error {
			_, err := repository.Create(t.Context(), s)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			repo, err := repository.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			m := manifest("prod", started, 7)
			create(t, s, m.DataKey(), []byte("0123456789"))
			if err := errors.Join(s.Delete(t.Context(), backup.MarkerKey), change(s)); err != nil {
				t.Fatal(err)
			}
			left := slices.DeleteFunc(keys(t, s), func(key string) bool { return key == m.DataKey() })
			var absent *repository.AbsentError
			if err := repo.Cluster("prod").Commit(t.Context(), m); !errors.As(err, &absent) || absent.Known != repo.ID() {
				t.Errorf("got %v", err)
			}
			if got := keys(t, s); !slices.Equal(got, left) {
				t.Errorf("the store holds %q, want %q", got, left)
			}
		})
	}
	// Where nobody knows the repository nothing is stored.
	s := mem.New()
	if err := repository.At(s, "").Cluster("prod").Commit(t.Context(), manifest("prod", started, 7)); err == nil ||
		len(keys(t, s)) != 0 {
		t.Errorf("got %v, the store holds %q", err, keys(t, s))
	}
}

func TestOpen_Refuses(t *testing.T) {
	for text, corrupt := range map[string]bool{
		"":                                   true,
		"{}":                                 true,
		"not json":                           true,
		`{"format":"backupd/repository/v1"}`: true,
		`{"format":"backupd/repository/v1","id":"short"}`: true,
		`{"format":7}`: true,
		`{"format":"backupd/repository/v1","id":7}`:                              true,
		`{"format":"backupd/repository/v2","id":{"of":"another shape"}}`:         false,
		`{"format":"backupd/repository/v1","id":"` + strings.Repeat("x", 70<<10): true,
	} {
		s := mem.New()
		if err := s.Create(t.Context(), backup.MarkerKey, strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		_, err := openAny(t.Context(), s)
		if err == nil || errors.Is(err, backup.ErrCorrupt) != corrupt || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%.60s: got error %v", text, err)
		}
		if !corrupt && !strings.Contains(err.Error(), "backupd/repository/v2") {
			t.Errorf("%.60s: got error %v", text, err)
		}
		if _, err := repository.Create(t.Context(), s); err == nil {
			t.Errorf("%.60s: was initialized over", text)
		}
	}
}
