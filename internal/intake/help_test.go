package intake_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"compress/lzw"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/intake"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder is a spool that must be empty in the end.
func folder(t *testing.T) spool.Folder {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the spool: %v, %v", left, err)
		}
	})
	return spool.Folder{Dir: dir, MinFree: disk.ReserveOf(0)}
}

// part returns a cluster's part of the repository in a store, which is made if there is none.
func part(t *testing.T, s storage.Store, name string) *repository.Cluster {
	t.Helper()
	repo, err := repository.Create(t.Context(), s)
	must(t, err)
	return repo.Cluster(name)
}

func importer(t *testing.T, to *repository.Cluster) *intake.Importer {
	t.Helper()
	return &intake.Importer{To: to, By: "test", Taker: &snapshot.Taker{
		Codec: codec.Options{Compress: codec.Zstd}, Spool: folder(t), Tool: "test",
	}}
}

// importFile imports a file as the command does.
func importFile(t *testing.T, i *intake.Importer, path string) (intake.Done, error) {
	t.Helper()
	files, failed := intake.Find([]string{path}, time.Now())
	if len(files) != 1 {
		return intake.Done{}, failed[path]
	}
	return i.Import(t.Context(), files[0])
}

// imported imports a file that must be taken, and verifies what is stored.
func imported(t *testing.T, i *intake.Importer, path string) *backup.Manifest {
	t.Helper()
	done, err := importFile(t, i, path)
	must(t, err)
	m := done.Manifest
	if done.Present || !done.Pinned || m.State() != backup.Unconfirmed || m.Imported == nil {
		t.Errorf("%s: %+v is %s", path, done, m.State())
	}
	verified(t, i.To, m)
	return m
}

// verified verifies a stored snapshot in full.
func verified(t *testing.T, in *repository.Cluster, m *backup.Manifest) {
	t.Helper()
	item, err := in.Item(t.Context(), m.ID)
	must(t, err)
	v := &snapshot.Verifier{Cluster: in, Spool: folder(t)}
	if _, err := v.Verify(t.Context(), item); err != nil {
		t.Errorf("verify %s: %v", m.ID, err)
	}
}

// save saves a snapshot as an operator does.
func save(t *testing.T, c *testserver.Cluster, path string) string {
	t.Helper()
	version := max(c.Version, "3.5") // the etcdctl of 3.4 is not there, and a later one does the same
	out, err := exec.Command(testserver.Binary(t, version, "etcdctl"), "--endpoints="+c.Endpoints()[0],
		"snapshot", "save", path).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// pack writes what write makes of the file at path into a new one.
func pack(t *testing.T, path, as string, write func(w io.Writer, raw []byte) error) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	var b bytes.Buffer
	must(t, write(&b, raw))
	return put(t, as, b.Bytes())
}

func put(t *testing.T, path string, raw []byte) string {
	t.Helper()
	must(t, os.WriteFile(path, raw, 0o600))
	return path
}

func asIs(w io.Writer, raw []byte) error {
	_, err := w.Write(raw)
	return err
}

func closing(w io.WriteCloser, raw []byte) error {
	if _, err := w.Write(raw); err != nil {
		return err
	}
	return w.Close()
}

func asGzip(w io.Writer, raw []byte) error { return closing(gzip.NewWriter(w), raw) }
func asZlib(w io.Writer, raw []byte) error { return closing(zlib.NewWriter(w), raw) }
func asLZW(w io.Writer, raw []byte) error  { return closing(lzw.NewWriter(w, lzw.LSB, 8), raw) }

func asZip(w io.Writer, raw []byte) error { return zipOf(w, raw, "etcd-snapshot-node1-1764500400") }

func zipOf(w io.Writer, raw []byte, names ...string) error {
	z := zip.NewWriter(w)
	for _, name := range names {
		f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate})
		if err != nil {
			return err
		}
		if _, err := f.Write(raw); err != nil {
			return err
		}
	}
	return z.Close()
}

// zipWith writes an archive whose only file is marked by header as what this package cannot unpack.
func zipWith(header zip.FileHeader) func(io.Writer, []byte) error {
	return func(w io.Writer, raw []byte) error {
		z := zip.NewWriter(w)
		f, err := z.CreateRaw(&header)
		if err != nil {
			return err
		}
		_, err = f.Write(raw)
		return errors.Join(err, z.Close())
	}
}

// asZstd is what is stored in a repository: frames and a table, which any program can unpack.
func asZstd(w io.Writer, raw []byte) error {
	enc, err := codec.NewEncoder(bytes.NewReader(raw), codec.Options{Compress: codec.Zstd})
	if err != nil {
		return err
	}
	defer enc.Close()
	_, err = io.Copy(w, enc)
	return err
}

// backUp takes a snapshot of a live cluster, as a daemon does.
func backUp(t *testing.T, source *cluster.Cluster, to *repository.Cluster) *backup.Manifest {
	t.Helper()
	known, err := repository.ReadTimelines(t.Context(), to)
	must(t, err)
	survey, err := source.Survey(t.Context())
	must(t, err)
	taker := &snapshot.Taker{
		Source: source, Codec: codec.Options{Compress: codec.Zstd}, Spool: folder(t), Tool: "test",
	}
	m, err := taker.Take(t.Context(), survey, snapshot.Target{Cluster: to, Timelines: known})
	must(t, err)
	return m
}

// write writes a few keys.
func write(t *testing.T, c *testserver.Cluster, n int) {
	t.Helper()
	client := c.Client(t)
	for i := range n {
		_, err := client.Put(t.Context(), fmt.Sprint("later/", i), time.Now().String())
		must(t, err)
	}
}

// listed returns the ids of all snapshots.
func listed(t *testing.T, in *repository.Cluster) (ids []backup.SnapshotID) {
	t.Helper()
	items, err := repository.Names(context.Background(), in, "")
	must(t, err)
	for _, i := range items {
		ids = append(ids, i.ID)
	}
	return ids
}

func name(dir, base string) string { return filepath.Join(dir, base) }

// at returns the same part of the repository through another store.
func at(s storage.Store, in *repository.Cluster) *repository.Cluster {
	return repository.At(s, in.Repository().ID()).Cluster(in.Name())
}
