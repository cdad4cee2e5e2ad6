package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestTaker_Take takes snapshots of a real cluster into each kind of store. It
// compares the manifest with the answers of the members, and the stored bytes with
// the output of etcd's own tool.
func TestTaker_Take(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	real.WaitStorageVersion(t, "3.7.0")
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Compact: true})
	source := connect(t, real.Endpoints()...)
	classic := newIdentity(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	bucket, _ := newS3(t)
	timeline := map[storage.Store]string{}
	memory, disk := storage.Store(mem.New()), storage.Store(file.New(folder))
	for _, c := range []struct {
		name  string
		store storage.Store
		codec codec.Options
		ids   []age.Identity
	}{
		{"Memory", memory, codec.Options{}, nil},
		{"MemoryZstd", memory, codec.Options{Compress: codec.Zstd}, nil},
		{"File", disk, codec.Options{Compress: codec.Zstd}, nil},
		{"FileAge", disk, encryptTo(t, classic.Recipient().String()), []age.Identity{classic}},
		{"S3", bucket, codec.Options{Compress: codec.Zstd}, nil},
		{"S3Hybrid", bucket, encryptTo(t, hybrid.Recipient().String()), []age.Identity{hybrid}},
	} {
		t.Run(c.name, func(t *testing.T) {
			taker := newTaker(t, source, c.store)
			taker.Codec, taker.Hashes = c.codec, compare.All
			watchSpool(t, taker)
			m := take(t, taker)

			checkManifest(t, m, real, filled)
			if found, err := open(t.Context(), c.store, m); err != nil || marshal(t, found) != marshal(t, m) {
				t.Errorf("the stored manifest is another: %v, %v", found, err)
			}
			if err := verify(t, c.store, m, c.ids...); err != nil {
				t.Error(err)
			}
			checkData(t, c.store, m, c.ids)
			if before := timeline[c.store]; before != "" && before != m.Timeline {
				t.Errorf("got timeline %s, want that of the snapshot before, %s", m.Timeline, before)
			}
			timeline[c.store] = m.Timeline
		})
	}
	if timeline[memory] == timeline[disk] {
		t.Error("two repositories share a timeline")
	}
}

// watchSpool fails the test when the spool folder holds more than one database.
func watchSpool(t *testing.T, taker *taker) {
	t.Helper()
	taker.Progress = func(stage backup.Stage, _, total int64) {
		if stage != backup.StageReceive {
			return
		}
		used := int64(0)
		files, err := os.ReadDir(taker.Spool.Dir)
		if err != nil {
			t.Error(err)
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				used += info.Size()
				if info.Mode().Perm() != 0o600 {
					t.Errorf("spool has mode %v", info.Mode())
				}
			}
		}
		if used > total+sha256.Size {
			t.Errorf("the spool takes %d bytes, the database has %d", used, total)
		}
	}
}

