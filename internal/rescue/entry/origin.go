package entry

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Origin says whether the newest records of a database have come of the entries of a log.
type Origin string

// Unknown is a log that has no entry of which the database must have a record.
const (
	Unknown Origin = ""
	Shown   Origin = "shown"
	Denied  Origin = "denied"
)

// Bounds of what is looked at.
const (
	recentEntries = 10_000
	recentRecords = 64
	// likely is how many requests that may fail, such as transactions, cannot all have failed.
	likely = 10
)

// effect is what an entry may do to keys.
type effect struct {
	puts    map[string]uint64 // sums of values, 0 where the old one is kept
	deletes []*etcdserverpb.DeleteRangeRequest
	revokes bool // of a lease, with its keys
	alarm   bool // one was raised or ended
	sure    bool // it makes a revision, unless there is an alarm
}

// Recent are the newest entries of a log up to one.
type Recent struct {
	to, last uint64
	effects  map[uint64]effect
}

// NewRecent returns an empty one, of entries up to and with to.
func NewRecent(to uint64) *Recent { return &Recent{to: to, effects: map[uint64]effect{}} }

// Add adds an entry, or puts it in the place of those from its index on.
func (r *Recent) Add(e *raftpb.Entry) {
	i := e.GetIndex()
	if i > r.to {
		return
	}
	if i > r.last+1 {
		clear(r.effects) // what is between is not there
	}
	for later := i; later <= r.last; later++ {
		delete(r.effects, later)
	}
	delete(r.effects, i-recentEntries)
	r.effects[i], r.last = effectOf(e), i
}

func effectOf(e *raftpb.Entry) effect {
	out := effect{puts: map[string]uint64{}}
	var r etcdserverpb.InternalRaftRequest
	if d, err := Decode(e); err != nil || d.V3 == nil || proto.Unmarshal(d.V3, &r) != nil {
		return out
	}
	switch {
	case r.Put != nil:
		out.put(r.Put)
		out.sure = r.Put.Lease == 0 && !r.Put.IgnoreValue && !r.Put.IgnoreLease && r.GetHeader().GetUsername() == ""
	case r.DeleteRange != nil:
		out.deletes = append(out.deletes, r.DeleteRange)
	case r.Txn != nil:
		out.txn(r.Txn)
	case r.LeaseRevoke != nil:
		out.revokes = true
	case r.Alarm != nil:
		out.alarm = r.Alarm.Action != etcdserverpb.AlarmRequest_GET
	}
	return out
}

func (f *effect) put(p *etcdserverpb.PutRequest) {
	f.puts[string(p.Key)] = sum(p.Value)
	if p.IgnoreValue {
		f.puts[string(p.Key)] = 0
	}
}

func (f *effect) txn(t *etcdserverpb.TxnRequest) {
	for _, op := range slices.Concat(t.Success, t.Failure) {
		switch {
		case op.GetRequestPut() != nil:
			f.also(op.GetRequestPut())
		case op.GetRequestDeleteRange() != nil:
			f.deletes = append(f.deletes, op.GetRequestDeleteRange())
		case op.GetRequestTxn() != nil:
			f.txn(op.GetRequestTxn())
		}
	}
}

// also is a put that one branch of a transaction makes: the other may have another value.
func (f *effect) also(p *etcdserverpb.PutRequest) {
	before, twice := f.puts[string(p.Key)]
	if f.put(p); twice && before != f.puts[string(p.Key)] {
		f.puts[string(p.Key)] = 0
	}
}

func sum(value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(value) // never fails
	return max(h.Sum64(), 1)
}

// explains reports whether an entry may have made all records of a revision.
func (f *effect) explains(records []record) bool {
	for _, r := range records {
		value, put := f.puts[string(r.key)]
		switch {
		case r.deleted && (f.revokes || slices.ContainsFunc(f.deletes, func(d *etcdserverpb.DeleteRangeRequest) bool {
			return covers(d, r.key)
		})):
		case !r.deleted && put && (value == 0 || value == r.value):
		default:
			return false
		}
	}
	return true
}

func covers(d *etcdserverpb.DeleteRangeRequest, key []byte) bool {
	if len(d.RangeEnd) == 0 {
		return bytes.Equal(d.Key, key)
	}
	return bytes.Compare(key, d.Key) >= 0 && (bytes.Equal(d.RangeEnd, []byte{0}) || bytes.Compare(key, d.RangeEnd) < 0)
}

// Origin compares the newest revisions of the database at path, which has the entries up to the
// newest one, with the entries. Each revision above the compact one is there, and is of one entry,
// in their order. So where the entries have none for a revision, it is older than all of
// them, and those that are left made none.
func (r *Recent) Origin(path string, compact backup.Revision) (Origin, error) {
	revisions, err := newest(path, compact)
	if err != nil {
		return Unknown, err
	}
	matched, sure, maybe, at := 0, 0, 0, r.last
	for _, records := range revisions {
		found := false
		for ; !found; at-- {
			f, ok := r.effects[at]
			if !ok {
				break
			}
			switch found = f.explains(records); {
			case f.alarm: // requests fail while there is one
				return Unknown, nil
			case found:
				matched++
			case f.sure:
				sure++
			case len(f.puts) > 0:
				maybe++
			}
		}
		if !found {
			break
		}
	}
	switch { // a few may match by chance, or fail
	case sure > matched, matched == 0 && maybe >= likely:
		return Denied, nil
	case matched > 0:
		return Shown, nil
	}
	return Unknown, nil
}

// record is one of a database.
type record struct {
	key     []byte
	value   uint64 // its sum
	deleted bool
}

// newest returns the records of the newest revisions above the compact one, the newest first.
func newest(path string, compact backup.Revision) (out [][]record, err error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, OpenFile: func(name string, _ int, _ os.FileMode) (
		*os.File, error) {
		return os.Open(name)
	}})
	if err != nil {
		return nil, err
	}
	defer db.Close() // only read from
	return out, db.View(func(tx *bolt.Tx) error {
		keys := tx.Bucket([]byte("key"))
		if keys == nil {
			return nil
		}
		before, c := uint64(0), keys.Cursor()
		for k, v := c.Last(); len(k) >= 17; k, v = c.Prev() {
			revision := binary.BigEndian.Uint64(k)
			if int64(revision) <= int64(compact) || len(out) == recentRecords && revision != before {
				return nil
			}
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(v, &kv); err != nil {
				return backup.Corruptf("record of revision %d: %w", revision, err)
			}
			if revision != before {
				out = append(out, nil)
			}
			before = revision
			last := &out[len(out)-1]
			*last = append(*last, record{slices.Clone(kv.Key), sum(kv.Value), len(k) > 17})
		}
		return nil
	})
}
