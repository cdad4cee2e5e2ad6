package snapshot_test

import (
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestTaker_Proxy: a snapshot through etcd's own proxy is not verified, its manifest does
// not say which member it is of, and it can be restored without a list of members.
func TestTaker_Proxy(t *testing.T) {
	for _, version := range []string{"3.5", "3.6"} {
		real := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
		testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 10})
		for name, endpoint := range map[string]string{
			"Lists": real.StartGRPCProxy(t), "Passes": real.StartGRPCProxy(t, "--advertise-client-url="),
		} {
			t.Run(version+name, func(t *testing.T) { testTakeFromProxy(t, real, endpoint) })
		}
	}
}

func testTakeFromProxy(t *testing.T, real *testserver.Cluster, endpoint string) {
	taker := newTaker(t, connect(t, endpoint), mem.New())
	m := take(t, taker)
	if m.State() != backup.Unconfirmed || !slices.ContainsFunc(m.Unconfirmed, func(why string) bool {
		return strings.Contains(why, "a proxy answers at "+endpoint)
	}) {
		t.Errorf("%s: %v", m.State(), m.Unconfirmed)
	}
	if m.Source.ID != 0 || m.Endpoint != endpoint {
		t.Errorf("it says that it is of %+v at %s", m.Source, m.Endpoint)
	}
	var names []string
	for _, member := range m.Members {
		names = append(names, member.Name)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"m1", "m2", "m3"}) {
		t.Errorf("got members %+v", m.Members)
	}
	p, err := restore.NewPlan(snapshot.NewSource(in(taker.store).Cluster("prod"), m, nil).About(), restore.Request{})
	if err != nil {
		t.Fatal(err)
	}
	for _, member := range real.Members {
		if want := member.Name + "=" + member.PeerURL; !strings.Contains(p.InitialCluster(), want) {
			t.Errorf("%s is not in %s", want, p.InitialCluster())
		}
	}
}

// TestTaker_ProxyBehind: behind a proxy one member told how far it is, and another, which
// is behind, sent the database. That is no damage.
func TestTaker_ProxyBehind(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	f.mu.Lock()
	f.members = []*pb.Member{{Name: "proxy", ClientURLs: f.urls}}
	f.mu.Unlock()
	f.lie(func(_ uint64, st *pb.StatusResponse) {
		st.Header.Revision += 5
		st.RaftAppliedIndex, st.RaftIndex = st.RaftIndex+5, st.RaftIndex+5
	}, nil)
	m := take(t, newTaker(t, connect(t, f.urls...), mem.New()))
	if len(m.Suspect) > 0 || !strings.Contains(strings.Join(m.Unconfirmed, "; "), "that sent the database is behind") {
		t.Errorf("suspect %q, unconfirmed %q", m.Suspect, m.Unconfirmed)
	}
	if m.SourceIndex != db.facts.ConsistentIndex {
		t.Errorf("it claims everything up to index %d, and ends at %d", m.SourceIndex, db.facts.ConsistentIndex)
	}
}
