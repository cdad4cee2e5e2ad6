package rescue

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/wait"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3alarm"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/cindex"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/rescue/entry"
)

// minLeaseTTL is etcd's, in seconds, with its usual election time-out: a shorter lease gets it.
const minLeaseTTL = 2

// replayed says what a replay has done.
type replayed struct {
	position
	Entries int64            `json:"entries"`
	Kinds   map[string]int64 `json:"kinds"`
}

// machine applies entries as a member of etcd does, with etcd's own code, on its database.
type machine struct {
	lg      *zap.Logger
	be      backend.Backend
	hooks   *storage.BackendHooks
	index   cindex.ConsistentIndexer
	cluster *membership.RaftCluster
	lessor  lease.Lessor
	kv      mvcc.KV
	auth    auth.AuthStore
	applier apply.UberApplier
	member  types.ID
	last    position
	broken  bool // etcd's code has panicked, and may hold its locks
}

// logger makes a panic of what etcd logs as fatal, and drops the rest: a replay logs as much
// as a server that starts, and what is wrong in it comes as an error.
func logger() *zap.Logger {
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		zapcore.AddSync(os.Stderr), zapcore.DPanicLevel), zap.WithFatalHook(zapcore.WriteThenPanic))
}

// newMachine opens a database that nobody else uses. What it writes is not synced.
func newMachine(path string, l *raftLog) (*machine, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	m := &machine{lg: logger(), index: cindex.NewConsistentIndex(nil), member: types.ID(l.MemberID)}
	m.hooks = storage.NewBackendHooks(m.lg, m.index)
	conf := backend.DefaultBackendConfig(m.lg)
	conf.Path, conf.UnsafeNoFsync, conf.Hooks, conf.Timeout = path, true, m.hooks, lockTimeout
	conf.MmapSize = uint64(2 * info.Size())
	m.be = backend.New(conf)
	m.index.SetBackend(m.be)
	m.last.Index, m.last.Term = schema.ReadConsistentIndex(m.be.ReadTx())
	return m, m.restore(types.ID(l.ClusterID))
}

// lockTimeout bounds the wait for another process that has the copy open: there is none.
const lockTimeout = 2 * time.Second

// restore builds what a server holds in memory, in its order: leases before keys.
func (m *machine) restore(cluster types.ID) error {
	schema.CreateMetaBucket(m.be.BatchTx())
	// How many learners its servers allow is not known. Each promoted one was allowed.
	m.cluster = membership.NewCluster(m.lg, membership.WithMaxLearners(math.MaxInt))
	m.cluster.SetID(m.member, cluster)
	m.cluster.SetBackend(schema.NewMembershipBackend(m.lg, m.be))
	m.cluster.UnsafeLoad()
	m.lessor = lease.NewLessor(m.lg, m.be, m.cluster, lease.LessorConfig{MinLeaseTTL: minLeaseTTL})
	m.kv = mvcc.NewStore(m.lg, m.be, m.lessor, mvcc.StoreConfig{
		CompactionBatchLimit: 10_000, CompactionSleepInterval: time.Millisecond,
	})
	tokens, err := auth.NewTokenProvider(m.lg, "simple",
		func(uint64) <-chan struct{} { return make(chan struct{}) }, time.Minute)
	if err != nil {
		return err
	}
	const bcryptCost = 4 // entries have passwords that are hashed already
	m.auth = auth.NewAuthStore(m.lg, schema.NewAuthBackend(m.lg, m.be), tokens, bcryptCost)
	alarms, err := v3alarm.NewAlarmStore(m.lg, schema.NewAlarmBackend(m.lg, m.be))
	if err != nil {
		return err
	}
	m.applier = apply.NewUberApplier(apply.ApplierOptions{
		Logger: m.lg, KV: m.kv, AlarmStore: alarms, AuthStore: m.auth, Lessor: m.lessor, Cluster: m.cluster,
		RaftStatus: status{m}, SnapshotServer: noSnapshots{}, ConsistentIndex: m.index,
		// As its servers have it by default. It changes nothing that is stored.
		TxnModeWriteWithSharedBuffer: true,
		Backend:                      m.be, QuotaBackendBytesCfg: -1, WarningApplyDuration: time.Hour,
	})
	m.be.SetTxPostLockInsideApplyHook(func() {
		index, term := m.index.ConsistentApplyingIndex()
		if index > m.index.UnsafeConsistentIndex() {
			m.index.SetConsistentIndex(index, term)
		}
	})
	return nil
}

// close writes everything to the database.
func (m *machine) close() error {
	if m.broken {
		return nil // this process ends
	}
	m.kv.Commit()
	m.lessor.Stop()
	m.kv.Close()
	m.be.ForceCommit()
	return errors.Join(m.auth.Close(), m.be.Close())
}

