package history_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/sketch"
	"github.com/etcd-backupd/backupd/internal/history"
)

// record is one record of the key bucket.
type record struct {
	main, sub       int64
	key, value      string
	create, version int64
	tombstone       bool
}

func (r record) pair() []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(r.main))
	out = binary.BigEndian.AppendUint64(append(out, '_'), uint64(r.sub))
	return fmt.Appendf(out, "%v %q %q %d %d", r.tombstone, r.key, r.value, r.create, r.version)
}

// entry is one entry of the raft log, with the state after it.
type entry struct {
	term         uint64
	records      []record
	rev, compact int64
}

// server is an etcd cluster as its log: every member is a prefix of it.
type server struct {
	rng  *rand.Rand
	id   backup.MemberID
	base []record // what a restore put there
	from uint64   // index before the first entry of log
	log  []entry
	live map[string]record
}

func newServer(rng *rand.Rand) *server {
	s := &server{rng: rng, id: 0xabc, live: map[string]record{}}
	s.add(entry{term: 2, rev: 1})
	return s
}

func (s *server) tip() entry    { return s.log[len(s.log)-1] }
func (s *server) index() uint64 { return s.from + uint64(len(s.log)) }
func (s *server) add(e entry)   { s.log = append(s.log, e) }
func (s *server) silent()       { e := s.tip(); e.records = nil; s.add(e) }
func (s *server) elect()        { e := s.tip(); e.records, e.term = nil, e.term+1; s.add(e) }
func (s *server) compactAt(r int64) {
	e := s.tip()
	e.records, e.compact = nil, max(e.compact, r)
	s.add(e)
}

// write commits one transaction. An empty value deletes.
func (s *server) write(values map[string]string) {
	e := s.tip()
	e.records = nil
	for _, key := range slices.Sorted(maps.Keys(values)) {
		old, there := s.live[key]
		r := record{main: e.rev + 1, sub: int64(len(e.records)), key: key, value: values[key]}
		switch {
		case r.value != "":
			r.create, r.version = r.main, 1
			if there {
				r.create, r.version = old.create, old.version+1
			}
			s.live[key] = r
		case there:
			r.tombstone = true
			delete(s.live, key)
		default:
			continue
		}
		e.records = append(e.records, r)
	}
	if len(e.records) > 0 {
		e.rev++
	}
	s.add(e)
}

// run adds n entries of every kind, with at most so many keys.
func (s *server) run(n, keys int) {
	for range n {
		switch s.rng.IntN(12) {
		case 0:
			s.elect()
		case 1:
			s.silent() // a lease, a change of membership, a transaction that changes nothing
		case 2:
			if rev := s.tip().rev; rev > 5 {
				s.compactAt(rev - s.rng.Int64N(5))
			}
		default:
			values := map[string]string{}
			for range 1 + s.rng.IntN(4) {
				key := fmt.Sprintf("key-%d", s.rng.IntN(keys))
				values[key] = fmt.Sprint(s.rng.IntN(1 << 30))
				if s.rng.IntN(4) == 0 {
					values[key] = ""
				}
			}
			s.write(values)
		}
	}
}

// at returns the records that were written up to index, in order, and the state there.
func (s *server) at(index uint64) ([]record, entry) {
	out := slices.Clone(s.base)
	for _, e := range s.log[:index-s.from] {
		out = append(out, e.records...)
	}
	return out, s.log[index-s.from-1]
}

// fork returns a cluster that has the same log up to index.
func (s *server) fork(index uint64) *server {
	records, _ := s.at(index)
	return &server{rng: s.rng, id: s.id, base: s.base, from: s.from, log: slices.Clone(s.log[:index-s.from]),
		live: alive(records)}
}

// restore returns what a restore of the database at index makes: the same records
// in a new log, with the revision raised by bump.
func (s *server) restore(index uint64, bump int64) *server {
	records, e := s.at(index)
	e.records, e.term = nil, 2
	if bump > 0 {
		e.rev += bump
		e.compact = e.rev
		records = append(records, record{main: e.rev})
	}
	return &server{rng: s.rng, id: s.id, base: records, from: 4, log: []entry{e}, live: alive(records)}
}

