package entry_test

import (
	"encoding/binary"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/rescue/entry"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// database has a record for each key, from revision 2 on; one that begins with "-" is a tombstone.
func database(t *testing.T, keys ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("key"))
		for i, key := range keys {
			id := append(binary.BigEndian.AppendUint64(nil, uint64(i+2)), '_', 0, 0, 0, 0, 0, 0, 0, 0)
			kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte("value of " + key)}
			if key[0] == '-' {
				id, kv = append(id, 't'), &mvccpb.KeyValue{Key: []byte(key[1:])}
			}
			raw, merr := proto.Marshal(kv)
			must(t, merr)
			must(t, b.Put(id, raw))
		}
		return err
	}))
	must(t, db.Close())
	return path
}

func putOf(key string) *etcdserverpb.PutRequest {
	return &etcdserverpb.PutRequest{Key: []byte(key), Value: []byte("value of " + key)}
}

func put(key string) *etcdserverpb.InternalRaftRequest {
	return &etcdserverpb.InternalRaftRequest{Put: putOf(key)}
}

func txn(key string) *etcdserverpb.InternalRaftRequest {
	return &etcdserverpb.InternalRaftRequest{Txn: &etcdserverpb.TxnRequest{Success: []*etcdserverpb.RequestOp{
		{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: putOf(key)}},
	}}}
}

// TestRecent_Origin: the newest records of a database are of the newest entries of its log.
func TestRecent_Origin(t *testing.T) {
	remove := &etcdserverpb.InternalRaftRequest{DeleteRange: &etcdserverpb.DeleteRangeRequest{
		Key: []byte("a"), RangeEnd: []byte("c"),
	}}
	alarm := &etcdserverpb.InternalRaftRequest{Alarm: &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE,
	}}
	repeat := func(n int, r *etcdserverpb.InternalRaftRequest) (out []*etcdserverpb.InternalRaftRequest) {
		for range n {
			out = append(out, r)
		}
		return out
	}
	type log = []*etcdserverpb.InternalRaftRequest
	for name, c := range map[string]struct {
		keys []string
		log  log
		want entry.Origin
	}{
		"Same":             {[]string{"a", "b"}, log{put("a"), put("b")}, entry.Shown},
		"EarlierIsBefore":  {[]string{"old", "a"}, log{put("a")}, entry.Shown},
		"Txn":              {[]string{"old", "a"}, log{txn("a")}, entry.Shown},
		"FailedTxn":        {[]string{"a", "b"}, log{put("a"), put("b"), txn("c")}, entry.Shown},
		"Deleted":          {[]string{"a", "-a"}, log{put("a"), remove}, entry.Shown},
		"NothingThere":     {[]string{"a"}, nil, entry.Unknown},
		"FewTxns":          {[]string{"a"}, repeat(9, txn("x")), entry.Unknown},
		"Alarm":            {[]string{"a"}, log{alarm, put("x")}, entry.Unknown},
		"AfterAlarm":       {[]string{"a"}, log{put("a"), alarm}, entry.Unknown},
		"OtherKey":         {[]string{"a"}, log{put("x")}, entry.Denied},
		"OneHasFailed":     {[]string{"a", "b"}, log{put("b"), put("a")}, entry.Shown},
		"NewerInLog":       {[]string{"a", "b"}, log{put("a"), put("b"), put("c"), put("d"), put("e")}, entry.Denied},
		"OtherTxns":        {[]string{"a"}, repeat(10, txn("x")), entry.Denied},
		"DeletedElsewhere": {[]string{"z", "-z"}, log{put("x"), remove}, entry.Denied},
	} {
		recent := entry.NewRecent(100)
		for i, r := range c.log {
			raw, err := proto.Marshal(r)
			must(t, err)
			recent.Add(&raftpb.Entry{Index: new(uint64(50 + i)), Term: new(uint64(2)), Data: raw})
		}
		if got, err := recent.Origin(database(t, c.keys...), -1); err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// TestRecent_Add: entries that a later one replaces are none, and those after the last one are none.
func TestRecent_Add(t *testing.T) {
	recent := entry.NewRecent(60)
	for _, e := range []struct {
		index uint64
		key   string
	}{{50, "x"}, {59, "a"}, {60, "y"}, {61, "y"}, {60, "b"}, {61, "c"}} {
		raw, err := proto.Marshal(put(e.key))
		must(t, err)
		recent.Add(&raftpb.Entry{Index: &e.index, Data: raw})
	}
	for want, keys := range map[entry.Origin][]string{
		entry.Shown: {"old", "a", "b"}, entry.Denied: {"y"},
	} {
		if got, err := recent.Origin(database(t, keys...), -1); err != nil || got != want {
			t.Errorf("%v: %q, %v, want %q", keys, got, err, want)
		}
	}
	if got, err := recent.Origin(database(t, "old", "y"), 3); err != nil || got != entry.Unknown {
		t.Errorf("all is compacted: %q, %v", got, err)
	}
}
