package etcddb_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
)

// TestInspect_Defects makes one defect each in a database whose pages are in
// order: bbolt and etcdutl see nothing in most of them.
func TestInspect_Defects(t *testing.T) {
	for _, c := range []struct {
		name string
		want string // in the error, so that the place is named
		fill func(tx *bolt.Tx)
	}{
		{"ShortRecordKey", "record key 1234", func(tx *bolt.Tx) { store(tx, "key", []byte("\x12\x34"), nil) }},
		{"NotARevision", "is not a revision", func(tx *bolt.Tx) { store(tx, "key", []byte("seventeen bytes.."), nil) }},
		{"ValueCut", "record 3_0: decode", func(tx *bolt.Tx) {
			store(tx, "key", revisionKey(3, 0), []byte("\x0a\x09short"))
		}},
		{"OtherRevision", "record 9_1: says that it was written at revision 8", func(tx *bolt.Tx) {
			put(tx, 8, 0, 8, 1, "k", nil)
			v := tx.Bucket([]byte("key")).Get(revisionKey(8, 0))
			store(tx, "key", revisionKey(9, 1), v)
		}},
		{
			"CreatedLater", "record 5_0: says that the key was created",
			func(tx *bolt.Tx) { put(tx, 5, 0, 6, 1, "k", nil) },
		},
		{
			"NeverCreated", "record 5_0: says that the key was created",
			func(tx *bolt.Tx) { put(tx, 5, 0, 0, 1, "k", nil) },
		},
		{"NoVersion", "record 5_0: version 0", func(tx *bolt.Tx) { put(tx, 5, 0, 5, 0, "k", nil) }},
		{"NoKey", "record 5_0: names no key", func(tx *bolt.Tx) { put(tx, 5, 0, 5, 1, "", nil) }},
		{"EmptyWithSub", "record 5_2: names no key", func(tx *bolt.Tx) { store(tx, "key", revisionKey(5, 2), nil) }},
		{"EmptyTombstone", "record 5_0 (tombstone): names no key", func(tx *bolt.Tx) {
			store(tx, "key", append(revisionKey(5, 0), 't'), nil)
		}},
		{"FullTombstone", "record 5_0 (tombstone): holds more", func(tx *bolt.Tx) {
			store(tx, "key", append(revisionKey(5, 0), 't'), []byte("\x0a\x01k\x10\x01"))
		}},
		{"NestedBucket", "no nested buckets", func(tx *bolt.Tx) {
			if _, err := tx.Bucket([]byte("lease")).CreateBucket([]byte("inner")); err != nil {
				panic(err)
			}
		}},
		{"NoMeta", `"meta" is missing`, func(tx *bolt.Tx) { drop(tx, "meta") }},
		{"NoRecords", `"key" is missing`, func(tx *bolt.Tx) { drop(tx, "key") }},
		{"PutAndTombstone", "record 5_0 (tombstone): there is also record 5_0", func(tx *bolt.Tx) {
			put(tx, 5, 0, 5, 1, "k", nil)
			tombstone(tx, 5, 0, "k")
		}},
		{"ValueOfAnotherType", "record 5_0: decode: field 5 has wire type 0", func(tx *bolt.Tx) {
			store(tx, "key", revisionKey(5, 0), []byte("\x0a\x01k\x10\x05\x18\x05\x20\x01\x28\x01"))
		}},
		{"CompactRevision", "finishedCompactRev", func(tx *bolt.Tx) {
			store(tx, "meta", []byte("finishedCompactRev"), []byte("x"))
		}},
		{"Index", "consistent_index has 3 bytes", func(tx *bolt.Tx) {
			store(tx, "meta", []byte("consistent_index"), []byte("abc"))
		}},
		{"StorageVersion", "is not a version", func(tx *bolt.Tx) {
			store(tx, "meta", []byte("storageVersion"), []byte("3.x.0"))
		}},
		{"Member", "member 1f: decode", func(tx *bolt.Tx) { store(tx, "members", []byte("1f"), []byte("{")) }},
		{"OtherMember", "member 1f: calls itself 7", func(tx *bolt.Tx) {
			store(tx, "members", []byte("1f"), []byte(`{"id":7}`))
		}},
		{"RemovedMember", "member key", func(tx *bolt.Tx) { store(tx, "members_removed", []byte("?"), nil) }},
		{"Lease", "lease key", func(tx *bolt.Tx) { store(tx, "lease", []byte("1"), nil) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := etcddb.Inspect(t.Context(), build(t, c.fill))
			if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want ErrCorrupt and %q", err, c.want)
			}
		})
	}
}

func drop(tx *bolt.Tx, bucket string) {
	if err := tx.DeleteBucket([]byte(bucket)); err != nil {
		panic(err)
	}
}