// apply applies the entry that follows the last one.
func (m *machine) apply(e *raftpb.Entry) (kind string, err error) {
	defer func() {
		if p := recover(); p != nil {
			m.broken = true
			err = backup.Corruptf("etcd's own code cannot apply entry %d: %v", e.GetIndex(), p)
		}
	}()
	r, err := entry.Decode(e)
	if err != nil {
		return "", backup.Corruptf("entry %d: %w", e.GetIndex(), err)
	}
	m.index.SetConsistentApplyingIndex(e.GetIndex(), e.GetTerm())
	switch {
	case r.Kind == entry.KindUnknown:
		return "", &backup.RefusedError{Reason: fmt.Sprintf(
			"entry %d of the log is of a kind that this backupd does not know: a newer etcd wrote it", e.GetIndex())}
	case r.Kind == entry.KindMember:
		err = m.changeMembers(e)
	case r.V3 != nil:
		m.request(&raftpb.Entry{Index: e.Index, Term: e.Term, Data: r.V3})
	}
	if m.index.ConsistentIndex() < e.GetIndex() { // nothing was stored
		m.index.SetConsistentIndex(e.GetIndex(), e.GetTerm())
	}
	m.last = position{e.GetIndex(), e.GetTerm()}
	return r.Kind, err
}

// request applies a request. That it may fail, as the client was told, is a part of history.
func (m *machine) request(e *raftpb.Entry) {
	result, _ := apply.Apply(m.lg, e, m.applier, nobodyWaits, membership.ApplyBoth)
	if result != nil && result.Physc != nil {
		<-result.Physc
	}
}

// nobodyWaits is for the answers to requests.
var nobodyWaits = wait.New()

// changeMembers does what etcd's server does with a change of members.
func (m *machine) changeMembers(e *raftpb.Entry) error {
	var cc raftpb.ConfChange
	if err := proto.Unmarshal(e.Data, &cc); err != nil {
		return backup.Corruptf("entry %d: %w", e.GetIndex(), err)
	}
	if m.cluster.ValidateConfigurationChange(&cc, membership.ApplyBoth) != nil {
		return nil // its server has refused it, too
	}
	var with membership.ConfigChangeContext
	if cc.GetType() != raftpb.ConfChangeRemoveNode {
		if err := json.Unmarshal(cc.Context, &with); err != nil || cc.GetNodeId() != uint64(with.ID) {
			return backup.Corruptf("entry %d: a change of member %x has member %s: %v", e.GetIndex(), cc.GetNodeId(),
				with.ID, err)
		}
	}
	switch cc.GetType() {
	case raftpb.ConfChangeAddNode, raftpb.ConfChangeAddLearnerNode:
		if with.IsPromote {
			m.cluster.PromoteMember(with.ID, membership.ApplyBoth)
		} else {
			m.cluster.AddMember(&with.Member, membership.ApplyBoth)
		}
	case raftpb.ConfChangeRemoveNode:
		m.cluster.RemoveMember(types.ID(cc.GetNodeId()), membership.ApplyBoth)
	case raftpb.ConfChangeUpdateNode:
		m.cluster.UpdateRaftAttributes(with.ID, with.RaftAttributes, membership.ApplyBoth)
	}
	m.hooks.SetConfState(m.confState())
	return nil
}

// confState is who votes, as raft would say.
func (m *machine) confState() *raftpb.ConfState {
	s := &raftpb.ConfState{}
	for _, member := range m.cluster.Members() {
		if member.IsLearner {
			s.Learners = append(s.Learners, uint64(member.ID))
		} else {
			s.Voters = append(s.Voters, uint64(member.ID))
		}
	}
	return s
}

// replay applies the entries of a WAL to the database at path, which has those up to from, up to
// and with the entry to.
func replay(path, wal string, from, to uint64) (*replayed, error) {
	debug.SetMemoryLimit(math.MaxInt64) // etcd's index of all keys may need more than an inspection
	l, err := walk(wal, from, nil)      // which entries are replaced later?
	if err != nil {
		return nil, err
	}
	m, err := newMachine(path, l)
	if err != nil {
		return nil, err
	}
	out := &replayed{position: m.last, Kinds: map[string]int64{}}
	if out.Index != from {
		err = fmt.Errorf("the database has the entries up to %d, want %d", out.Index, from)
	}
	if err == nil && from < to {
		_, err = walk(wal, from, func(e *raftpb.Entry) error {
			if e.GetIndex() != m.last.Index+1 || e.GetIndex() > to || e.GetTerm() != l.term(e.GetIndex()) {
				return nil
			}
			kind, err := m.apply(e)
			out.Kinds[kind]++
			out.Entries++
			return err
		})
	}
	if out.position = m.last; err == nil && out.Index < to {
		err = fmt.Errorf("the log ended after entry %d, want %d", out.Index, to)
	}
	return out, errors.Join(err, m.close())
}

// status is what etcd's code asks of raft, for the heads of answers that nobody reads.
type status struct{ m *machine }

func (s status) MemberID() types.ID     { return s.m.member }
func (s status) Leader() types.ID       { return 0 }
func (s status) CommittedIndex() uint64 { return s.m.last.Index }
func (s status) AppliedIndex() uint64   { return s.m.last.Index }
func (s status) Term() uint64           { return s.m.last.Term }

// noSnapshots is what a server does after a downgrade: it writes its v2 store.
type noSnapshots struct{}

// ForceSnapshot implements etcd's interface.
func (noSnapshots) ForceSnapshot() {}
