package etcddb_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestPrepare_BumpAfterCompaction bumps databases whose newest records a compaction has
// removed, as etcd 3.4 removes a tombstone at the compact revision. The bump counts from
// the revision with which a server would start, and old watchers are told.
func TestPrepare_BumpAfterCompaction(t *testing.T) {
	const newest, bump = 53, 10
	for _, c := range []struct {
		version, key string
		last         int64
	}{
		{"3.5", "finishedCompactRev", 40},
		{"3.6", "scheduledCompactRev", 48}, // the compaction was not finished
		{"3.7", "finishedCompactRev", 0},   // without any record
	} {
		path := build(t, func(tx *bolt.Tx) {
			for rev := int64(2); rev <= c.last; rev++ {
				put(tx, rev, 0, 2, rev-1, "key", nil)
			}
			store(tx, "meta", []byte(c.key), revisionKey(newest, 0))
		})
		before, err := etcddb.Inspect(t.Context(), path)
		must(t, err)
		dir, peer := filepath.Join(t.TempDir(), "restored"), testserver.FreeURL(t)
		restoreBySkeleton(t, path, dir, peer, etcddb.PrepareOptions{BumpRevision: bump})
		after, err := etcddb.Inspect(t.Context(), databaseOf(dir))
		must(t, err)
		if before.Revision != newest || after.Revision != newest+bump || after.CompactRevision != newest+bump {
			t.Errorf("%s at %d: revision %d becomes %d, compacted at %d; want %d bumped by %d", c.key, c.last,
				before.Revision, after.Revision, after.CompactRevision, newest, bump)
		}
		server := testserver.StartRestored(t, c.version, []testserver.RestoredMember{{
			Name: "m1", DataDir: dir, PeerURL: peer, ClientURL: testserver.FreeURL(t),
		}})
		client := server.Client(t)
		if err := watchFrom(t, client, newest+1); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("etcd %s: a watcher of the old cluster hears %v, want that its revision is compacted", c.version, err)
		}
		all, err := client.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
		must(t, err)
		if all.Count != after.Keys() || all.Count != before.Keys() {
			t.Errorf("etcd %s counts %d keys; facts: %d before and %d after", c.version, all.Count, before.Keys(), after.Keys())
		}
		status, err := client.Status(t.Context(), server.Endpoints()[0])
		must(t, err)
		hash, err := client.HashKV(t.Context(), server.Endpoints()[0], newest+bump)
		must(t, err)
		if want := etcddb.BumpedHash(before.LiveHash, newest+bump); hash.Hash != want.Hash ||
			backup.Revision(hash.CompactRevision) != want.CompactRevision {
			t.Errorf("etcd %s answers HashKV %d at compact revision %d, want %+v", c.version, hash.Hash,
				hash.CompactRevision, want)
		}
		if backup.Revision(status.Header.Revision) != newest+bump {
			t.Errorf("etcd %s starts at revision %d, want %d", c.version, status.Header.Revision, newest+bump)
		}
	}
}

// watchFrom returns the error that ends a watch, or that of a time-out.
func watchFrom(t testing.TB, client *clientv3.Client, rev int64) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for resp := range client.Watch(ctx, "key", clientv3.WithRev(rev)) {
		if err := resp.Err(); err != nil {
			return err
		}
	}
	return ctx.Err()
}
