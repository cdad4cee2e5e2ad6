package repository_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

// uncommitted is a repository that holds the data of a snapshot without a manifest.
func uncommitted(t *testing.T) (storage.Store, *backup.Manifest) {
	t.Helper()
	s, m := file.New(t.TempDir()), manifest("prod", started, 5)
	create(t, s, m.DataKey(), []byte("0123456789"))
	marker := backup.NewMarker(started)
	marker.ID = in(s).ID()
	raw, err := marker.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, backup.MarkerKey, raw)
	return s, m
}

// held lists all but the marker.
func held(t *testing.T, s storage.Store) []string {
	t.Helper()
	return slices.DeleteFunc(keys(t, s), func(key string) bool { return key == backup.MarkerKey })
}

// TestCommit_Ambiguous: the creation of the manifest fails, and the manifest may be
// there all the same. Whatever Commit finds out, the data stays: without it such a
// manifest would be of a snapshot that is lost.
func TestCommit_Ambiguous(t *testing.T) {
	for name, c := range map[string]struct {
		stored  bool // the manifest is, and only the answer is lost
		silent  bool // nothing can be read
		stopped bool // the context ends at the same moment
		want    error
	}{
		"AnswerLost":        {stored: true},
		"Stopped":           {stored: true, stopped: true},
		"AnswerLost/Silent": {stored: true, silent: true, want: errFault},
		"NotStored":         {want: errFault},
		"NotStored/Silent":  {silent: true, want: errFault},
		"NotStored/Stopped": {stopped: true, want: errFault},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := uncommitted(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			fail := func(_ context.Context, op storage.Op, key string) error {
				if op == storage.OpCreate && c.stopped {
					stop()
				}
				if op == storage.OpCreate || op == storage.OpOpen && c.silent && key != backup.MarkerKey {
					return errFault
				}
				return nil
			}
			hooked := &storagetest.Hook{Store: s, Before: fail}
			if c.stored {
				hooked = &storagetest.Hook{Store: s, After: fail}
			}
			if err := prod(hooked).Commit(ctx, m); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			want := []string{m.DataKey()}
			if c.stored {
				want = append(want, m.Key())
			}
			if got := held(t, s); !slices.Equal(got, want) {
				t.Errorf("the store holds %q, want %q", got, want)
			}
		})
	}
}

// TestCommit_Taken: the name is that of another snapshot. It is no success, and the
// data stays, for the other manifest names it.
func TestCommit_Taken(t *testing.T) {
	s, m := uncommitted(t)
	other := *m
	other.Stored.SHA256 = backup.Digest{9}
	addManifest(t, s, &other)
	if err := prod(s).Commit(t.Context(), m); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v", err)
	}
	if got, want := held(t, s), []string{m.DataKey(), m.Key()}; !slices.Equal(got, want) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

// TestCommit_Never: it is certain that there will be no manifest, so the data goes,
// also when the process is about to end.
func TestCommit_Never(t *testing.T) {
	stopped := errors.New("the daemon is stopped")
	ctx, stop := context.WithCancelCause(t.Context())
	stop(stopped)
	s, m := uncommitted(t)
	if err := prod(s).Commit(ctx, m); !errors.Is(err, stopped) || len(held(t, s)) > 0 {
		t.Errorf("stopped: got %v, the store holds %q", err, held(t, s))
	}
	s, m = uncommitted(t)
	m.Members = nil
	if err := prod(s).Commit(t.Context(), m); err == nil || len(held(t, s)) > 0 {
		t.Errorf("a manifest that is not valid: got %v, the store holds %q", err, held(t, s))
	}
	s, m = uncommitted(t)
	if err := in(s).Cluster("lab").Commit(t.Context(), m); err == nil || !slices.Equal(held(t, s), []string{m.DataKey()}) {
		t.Errorf("of another cluster: got %v, the store holds %q", err, held(t, s))
	}
}