func checkManifest(t *testing.T, m *backup.Manifest, real *testserver.Cluster, filled testserver.Filled) {
	t.Helper()
	client := real.Client(t)
	members, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.Revision != backup.Revision(filled.Revision) || m.CompactRevision != backup.Revision(filled.Compacted) ||
		m.HighWaterRevision != m.Revision || m.ID.Revision() != m.Revision {
		t.Errorf("got revisions %d, %d, %d, want %+v", m.Revision, m.CompactRevision, m.HighWaterRevision, filled)
	}
	if len(m.MemberHashes) != 3 || !m.Verified() {
		t.Errorf("got hashes %+v, suspect %v", m.MemberHashes, m.Suspect)
	}
	for _, h := range m.MemberHashes {
		live, err := client.HashKV(t.Context(), h.Endpoint, int64(m.Revision))
		if err != nil {
			t.Fatal(err)
		}
		if h.Result != backup.HashEqual || live.Hash != m.HashKV.Hash ||
			backup.MemberID(live.Header.MemberId) != h.MemberID {
			t.Errorf("got %+v, the member says %+v", h, live)
		}
	}
	for _, want := range members.Members {
		id := backup.MemberID(want.ID)
		if i := slices.IndexFunc(m.Members, func(m backup.Member) bool { return m.ID == id }); i < 0 ||
			m.Members[i].Name != want.Name || !slices.Equal(m.Members[i].PeerURLs, want.PeerURLs) ||
			!slices.Equal(m.Members[i].ClientURLs, want.ClientURLs) {
			t.Errorf("got members %+v, want %+v", m.Members, want)
		}
	}
	leases, err := client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	status, err := client.Status(t.Context(), m.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	if m.Leases != int64(len(leases.Leases)) || m.AuthEnabled || len(m.Alarms) != 0 || m.RaftTerm == 0 ||
		m.RaftIndex == 0 {
		t.Errorf("got %d leases, auth %v, alarms %v, raft %d/%d", m.Leases, m.AuthEnabled, m.Alarms, m.RaftTerm,
			m.RaftIndex)
	}
	if m.EtcdVersion != status.Version || m.StorageVersion != status.StorageVersion ||
		m.ClusterID != backup.MemberID(status.Header.ClusterId) ||
		m.Source.ID != backup.MemberID(status.Header.MemberId) || m.Source.Name == "" {
		t.Errorf("got versions %s, %s, cluster %s, source %+v, want %+v", m.EtcdVersion, m.StorageVersion, m.ClusterID,
			m.Source, status)
	}
	if m.Tool != "test" || m.FinishedAt.Before(m.StartedAt) || time.Since(m.StartedAt) > time.Hour {
		t.Errorf("got tool %q, times %v, %v", m.Tool, m.StartedAt, m.FinishedAt)
	}
}

// checkData decodes the stored object and asks etcd's own tool about it.
func checkData(t *testing.T, s storage.Store, m *backup.Manifest, ids []age.Identity) {
	t.Helper()
	stored := readObject(t, s, m.DataKey())
	if int64(len(stored)) != m.Stored.Bytes || m.Stored.SHA256 != sha256.Sum256(stored) {
		t.Error("the stored object is not what the manifest says")
	}
	raw, err := readData(t.Context(), s, m, ids...)
	if err != nil {
		t.Fatal(err)
	}
	if m.Plain != (backup.Blob{Bytes: int64(len(raw)), SHA256: sha256.Sum256(raw)}) {
		t.Error("the decoded bytes are not what the manifest says")
	}
	checkStatus(t, raw, m)
}

func checkStatus(t *testing.T, raw []byte, m *backup.Manifest) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	var status struct {
		Revision  int64
		TotalKey  int64
		TotalSize int64
		Version   string
	}
	out := run(t, testserver.Binary(t, "3.7", "etcdutl"), "snapshot", "status", name, "-w", "json")
	if err := json.Unmarshal(out, &status); err != nil {
		t.Fatal(err)
	}
	if backup.Revision(status.Revision) != m.Revision || status.TotalKey != m.Keys ||
		status.Version != m.StorageVersion {
		t.Errorf("etcdutl says %+v, the manifest %d, %d, %s", status, m.Revision, m.Keys, m.StorageVersion)
	}
}

func TestTaker_Take_Auth(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Args: []string{"--bcrypt-cost=4"}})
	testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 10})
	real.AddUser(t, "reader", "secret", "all-keys")
	real.EnableAuth(t, "secret")
	s := mem.New()
	login := func(user string) *cluster.Cluster {
		return testserver.Connect(t, cluster.Config{Endpoints: real.Endpoints(), Username: user, Password: "secret"})
	}
	_, err := newTaker(t, login("reader"), s).Take(t.Context())
	if !errors.Is(err, cluster.ErrPermission) || !strings.Contains(err.Error(), "role root") {
		t.Errorf("reader: got %v", err)
	}
	wantKeys(t, s)
	m := take(t, newTaker(t, login("root"), s))
	if !m.AuthEnabled || m.MemberHashes[0].Result != backup.HashEqual {
		t.Errorf("root: got auth %v, hashes %+v", m.AuthEnabled, m.MemberHashes)
	}
	wantKeys(t, s, m)
}

// TestTaker_Take_Alarm: a cluster in trouble is backed up, and the snapshot
// says so.
func TestTaker_Take_Alarm(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	source := connect(t, real.Endpoints()...)
	id := take(t, newTaker(t, source, mem.New())).Source.ID
	for _, alarm := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		_, err := pb.NewMaintenanceClient(real.Client(t).ActiveConnection()).Alarm(t.Context(),
			&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(id), Alarm: alarm})
		if err != nil {
			t.Fatal(err)
		}
		m := take(t, newTaker(t, source, mem.New()))
		if !slices.Contains(m.Alarms, backup.Alarm{MemberID: id, Type: alarm.String()}) {
			t.Errorf("%v: got alarms %v", alarm, m.Alarms)
		}
		if m.Verified() != (alarm == pb.AlarmType_NOSPACE) {
			t.Errorf("%v: got suspect %q", alarm, m.Suspect)
		}
	}
}

func TestTaker_Take_BadName(t *testing.T) {
	s := mem.New()
	taker := newTaker(t, connect(t, testserver.FreeURL(t)), s)
	to := snapshot.Target{Cluster: in(s).Cluster("../prod")}
	_, err := taker.Taker.Take(t.Context(), &cluster.Survey{}, to)
	if err == nil || !strings.Contains(err.Error(), "cluster name") {
		t.Errorf("got %v", err)
	}
	for o := range s.List(t.Context(), "", "") {
		t.Errorf("%s was written", o.Key)
	}
}