// TestInspect_ReadOnly looks at a file that cannot be written in a directory
// that cannot be written, and leaves no trace.
func TestInspect_ReadOnly(t *testing.T) {
	path := snapshotOf(t, objects(t, 2<<20))
	before, err := os.ReadFile(path)
	must(t, err)
	old := time.Now().Add(-time.Hour).Truncate(time.Second)
	must(t, os.Chtimes(path, old, old))
	must(t, os.Chmod(path, 0o400))
	dir := filepath.Dir(path)
	must(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { must(t, os.Chmod(dir, 0o700)) })

	_, err = etcddb.Inspect(t.Context(), path)
	must(t, err)
	must(t, trailer.Verify(t.Context(), path, nil))
	after, err := os.ReadFile(path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	if string(after) != string(before) || !info.ModTime().Equal(old) {
		t.Error("the file was changed")
	}
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("the directory holds %v", entries)
	}
}

func TestInspect_Refuses(t *testing.T) {
	path := objects(t, 1<<20)
	t.Run("Missing", func(t *testing.T) {
		if _, err := etcddb.Inspect(t.Context(), path+".missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("error %v, want fs.ErrNotExist", err)
		}
	})
	t.Run("Directory", func(t *testing.T) {
		if _, err := etcddb.Inspect(t.Context(), t.TempDir()); err == nil || errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("error %v, want one that does not say corrupt", err)
		}
	})
	t.Run("Pipe", func(t *testing.T) {
		pipe := filepath.Join(t.TempDir(), "pipe")
		must(t, syscall.Mkfifo(pipe, 0o600))
		if _, err := etcddb.Inspect(t.Context(), pipe); err == nil {
			t.Error("no error")
		}
	})
	t.Run("InUse", func(t *testing.T) {
		db, err := bolt.Open(path, 0o600, nil)
		must(t, err)
		_, err = etcddb.Inspect(t.Context(), path)
		must(t, db.Close())
		if err == nil || errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "in use") {
			t.Errorf("error %v, want one that says it is in use", err)
		}
	})
	t.Run("Cancelled", func(t *testing.T) {
		reason := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(reason)
		if _, err := etcddb.Inspect(ctx, path); !errors.Is(err, reason) {
			t.Errorf("error %v, want %v", err, reason)
		}
	})
}

// TestInspect_CancelledMeanwhile gives the child less time than it needs.
func TestInspect_CancelledMeanwhile(t *testing.T) {
	path := objects(t, 32<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := etcddb.Inspect(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want context.DeadlineExceeded", err)
	}
}

// TestInspect_MemberFile reads a member's own file: no trailer, and longer than
// its database.
func TestInspect_MemberFile(t *testing.T) {
	path := objects(t, 1<<20)
	want, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.Truncate(path, info.Size()+16<<20))
	frame, err := etcddb.ReadFrame(path)
	must(t, err)
	if frame.HasTrailer || frame.DatabaseBytes != want.DatabaseBytes || frame.FileBytes != info.Size()+16<<20 ||
		frame.PageBytes != want.PageBytes {
		t.Errorf("frame %+v of a database of %d bytes", frame, want.DatabaseBytes)
	}
	if err := trailer.Verify(t.Context(), path, nil); !errors.Is(err, trailer.ErrNone) ||
		!errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("VerifyTrailer: %v, want ErrNoTrailer", err)
	}
	got, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	if got.HashKV != want.HashKV || got.StatusHash != want.StatusHash {
		t.Errorf("facts %+v, want %+v", got, want)
	}
}

func TestVerifyTrailer(t *testing.T) {
	path := snapshotOf(t, objects(t, 1<<20))
	frame, err := etcddb.ReadFrame(path)
	must(t, err)
	if !frame.HasTrailer || frame.FileBytes != frame.DatabaseBytes+32 {
		t.Errorf("frame of a snapshot: %+v", frame)
	}
	var last int64
	must(t, trailer.Verify(t.Context(), path, func(n int64) { last = n }))
	if last != frame.DatabaseBytes {
		t.Errorf("progress ended at %d of %d bytes", last, frame.DatabaseBytes)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 4
	must(t, os.WriteFile(path, data, 0o600))
	err = trailer.Verify(t.Context(), path, nil)
	var expected, got string
	if !errors.Is(err, backup.ErrCorrupt) || !strings.Contains(err.Error(), "expected sha256 ") {
		t.Fatalf("error %v, want ErrCorrupt that names both sums", err)
	}
	_, sums, _ := strings.Cut(err.Error(), "expected sha256 ")
	expected, got, _ = strings.Cut(sums, ", got ")
	got = strings.TrimSuffix(got, " in "+path)
	if len(expected) != 64 || len(got) != 64 || expected == got {
		t.Errorf("error names %q and %q", expected, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := trailer.Verify(ctx, path, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}