func alive(records []record) map[string]record {
	live := map[string]record{}
	for _, r := range records {
		if live[r.key] = r; r.tombstone {
			delete(live, r.key)
		}
	}
	return live
}

// taken is a snapshot.
type taken struct {
	history.Evidence
	records []record
}

// take makes a snapshot of a member that has applied index, while the members that
// answer have applied high. A quorum confirms everything, or there is none.
func (s *server) take(index, high uint64, quorum bool) taken {
	records, e := s.at(index)
	_, tip := s.at(high)
	t := taken{records: records, Evidence: history.Evidence{
		ClusterID: s.id, Revision: backup.Revision(e.rev), Index: index, Term: e.term,
		HighWater: history.Mark{Revision: backup.Revision(tip.rev), Index: high, Term: tip.term},
		HashKV:    hashKV(records, e.rev, e.compact), Sketch: sketchOf(records),
	}}
	if quorum {
		t.Committed = high
	}
	return t
}

// after returns the evidence with the hash at the place of the previous snapshot.
func (t taken) after(previous taken) history.Evidence {
	e, then := t.Evidence, previous.HashKV
	if then.Revision <= t.Revision && t.HashKV.CompactRevision <= then.CompactRevision {
		h := hashKV(t.records, int64(then.Revision), int64(then.CompactRevision))
		e.HashBefore = &h
	}
	return e
}

// hashKV hashes the records up to rev without those that a compaction at compact
// removes.
func hashKV(records []record, rev, compact int64) backup.HashKV {
	if n := slices.IndexFunc(records, func(r record) bool { return r.main > rev }); n >= 0 {
		records = records[:n]
	}
	live, sum := alive(records), crc32.NewIEEE()
	for _, r := range records {
		if r.main > compact || live[r.key] == r {
			sum.Write(r.pair())
		}
	}
	return backup.HashKV{Hash: sum.Sum32(), Revision: backup.Revision(rev), CompactRevision: backup.Revision(compact)}
}

func (r record) sketched() sketch.Record {
	key := []byte(r.key)
	return sketch.Record{Key: key, ID: maphash.Bytes(seed, key), Mod: r.main, Create: r.create,
		Tombstone: r.tombstone, Pair: r.pair()}
}

var seed = maphash.MakeSeed()

// sketchOf selects by the code that inspects a database.
func sketchOf(records []record) (out backup.Sketch) {
	var sample sketch.Sample
	for _, r := range records {
		sample.Add(r.sketched())
	}
	var recent sketch.Recent
	seen := map[string]bool{}
	for _, r := range slices.Backward(records) {
		if !seen[r.key] && !recent.Add(r.sketched()) {
			break
		}
		seen[r.key] = true
	}
	limit, entries := sample.Entries()
	out.Limit, out.Sample = limit, entriesOf(entries, backup.ByHash)
	from, entries := recent.Entries()
	out.From, out.Recent = backup.Revision(from), entriesOf(entries, backup.ByRevision)
	return out
}

func entriesOf(in []sketch.Entry, order func(a, b backup.SketchEntry) int) (out []backup.SketchEntry) {
	for _, e := range in {
		out = append(out, backup.SketchEntry{Key: e.Key, Mod: backup.Revision(e.Mod),
			Create: backup.Revision(e.Create), Digest: e.Digest})
	}
	slices.SortFunc(out, order)
	return out
}

// conflict looks at all live keys: whether a key of the later database, not written or not
// created since the earlier one, was not the same there, or was not created alike.
func conflict(a, b taken) bool {
	if b.Revision < a.Revision {
		a, b = b, a
	}
	was, is := alive(a.records), alive(b.records)
	differ := func(was, is map[string]record) bool {
		for key, r := range is {
			old := r.main <= int64(a.Revision)
			if old && was[key] != r || !old && r.create > 0 && r.create <= int64(a.Revision) && was[key].create != r.create {
				return true
			}
		}
		return false
	}
	return differ(was, is) || a.Revision == b.Revision && differ(is, was)
}