// TestTaker_Take_Timeline: a history goes on unless something contradicts that.
func TestTaker_Take_Timeline(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	source := connect(t, f.urls...)
	rev := db.facts.Revision
	for name, c := range map[string]struct {
		change func(*backup.Manifest)
		same   bool
	}{
		"Same":  {func(*backup.Manifest) {}, true},
		"Older": {func(m *backup.Manifest) { m.HighWaterRevision = rev - 1 }, true},
		// It may lag, for it has no quorum.
		"Behind":       {func(m *backup.Manifest) { m.HighWaterRevision = rev + 1 }, true},
		"OtherContent": {func(m *backup.Manifest) { m.HashKV.Hash++ }, false},
		"OtherCluster": {func(m *backup.Manifest) { m.ClusterID++ }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			first := take(t, newTaker(t, source, s))
			timeline := first.Timeline
			old := *first
			c.change(&old)
			if err := s.Delete(t.Context(), old.Key()); err != nil {
				t.Fatal(err)
			}
			create(t, s, old.Key(), []byte(marshal(t, &old)))
			// A manifest that cannot be read does not count.
			newer, _ := backup.ParseSnapshotID("29991231T000000Z-r9-aaaaaa")
			create(t, s, backup.Key{Cluster: "prod", Kind: backup.KindManifest, ID: newer,
				Timeline: "t1-aaaaaa"}.String(),
				[]byte(`{"format": "backupd/snapshot/v9"}`))
			newer, _ = backup.ParseSnapshotID("29991231T000000Z-r9-bbbbbb")
			create(t, s, backup.Key{Cluster: "prod", Kind: backup.KindManifest, ID: newer, Timeline: timeline}.String(),
				[]byte("nonsense"))
			f.noQuorum.Store(name == "Behind")
			defer f.noQuorum.Store(false)
			m := take(t, newTaker(t, source, s))
			if (m.Timeline == timeline) != c.same || (m.Origin == nil) != c.same {
				t.Errorf("got timeline %s after %s, origin %+v", m.Timeline, timeline, m.Origin)
			}
			if unclear := name == "Behind"; unclear != (m.State() == backup.Unconfirmed) || m.NewestTimeline == "" {
				t.Errorf("got %s: %v", m.State(), m.Unconfirmed)
			}
		})
	}
}

// TestTaker_Take_Twins: of two writers that see an empty repository at the same moment
// the later one joins the timeline of the other.
func TestTaker_Take_Twins(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	s := mem.New()
	repo, err := repository.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	var all []*backup.Manifest
	for range 2 {
		survey, err := source.Survey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := newTaker(t, source, s).Taker.Take(t.Context(), survey, snapshot.Target{Cluster: repo.Cluster("prod")})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	if all[0].Timeline != all[1].Timeline {
		t.Errorf("got %s and %s", all[0].Timeline, all[1].Timeline)
	}
}

func TestTaker_Take_Streamed(t *testing.T) {
	// The stored bytes are exactly those that etcd sent, whatever they are.
	db := realDatabase(t)
	s := mem.New()
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
	sum := sha256.Sum256(db.raw)
	raw, err := readData(t.Context(), s, m)
	if err != nil || !bytes.Equal(raw, append(bytes.Clone(db.raw), sum[:]...)) {
		t.Errorf("got %d bytes, %v", len(raw), err)
	}
}

// TestTaker_Take_Interrupted: the error of a taking that is stopped tells why it
// was stopped, wherever the end of the context is noticed first.
func TestTaker_Take_Interrupted(t *testing.T) {
	db := realDatabase(t)
	reason := errors.New("interrupted by a signal")
	for name, at := range map[string]struct {
		op  storage.Op
		key string
	}{
		"Data":     {storage.OpCreate, "prod/data/"},
		"ReadBack": {storage.OpOpen, "prod/data/"},
		"Manifest": {storage.OpCreate, "prod/snapshots/"},
	} {
		t.Run(name, func(t *testing.T) {
			for range 8 { // the upload may end before the taking looks, or after
				s := &storagetest.Hook{Store: mem.New()}
				taker := keeper(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0], s, t.TempDir())
				stop := func() context.Context {
					ctx, cancel := context.WithCancelCause(t.Context())
					s.Before = func(_ context.Context, op storage.Op, key string) error {
						if op != at.op || !strings.HasPrefix(key, at.key) {
							return nil
						}
						testserver.Eventually(t, "the snapshot can wait", func() bool {
							records, err := filepath.Glob(filepath.Join(taker.Spool.Dir, "*.pending.json"))
							return err != nil || len(records) == 1
						})
						cancel(reason)
						return ctx.Err()
					}
					return ctx
				}
				if _, err := taker.Take(stop()); !errors.Is(err, reason) {
					t.Fatalf("got %v", err)
				}
				if _, err := taker.StorePending(stop()); !errors.Is(err, reason) {
					t.Fatalf("the pending one: got %v", err)
				}
				s.Before = nil
				wantStored(t, s, taker.Spool.Dir, 1)
			}
		})
	}
}
