package daemon_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
)

// notThere is in the error of a daemon whose repository is not mounted.
const notThere = "is not at its address"

func (h *house) folder() string { return filepath.Join(h.dir, "repository") }

// away takes the repository away, as when its disk is not mounted.
func (h *house) away() {
	h.t.Helper()
	h.must(os.Rename(h.folder(), h.folder()+".away"))
}

// back mounts it again.
func (h *house) back() {
	h.t.Helper()
	h.must(os.RemoveAll(h.folder()))
	h.must(os.Rename(h.folder()+".away", h.folder()))
}

// unreadable puts a file where the repository, if there is one, was.
func (h *house) unreadable() {
	h.t.Helper()
	if err := os.Rename(h.folder(), h.folder()+".away"); err != nil && !errors.Is(err, os.ErrNotExist) {
		h.t.Fatal(err)
	}
	h.must(os.WriteFile(h.folder(), nil, 0o600))
}

func (h *house) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// manifest returns the manifest of a snapshot.
func (h *house) manifest(d *daemon.Daemon, id string) *backup.Manifest {
	h.t.Helper()
	got, err := d.Snapshot(h.t.Context(), inMain("prod"), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return got.Manifest.(*backup.Manifest)
}

// damage changes a byte in the middle of an object.
func (h *house) damage(key string) { damage(h.t, filepath.Join(h.folder(), key)) }

// damage does the same behind the back of the S3 server.
func (g *gate) damage(key string) { damage(g.t, filepath.Join(g.s3.Dir(), "x", key)) }

func damage(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err == nil {
		raw[len(raw)/2] ^= 1
		err = errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, raw, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// remove removes a snapshot, or a part of it.
func (h *house) remove(keys ...string) {
	h.t.Helper()
	for _, key := range keys {
		h.must(h.store("main").Delete(h.t.Context(), key))
	}
}

// rm removes a snapshot as an operator does.
func (h *house) rm(m *backup.Manifest) {
	h.t.Helper()
	repo, err := repository.Open(h.t.Context(), h.store("main"), "")
	h.must(err)
	h.must(prune.Delete(h.t.Context(), repo.Cluster(m.Cluster), m.ID, "test"))
}

// create stores a manifest with some data, unless data is there.
func (h *house) create(m *backup.Manifest) {
	h.t.Helper()
	raw, err := m.Marshal()
	h.must(err)
	err = h.store("main").Create(h.t.Context(), m.DataKey(), strings.NewReader("data"))
	if !errors.Is(err, os.ErrExist) {
		h.must(err)
	}
	h.must(h.store("main").Create(h.t.Context(), m.Key(), strings.NewReader(string(raw))))
}

// listing returns all paths below a folder.
func listing(t *testing.T, folder string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// sameSecond stores copies of a snapshot with other revisions, begun in the same
// second.
func (h *house) sameSecond(m *backup.Manifest, revisions ...backup.Revision) (ids []string) {
	h.t.Helper()
	another := *m
	for _, r := range revisions {
		another.Revision, another.HighWaterRevision = r, r
		another.ID = backup.NewDataName(m.StartedAt).WithRevision(r)
		h.create(&another)
		ids = append(ids, string(another.ID))
	}
	return ids
}

// read returns an object, and write stores it where it is not, or not like that.
func (h *house) read(key string) []byte {
	h.t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.folder(), key))
	h.must(err)
	return raw
}

func (h *house) write(key string, raw []byte) {
	h.t.Helper()
	h.must(os.WriteFile(filepath.Join(h.folder(), key), raw, 0o600))
}
