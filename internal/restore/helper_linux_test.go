package restore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/restore"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o644))
	return to
}

func download(t testing.TB, client *clientv3.Client, path string) string {
	t.Helper()
	stream, err := client.Snapshot(t.Context())
	must(t, err)
	file, err := os.Create(path)
	must(t, err)
	_, err = io.Copy(file, stream)
	must(t, err)
	must(t, file.Close())
	must(t, stream.Close())
	return path
}

func fromFile(t testing.TB, path string) restore.Source {
	t.Helper()
	src, err := restore.FromFile(t.Context(), path, restore.RequireHash, nil)
	must(t, err)
	return src
}

// request is everything that an operator asks of one restore.
type request struct {
	restore.Site
	restore.Request
	restore.Options
	before func(op, path string) error // called before each visible change
}

// plan decides a restore of src and checks it.
func (r *request) plan(ctx context.Context, src restore.Source) (*restore.Work, error) {
	p, err := restore.NewPlan(src.About(), r.Request)
	if err != nil {
		return nil, err
	}
	return r.Site.Check(ctx, p)
}

func (r *request) execute(ctx context.Context, w *restore.Work, src restore.Source) error {
	return w.ExecuteBefore(ctx, src, r.Options, r.before)
}

// restoreFile plans and does a restore of the file at path.
func restoreFile(t testing.TB, path string, req request) *restore.Plan {
	t.Helper()
	src := fromFile(t, path)
	w, err := req.plan(t.Context(), src)
	must(t, err)
	must(t, req.execute(t.Context(), w, src))
	return w.Plan
}

func databaseOf(dir string) string { return filepath.Join(dir, "member", "snap", "db") }

// walOf returns everything a WAL says.
func walOf(t testing.TB, dir string) string {
	t.Helper()
	w, err := wal.OpenForRead(zap.NewNop(), dir, &walpb.Snapshot{})
	must(t, err)
	defer w.Close() // only read from
	metadata, state, entries, err := w.ReadAll()
	must(t, err)
	snapshots, err := wal.ValidSnapshotEntries(zap.NewNop(), dir)
	must(t, err)
	var b strings.Builder
	fmt.Fprintf(&b, "metadata %x\nstate %s\n", metadata, state.String())
	for _, e := range entries {
		fmt.Fprintf(&b, "entry %s\n", e.String())
	}
	for _, s := range snapshots {
		fmt.Fprintf(&b, "snapshot %s\n", s.String())
	}
	return b.String()
}

// The order in which members came into the old store is that of a Go map.
var orders = regexp.MustCompile(`"(Created|Modified)Index":[0-9]+`)

// snapsOf returns the contents of all .snap files by name.
func snapsOf(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	paths, err := filepath.Glob(filepath.Join(dir, "member", "snap", "*.snap"))
	must(t, err)
	for _, path := range paths {
		s, err := snap.Read(zap.NewNop(), path)
		must(t, err)
		tree, _, _ := bytes.Cut(s.Data, []byte(`,"WatcherHub":`))
		out[filepath.Base(path)] = fmt.Sprintf("%s\n%s", s.Metadata.String(), orders.ReplaceAll(tree, nil))
	}
	return out
}

// dump returns every key and value of the database at path by bucket and key.
func dump(t testing.TB, path string) map[string]string {
	t.Helper()
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true})
	must(t, err)
	defer db.Close() // only read from
	all := make(map[string]string)
	must(t, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			all[fmt.Sprintf("bucket %s", name)] = ""
			return b.ForEach(func(k, v []byte) error {
				all[fmt.Sprintf("%s / %x", name, k)] = fmt.Sprintf("%x", v)
				return nil
			})
		})
	}))
	return all
}

// contentBytes is how much of each file is compared: the rest of a WAL segment
// of 64 MiB is zero.
const contentBytes = 1 << 20

// contents lists everything below dir with type, mode, owner and content.
func contents(t testing.TB, dir string) map[string]string {
	return list(t, dir, func(path string, st fs.FileInfo) string {
		if !st.Mode().IsRegular() {
			return ""
		}
		file, err := os.Open(path)
		must(t, err)
		defer file.Close()
		h := sha256.New()
		_, err = io.CopyN(h, file, contentBytes)
		if !errors.Is(err, io.EOF) {
			must(t, err)
		}
		return fmt.Sprintf("size %d %x", st.Size(), h.Sum(nil))
	})
}

// identities lists everything below dir with inode and time of change too, so
// that whatever is done to it shows.
func identities(t testing.TB, dir string) map[string]string {
	return list(t, dir, func(_ string, st fs.FileInfo) string {
		sys := st.Sys().(*syscall.Stat_t)
		return fmt.Sprintf("inode %d size %d modified %v changed %v", sys.Ino, st.Size(), sys.Mtim, sys.Ctim)
	})
}

func list(t testing.TB, dir string, more func(string, fs.FileInfo) string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		rel, err := filepath.Rel(dir, path)
		out[rel] = fmt.Sprintf("%s %d:%d %s", st.Mode(), sys.Uid, sys.Gid, more(path, st))
		return err
	}))
	return out
}

func same(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	shown := 0
	for k, g := range got {
		if w, ok := want[k]; (!ok || g != w) && shown < 10 {
			shown++
			t.Errorf("%s: %q is %.300q, want %.300q", what, k, g, w)
		}
	}
	for k, w := range want {
		if _, ok := got[k]; !ok && shown < 10 {
			shown++
			t.Errorf("%s: %q is missing, want %.300q", what, k, w)
		}
	}
}

// noLitter fails when the folders hold anything that a restore in progress
// would have there.
func noLitter(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if strings.Contains(filepath.Base(path), ".backupd-restore") {
				t.Errorf("left behind: %s", path)
			}
			return err
		}))
	}
}
