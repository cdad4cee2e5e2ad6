package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// wantOnly checks that the folder holds one file, and returns its bytes.
func wantOnly(t *testing.T, dir, name string) []byte {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != name {
		t.Fatalf("%s holds %v, %v, want only %s", dir, files, err, name)
	}
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSaver_Save(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	real.WaitStorageVersion(t, "3.7.0")
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{})
	dir := t.TempDir()
	path := filepath.Join(dir, "snap.db")
	saver := snapshot.Saver{
		Source: connect(t, real.Endpoints()...),
		Progress: func(done, total int64) {
			// Until the end there is no file of that name.
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after %d of %d bytes: %v", done, total, err)
			}
		},
	}
	saved, err := saver.Save(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	raw := wantOnly(t, dir, "snap.db")
	if saved.Bytes != int64(len(raw)) || saved.Endpoint != real.Members[0].ClientURL || saved.Version != "3.7.0" {
		t.Errorf("got %+v", saved)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	out := run(t, testserver.Binary(t, "3.7", "etcdutl"), "snapshot", "status", path, "-w", "fields")
	if !strings.Contains(string(out), "Revision") || filled.Revision == 0 {
		t.Errorf("etcdutl says %s", out)
	}
	// A whole snapshot again, over the file that was there.
	saver.Progress = nil
	if err := os.WriteFile(path, []byte("an older snapshot"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := saver.Save(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	again := wantOnly(t, dir, "snap.db")
	if sum := sha256.Sum256(again[:max(0, len(again)-32)]); !bytes.HasSuffix(again, sum[:]) {
		t.Errorf("over an older file: got %d bytes that are no snapshot", len(again))
	}
}

// TestSaver_Save_Fails: the file that was there stays, and nothing is added.
func TestSaver_Save_Fails(t *testing.T) {
	db := realDatabase(t)
	for name, c := range map[string]struct {
		send testserver.SnapshotFunc
		is   error
	}{
		"WrongTrailer": {testserver.WrongTrailer(db.raw), backup.ErrCorrupt},
		"Truncated":    {testserver.Truncated(db.raw, 20_000), backup.ErrCorrupt},
		"Cancelled":    {testserver.StallAfter(db.raw, 20_000), context.DeadlineExceeded},
	} {
		for _, older := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "snap.db")
				if older {
					if err := os.WriteFile(path, []byte("an older snapshot"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				saver := snapshot.Saver{Source: connect(t, startFakes(t, db, c.send).urls...)}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := saver.Save(ctx, path); !errors.Is(err, c.is) {
					t.Errorf("got %v", err)
				}
				if !older {
					wantEmpty(t, dir)
				} else if raw := wantOnly(t, dir, "snap.db"); string(raw) != "an older snapshot" {
					t.Errorf("it was replaced by %d bytes", len(raw))
				}
			})
		}
	}
}

func TestSaver_Save_Target(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	saver := snapshot.Saver{Source: connect(t, f.urls...)}
	dir := t.TempDir()
	for _, path := range []string{dir, "/dev/null"} {
		if _, err := saver.Save(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := saver.Save(t.Context(), filepath.Join(dir, "missing", "snap.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: got %v", err)
	}
	tooLong := filepath.Join(dir, strings.Repeat("a", 256))
	if _, err := saver.Save(t.Context(), tooLong); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("too long: got %v", err)
	}
	wantEmpty(t, dir)
	if n := f.streams.Load(); n != 0 {
		t.Errorf("etcd was asked for %d streams", n)
	}
	longest := tooLong[:len(tooLong)-1]
	if _, err := saver.Save(t.Context(), longest); err != nil {
		t.Errorf("the longest name: got %v", err)
	}
	wantOnly(t, dir, filepath.Base(longest))
}

// TestSaver_Save_Room: a file that leaves less than the default reserve is written all the
// same, as by etcdctl, and a warning says so.
func TestSaver_Save_Room(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	dir := t.TempDir()
	at, err := disk.FileSystemOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Others write here: the size has 1 % of the file system to spare on both sides.
	low := at.Free - disk.Reserve{}.Of(at) + at.Total/100
	size := max(low, int64(len(db.raw)))
	f.lie(func(_ uint64, st *pb.StatusResponse) { st.DbSize = size }, nil)
	var log bytes.Buffer
	saver := snapshot.Saver{Source: connect(t, f.urls...), Log: slog.New(slog.NewTextHandler(&log, nil))}
	if _, err := saver.Save(t.Context(), filepath.Join(dir, "snap.db")); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, dir, "snap.db")
	if !strings.Contains(log.String(), "level=WARN msg=\"the snapshot leaves little space") {
		t.Errorf("got %s", log.String())
	}
}

// TestSaver_Save_NextMember: the file is written from its beginning again with the
// next member.
func TestSaver_Save_NextMember(t *testing.T) {
	db := realDatabase(t)
	longer := append(bytes.Clone(db.raw), db.raw...) // must leave no tail behind
	f := startFakes(t, db, testserver.WrongTrailer(longer), testserver.GoodSnapshot(db.raw))
	dir := t.TempDir()
	var chosen *cluster.Survey
	saver := snapshot.Saver{Source: connect(t, f.urls...), Chosen: func(s *cluster.Survey) { chosen = s }}
	saved, err := saver.Save(t.Context(), filepath.Join(dir, "snap.db"))
	if err != nil || saved.Endpoint != f.urls[1] || chosen == nil || chosen.Candidates[0].Endpoint != f.urls[0] {
		t.Fatalf("got %+v, %v", saved, err)
	}
	if raw := wantOnly(t, dir, "snap.db"); len(raw) != len(db.raw)+sha256.Size || !bytes.HasPrefix(raw, db.raw) {
		t.Errorf("got %d bytes", len(raw))
	}
}

func TestSaver_Stream(t *testing.T) {
	db := realDatabase(t)
	good := testserver.GoodSnapshot(db.raw)
	lost := status.Error(codes.Internal, "disk on fire")
	sum := sha256.Sum256(db.raw)
	for name, c := range map[string]struct {
		members []testserver.SnapshotFunc
		want    string // "" is success
	}{
		"OK":           {[]testserver.SnapshotFunc{good}, ""},
		"LostBefore":   {[]testserver.SnapshotFunc{testserver.FailAfter(db.raw, 0, lost), good}, ""},
		"LostMidway":   {[]testserver.SnapshotFunc{testserver.FailAfter(db.raw, 20_000, lost), good}, "disk on fire"},
		"WrongTrailer": {[]testserver.SnapshotFunc{testserver.WrongTrailer(db.raw)}, "expected sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			saver := snapshot.Saver{Source: connect(t, startFakes(t, db, c.members...).urls...)}
			saved, err := saver.Stream(t.Context(), &out)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil || saved.Bytes != int64(out.Len()) ||
				!bytes.Equal(out.Bytes(), append(bytes.Clone(db.raw), sum[:]...)) {
				t.Errorf("got %+v, %v, %d bytes", saved, err, out.Len())
			}
		})
	}
	t.Run("WriterFails", func(t *testing.T) {
		f := startFakes(t, db, good, good)
		saver := snapshot.Saver{Source: connect(t, f.urls...)}
		if _, err := saver.Stream(t.Context(), failingWriter{}); !errors.Is(err, errFault) || f.streams.Load() != 1 {
			t.Errorf("got %v in %d streams", err, f.streams.Load())
		}
	})
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFault }
