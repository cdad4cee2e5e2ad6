package etcddb_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

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

func databaseOf(dir string) string { return filepath.Join(dir, "member", "snap", "db") }

// restorePlan is a one-member restore, for etcdutl's library and for us.
func restorePlan(path, dir, peer string, bump uint64) snapshot.RestoreConfig {
	return snapshot.RestoreConfig{
		SnapshotPath: path, Name: "m1", OutputDataDir: dir, PeerURLs: []string{peer},
		InitialCluster: "m1=" + peer, InitialClusterToken: "token-1",
		RevisionBump: bump, MarkCompacted: bump > 0, InitialMmapSize: 64 << 20,
	}
}

// restoreBySkeleton does what package restore does: etcdutl's library works on
// a skeleton, the real database takes its place and is prepared.
func restoreBySkeleton(t testing.TB, path, dir, peer string, o etcddb.PrepareOptions) {
	t.Helper()
	skeleton := filepath.Join(t.TempDir(), "skeleton.db")
	must(t, etcddb.NewSkeleton(skeleton))
	plan := restorePlan(skeleton, dir, peer, 0)
	plan.SkipHashCheck = true
	must(t, snapshot.NewV3(zap.NewNop()).Restore(plan))
	o.From = filepath.Join(t.TempDir(), "membership.db")
	must(t, os.Rename(databaseOf(dir), o.From))
	must(t, os.Rename(copyFile(t, path), databaseOf(dir)))
	must(t, etcddb.Prepare(t.Context(), databaseOf(dir), o))
}

// TestPrepare_SameAsEtcdutl restores snapshots of real servers both ways. Every
// key and value must be equal, and servers must start on the result.
func TestPrepare_SameAsEtcdutl(t *testing.T) {
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			source := testserver.StartCluster(t, testserver.Options{
				// A young cluster does not let a member go otherwise.
				Version: version, Size: 3, Args: []string{"--strict-reconfig-check=false"},
			})
			client := source.Client(t)
			testserver.Fill(t, client, testserver.FillOptions{Keys: 120, ValueBytes: 300, Compact: true})
			_, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
				Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_NOSPACE,
			})
			must(t, err)
			first := clientOf(t, source.Members[0])
			list, err := first.MemberList(t.Context())
			must(t, err)
			i := slices.IndexFunc(list.Members, func(m *pb.Member) bool { return m.Name != source.Members[0].Name })
			_, err = first.MemberRemove(t.Context(), list.Members[i].ID)
			must(t, err)
			path := download(t, first)

			for _, bump := range []uint64{0, 1_000_000} {
				t.Run(fmt.Sprintf("Bump=%d", bump), func(t *testing.T) {
					peer := testserver.FreeURL(t)
					theirs, ours := filepath.Join(t.TempDir(), "theirs"), filepath.Join(t.TempDir(), "ours")
					must(t, snapshot.NewV3(zap.NewNop()).Restore(restorePlan(path, theirs, peer, bump)))
					o := etcddb.PrepareOptions{BumpRevision: bump}
					restoreBySkeleton(t, path, ours, peer, o)
					want, got := dump(t, databaseOf(theirs)), dump(t, databaseOf(ours))
					if !maps.Equal(got, want) {
						reportDifference(t, got, want)
					}

					cleared := filepath.Join(t.TempDir(), "cleared")
					o.ClearAlarms = true
					restoreBySkeleton(t, path, cleared, peer, o)
					testBoot(t, version, cleared, peer, bump)
				})
			}
		})
	}
}

// clientOf talks to one member only: the connection to a removed one breaks.
func clientOf(t testing.TB, m *testserver.Member) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.Endpoint}, Logger: zap.NewNop()})
	must(t, err)
	t.Cleanup(func() { must(t, client.Close()) })
	return client
}

func reportDifference(t testing.TB, got, want map[string]string) {
	t.Helper()
	keys := slices.Sorted(maps.Keys(got))
	keys = append(keys, slices.Sorted(maps.Keys(want))...)
	for _, k := range slices.Compact(keys) {
		g, inGot := got[k]
		if w, inWant := want[k]; g != w || inGot != inWant {
			t.Errorf("%s: %q (%v), etcdutl has %q (%v)", k, g, inGot, w, inWant)
		}
	}
}

// testBoot starts a server on dir and compares it with what the file promised.
func testBoot(t *testing.T, version, dir, peer string, bump uint64) {
	t.Helper()
	f, err := etcddb.Inspect(t.Context(), databaseOf(dir))
	must(t, err)
	if f.Bumped != (bump > 0) || bump > 0 && f.CompactRevision != f.Revision || len(f.Alarms) > 0 ||
		len(f.Members) != 1 || len(f.RemovedMembers) > 0 {
		t.Errorf("facts of the prepared file: %+v", f)
	}
	c := testserver.StartRestored(t, version, []testserver.RestoredMember{{
		Name: "m1", DataDir: dir, PeerURL: peer, ClientURL: testserver.FreeURL(t),
	}})
	if live := liveHash(t, c, 0); live != f.HashKV {
		t.Errorf("HashKV of the booted server %+v, the file promised %+v", live, f.HashKV)
	}
	if _, err := c.Client(t).Put(t.Context(), "new", "key"); err != nil {
		t.Errorf("write to the restored server: %v", err)
	}
	path, after := inspectLive(t, c)
	if after.Revision != f.Revision+1 {
		t.Errorf("revision %d after one write at %d (%s)", after.Revision, f.Revision, path)
	}
}

// TestPrepare_NoSpace: of several alarms those go for which a database was too large, and
// CORRUPT stays.
func TestPrepare_NoSpace(t *testing.T) {
	path := build(t, func(tx *bolt.Tx) {
		put(tx, 2, 0, 2, 1, "a", nil)
		for _, a := range []*pb.AlarmMember{
			{MemberID: 7, Alarm: pb.AlarmType_NOSPACE}, {MemberID: 8, Alarm: pb.AlarmType_CORRUPT},
			{MemberID: 9, Alarm: pb.AlarmType_NOSPACE},
		} {
			key, err := proto.Marshal(a)
			must(t, err)
			store(tx, "alarm", key, nil)
		}
	})
	for left, o := range map[int]etcddb.PrepareOptions{3: {}, 1: {ClearNoSpace: true}, 0: {ClearAlarms: true}} {
		o.From = membership(t)
		to := copyFile(t, path)
		must(t, etcddb.Prepare(t.Context(), to, o))
		f, err := etcddb.Inspect(t.Context(), to)
		must(t, err)
		if len(f.Alarms) != left || left == 1 && f.Alarms[0] != (backup.Alarm{MemberID: 8, Type: "CORRUPT"}) {
			t.Errorf("%+v leaves the alarms %+v", o, f.Alarms)
		}
	}
}

func TestPrepare_Refuses(t *testing.T) {
	path := build(t, func(tx *bolt.Tx) { put(tx, 1<<62, 0, 2, 1, "a", nil) })
	from := membership(t)
	before := dump(t, path)
	missing := filepath.Join(t.TempDir(), "missing")
	skeleton := filepath.Join(t.TempDir(), "skeleton")
	must(t, etcddb.NewSkeleton(skeleton))
	for name, o := range map[string]etcddb.PrepareOptions{
		"NoMembership":    {},
		"MissingFrom":     {From: missing},
		"EmptySkeleton":   {From: skeleton},
		"BumpTooLarge":    {From: from, BumpRevision: 1 << 63},
		"RevisionTooHigh": {From: from, BumpRevision: 1 << 62},
	} {
		err := etcddb.Prepare(t.Context(), path, o)
		if err == nil {
			t.Errorf("%s: no error", name)
		} else {
			t.Log(err)
		}
		if name == "MissingFrom" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v is not fs.ErrNotExist", name, err)
		}
		if !maps.Equal(dump(t, path), before) {
			t.Errorf("%s: the database was changed", name)
		}
	}
	if err := etcddb.NewSkeleton(skeleton); !errors.Is(err, fs.ErrExist) {
		t.Errorf("NewSkeleton over a file: %v, want fs.ErrExist", err)
	}
}

// TestPrepare_FreePages: bbolt finds the free pages of the database again, and no page is lost.
func TestPrepare_FreePages(t *testing.T) {
	base := objects(t, 4<<20)
	db, err := bolt.Open(base, 0, &bolt.Options{NoFreelistSync: true})
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		c, n := tx.Bucket([]byte("key")).Cursor(), 0
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if n++; n%3 > 0 {
				must(t, c.Delete())
			}
		}
		return nil
	}))
	must(t, db.Close())
	free := freePages(t, base)
	must(t, etcddb.Prepare(t.Context(), base, etcddb.PrepareOptions{From: membership(t)}))
	if frame, err := etcddb.ReadFrame(base); err != nil || frame.FileBytes != frame.DatabaseBytes {
		t.Errorf("%d bytes follow the database (%v)", frame.FileBytes-frame.DatabaseBytes, err)
	}
	if got := freePages(t, base); got < free || free == 0 {
		t.Errorf("%d pages are free, %d were", got, free)
	}
}

// TestPrepare_Pages: databases with other pages than ours, with either meta page as the newest, and
// with what a crash leaves behind the last page, with a stored list of free pages and without. No
// record and no page is lost.
func TestPrepare_Pages(t *testing.T) {
	from := membership(t)
	for _, pageBytes := range []int{1024, 64 << 10} {
		for more := range 4 { // transactions, so that the number of the last is odd and even
			stored := more > 1
			path := filepath.Join(t.TempDir(), "db")
			db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageBytes, NoFreelistSync: !stored, NoSync: true})
			must(t, err)
			for i := range 3 + more {
				must(t, db.Update(func(tx *bolt.Tx) error {
					for _, name := range []string{"key", "meta", "members", "members_removed", "cluster"} {
						_, err := tx.CreateBucketIfNotExists([]byte(name))
						must(t, err)
					}
					put(tx, int64(i)+2, 0, int64(i)+2, 1, fmt.Sprint(i), make([]byte, 3000))
					return nil
				}))
			}
			must(t, db.Close())
			frame, err := etcddb.ReadFrame(path)
			must(t, err)
			must(t, os.Truncate(path, frame.DatabaseBytes))
			file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = file.Write(bytes.Repeat([]byte("left"), 5*512/4))
			must(t, errors.Join(err, file.Close()))

			snapshot := snapshotOf(t, path) // its newest meta page is the first, whatever its number
			for name, path := range map[string]string{"a member's own": path, "a snapshot": snapshot} {
				want := dump(t, path)
				must(t, etcddb.Prepare(t.Context(), path, etcddb.PrepareOptions{From: from}))
				if frame, err := etcddb.ReadFrame(path); err != nil || frame.FileBytes != frame.DatabaseBytes {
					t.Errorf("%s, pages of %d bytes: the file does not end with the database: %v", name, pageBytes, err)
				}
				freePages(t, path)
				got := dump(t, path)
				for k := range want {
					if got[k] != want[k] {
						t.Errorf("%s, pages of %d bytes, %d transactions: %s is lost", name, pageBytes, more, k)
					}
				}
			}
		}
	}
}

// freePages opens a database as etcd does, and checks it.
func freePages(t *testing.T, path string) int {
	t.Helper()
	db, err := bolt.Open(path, 0, &bolt.Options{NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	must(t, err)
	defer db.Close() // only read from
	must(t, db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	}))
	return db.Stats().FreePageN
}

// TestPrepare_Damaged lets bbolt, which trusts its file, work on a broken one. The pages that it
// visits are among the last.
func TestPrepare_Damaged(t *testing.T) {
	from := membership(t)
	base, found := objects(t, 4<<20), 0
	frame, err := etcddb.ReadFrame(base)
	must(t, err)
	last := frame.DatabaseBytes / 4096
	for page := last - 30; page < last; page++ {
		path := copyFile(t, base)
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		_, err = file.WriteAt([]byte("\xff\xff\xff\x7f\xff\xff\xff\xff"), page*4096+8)
		must(t, err)
		must(t, file.Close())
		err = etcddb.Prepare(t.Context(), path, etcddb.PrepareOptions{From: from})
		if err != nil && !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("page %d: %v", page, err)
		}
		if err != nil {
			found++
		}
	}
	if found == 0 {
		t.Error("no damage was found")
	}
}
