package confirm_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/confirm"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const (
	ok      = backup.LevelOK
	warning = backup.LevelWarning
	failure = backup.LevelFailure
)

// TestRun_Green: a restored cluster is as planned, with a bump of the revision and without,
// before it was written to and after, until it is compacted.
func TestRun_Green(t *testing.T) {
	for name, r := range map[string]restore.Request{
		"AsItWas": {}, "Bumped": {BumpRevision: 1_000_000, MarkCompacted: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, 3)
			p := g.restore(snapshotOf(t, "3.7", ""), r)
			etcd := testserver.StartRestored(t, "3.7", g.members)
			green(t, g, p, etcd)
		})
	}
}

// green walks a cluster that was just restored through its first minutes.
func green(t *testing.T, g *ground, p *restore.Plan, etcd *testserver.Cluster) {
	client, last := etcd.Client(t), g.members[len(g.members)-1]
	report := g.check(p, confirm.Options{NoWrite: true}, cluster.Config{})
	g.want(report, confirm.Green, "write", "put", warning, "--no-write")
	g.want(report, confirm.Green, "data", "m1", ok, "as planned")
	g.want(report, confirm.Green, "data", "leases", ok, "as many as")
	if report.Failures != 0 || report.Warnings != 1 {
		t.Errorf("%d failures and %d warnings", report.Failures, report.Warnings)
	}
	before := revision(t, client)
	one := cluster.Config{Endpoints: []string{g.members[0].ClientURL}} // the others are found
	report = g.check(p, confirm.Options{}, one)
	g.want(report, confirm.Green, "write", "put", ok, confirm.Prefix)
	g.want(report, confirm.Green, "member", last.Name, ok, last.ClientURL)
	left, err := client.Get(t.Context(), confirm.Prefix, clientv3.WithPrefix())
	if must(t, err); left.Count != 0 || left.Header.Revision != before+2 {
		t.Errorf("%d keys are left at revision %d, which was %d", left.Count, left.Header.Revision, before)
	}

	_, err = client.Put(t.Context(), "after", "restore")
	must(t, err)
	report = g.check(p, confirm.Options{}, one)
	g.want(report, confirm.Green, "data", "m1", ok, "as planned")
	if len(g.members) > 1 {
		g.want(report, confirm.Green, "data", "members", ok, "equal data")
	}
	if head := int64(p.Source.Revision); p.Request.BumpRevision == 0 && int64(p.Source.HashKV.CompactRevision) < head-1 {
		_, err = client.Compact(t.Context(), head-1, clientv3.WithCompactPhysical())
		must(t, err)
		g.want(g.check(p, confirm.Options{}, one), confirm.Incomplete, "data", "m1", failure, "it was compacted")
	}
	_, err = client.Compact(t.Context(), revision(t, client), clientv3.WithCompactPhysical())
	must(t, err)
	report = g.check(p, confirm.Options{Wait: time.Hour}, one) // ends at once: that will not change
	g.want(report, confirm.Incomplete, "data", "m1", failure, "not comparable")
	if len(g.members) > 1 {
		g.want(report, confirm.Incomplete, "data", "members", ok, "equal data")
	}
}

func revision(t testing.TB, client *clientv3.Client) int64 {
	t.Helper()
	resp, err := client.Get(t.Context(), "any")
	must(t, err)
	return resp.Header.Revision
}

// TestRun_Members: a member that is not there is named, and waited for.
func TestRun_Members(t *testing.T) {
	g := newGround(t, 3)
	p := g.restore(snapshotOf(t, "3.7", ""), restore.Request{})
	etcd := testserver.StartRestored(t, "3.7", g.members)
	etcd.Members[2].Kill()
	client := etcd.ClientAs(t, "", "")
	testserver.Eventually(t, "another leader", func() bool { _, err := client.Get(t.Context(), "any"); return err == nil })
	report := g.check(p, confirm.Options{}, cluster.Config{})
	g.want(report, confirm.Incomplete, "member", "m3", failure, g.members[2].PeerURL)
	g.want(report, confirm.Incomplete, "data", "m2", ok, "as planned")
	g.want(report, confirm.Incomplete, "write", "put", warning, "not tried")

	back := make(chan struct{})
	time.AfterFunc(200*time.Millisecond, func() { defer close(back); etcd.Members[2].Restart(t) })
	report = g.check(p, confirm.Options{Wait: time.Minute, Pause: 50 * time.Millisecond}, cluster.Config{})
	<-back
	g.want(report, confirm.Green, "member", "m3", ok, "answers")
	var phases []string
	for _, p := range report.Phases {
		phases = append(phases, p.Phase)
	}
	if !strings.HasSuffix(strings.Join(phases, ", "), "first member answered, all members answered, verified") {
		t.Errorf("phases %q", phases)
	}
}

// TestRun_OtherSnapshot: a member was restored from another snapshot with the same token,
// which is made up. It has the revision of the others, or a later one, at which it is then
// compacted.
func TestRun_OtherSnapshot(t *testing.T) {
	for kind, request := range map[string]restore.Request{
		"other": {Token: "made-up"},
		"later": {Token: "made-up", BumpRevision: 1000, MarkCompacted: true},
	} {
		t.Run(kind, func(t *testing.T) {
			g := newGround(t, 3)
			g.restore(snapshotOf(t, "3.7", kind), request, "m3")
			p := g.restore(snapshotOf(t, "3.7", ""), request, "m1", "m2")
			testserver.StartRestored(t, "3.7", g.members)
			report := g.check(p, confirm.Options{Wait: time.Hour}, cluster.Config{})
			g.want(report, confirm.Differs, "data", "m1", ok, "as planned")
			if kind == "other" {
				g.want(report, confirm.Differs, "data", "m3", failure, "other data than the plan")
			} else {
				g.want(report, confirm.Differs, "data", "members", failure, "have diverged")
			}
		})
	}
}

// TestRun_OtherUsers: a member was restored from a snapshot with the same keys and other users,
// which raise no revision; or all were.
func TestRun_OtherUsers(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	client, dir := source.Client(t), t.TempDir()
	_, err := client.Put(t.Context(), "key", "value")
	must(t, err)
	first := download(t, client, filepath.Join(dir, "first.db"))
	_, err = client.UserAdd(t.Context(), "eve", "secret")
	must(t, err)
	second := download(t, client, filepath.Join(dir, "second.db"))
	request := restore.Request{Token: "made-up"}

	g := newGround(t, 3)
	g.restore(second, request, "m3")
	p := g.restore(first, request, "m1", "m2")
	testserver.StartRestored(t, "3.7", g.members)
	report := g.check(p, confirm.Options{Wait: time.Hour}, cluster.Config{})
	g.want(report, confirm.Differs, "data", "m3", ok, "as planned") // HashKV does not cover users
	g.want(report, confirm.Differs, "cluster", "auth", failure, "m1, m2: not enabled, auth revision 1; m3: not enabled, "+
		"auth revision 2; the snapshot: not enabled, auth revision 1")

	g = newGround(t, 1)
	g.restore(first, request)
	p = g.restore(second, request, "none")
	etcd := testserver.StartRestored(t, "3.7", g.members)
	g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Differs, "cluster", "auth", failure,
		"are not the snapshot's: auth revision 1, and it was 2")
	for range 2 {
		_, err = etcd.Client(t).RoleAdd(t.Context(), "role"+backup.RandomName(4))
		must(t, err)
	}
	g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Incomplete, "cluster", "auth", failure,
		"not the snapshot's any more: auth revision 3, and it was 2")
}

// TestRun_EmptyMember: a member has begun in an empty folder, with the flags of its plan. It
// joins the cluster, and holds nothing.
func TestRun_EmptyMember(t *testing.T) {
	g := newGround(t, 3)
	p := g.restore(snapshotOf(t, "3.7", ""), restore.Request{})
	testserver.StartRestored(t, "3.7", g.members[:2])
	testserver.StartRestored(t, "3.7", g.members[2:], "--data-dir="+t.TempDir(), "--initial-cluster="+g.initial,
		"--initial-cluster-token="+p.Token)
	report := g.check(p, confirm.Options{}, cluster.Config{})
	g.want(report, confirm.Differs, "data", "m3", failure, "empty data directory")
	g.want(report, confirm.Differs, "cluster", "voters", ok, "as planned")
}

// TestRun_NewWAL: the restored WAL was not found, and etcd has made one from its old flags.
// So the cluster has its old id, with all the data.
func TestRun_NewWAL(t *testing.T) {
	g := newGround(t, 1)
	g.members[0].WALDir = filepath.Join(g.dir, "wal")
	source := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{})
	snapshot := download(t, source.Client(t), filepath.Join(t.TempDir(), "snapshot.db"))
	token := regexp.MustCompile(`"initial-cluster-token":"([^"]+)"`).FindStringSubmatch(source.Members[0].Log())[1]
	source.Members[0].Kill()
	g.initial = "m1=" + source.Members[0].PeerURL
	g.members[0].PeerURL = source.Members[0].PeerURL
	p := g.restore(snapshot, restore.Request{})
	etcd := testserver.StartRestored(t, "3.7", g.members, "--wal-dir="+filepath.Join(g.dir, "empty"),
		"--initial-cluster="+g.initial, "--initial-cluster-token="+token)
	report := g.check(p, confirm.Options{}, cluster.Config{})
	g.want(report, confirm.OtherCluster, "member", g.members[0].ClientURL, failure, "a new one from its own flags")
	g.want(report, confirm.OtherCluster, "member", "m1", failure, "no endpoint reaches it")
	if first := report.Findings[0]; first.Subject != g.members[0].ClientURL {
		t.Errorf("the first finding is of %s: %s", first.Subject, first.Text)
	}
	if last := report.Findings[1]; strings.Contains(last.Hint, "start it") {
		t.Errorf("%s: who would start it? %s", last.Subject, last.Hint)
	}

	_, err := etcd.Client(t).Put(t.Context(), "any", "")
	must(t, err)
	_, err = etcd.Client(t).Compact(t.Context(), revision(t, etcd.Client(t)))
	must(t, err)
	report = g.check(p, confirm.Options{}, cluster.Config{}) // as one that was never restored
	g.want(report, confirm.OtherCluster, "member", g.members[0].ClientURL, failure, "from before the restore")
}

// TestRun_Alarm, a proxy, and members that the plan does not have.
func TestRun_Alarm(t *testing.T) {
	g := newGround(t, 1)
	p := g.restore(snapshotOf(t, "3.7", ""), restore.Request{})
	etcd := testserver.StartRestored(t, "3.7", g.members)
	client, proxy := etcd.Client(t), cluster.Config{Endpoints: []string{etcd.StartGRPCProxy(t)}}
	g.want(g.check(p, confirm.Options{}, proxy), confirm.Incomplete, "member", proxy.Endpoints[0], failure, "a proxy")
	_, err := pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: uint64(p.Members[0].ID), Alarm: pb.AlarmType_NOSPACE})
	must(t, err)
	g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Incomplete, "cluster", "alarms", failure, "NOSPACE")
	_, err = client.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	must(t, err)
	g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Green, "cluster", "alarms", ok, "none")
	_, err = client.MemberAddAsLearner(t.Context(), []string{"http://127.0.0.1:1"})
	must(t, err)
	g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Incomplete, "cluster", "voters", failure, "a learner")
	_, err = client.MemberAdd(t.Context(), []string{"http://127.0.0.1:2"})
	must(t, err)
	// There is no quorum any more.
	report := g.check(p, confirm.Options{Timeout: 2 * time.Second}, cluster.Config{})
	g.want(report, confirm.Incomplete, "cluster", "voters", failure, "a voter that the plan does not have")
}

// TestRun_Auth: a cluster that asks for users is asked as root.
func TestRun_Auth(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	_, err := source.Client(t).Put(t.Context(), "key", "value")
	must(t, err)
	source.AddUser(t, "reader", "secret", "readers")
	source.EnableAuth(t, "root-secret")
	g := newGround(t, 1)
	snapshot := download(t, source.Client(t), filepath.Join(t.TempDir(), "snapshot.db"))
	p := g.restore(snapshot, restore.Request{BumpRevision: 1000, MarkCompacted: true})
	etcd := source.StartRestored(t, g.members)
	root := cluster.Config{Username: "root", Password: "root-secret"}
	report := g.check(p, confirm.Options{}, root)
	g.want(report, confirm.Green, "cluster", "auth", ok, "enabled, as in the snapshot; auth revision 7, as planned")
	g.want(report, confirm.Green, "write", "put", ok, "")
	for name, login := range map[string]cluster.Config{
		"Nobody": {}, "Reader": {Username: "reader", Password: "secret"},
	} {
		report := g.check(p, confirm.Options{}, login)
		if report.State != confirm.Incomplete || !slices.ContainsFunc(report.Findings, func(f backup.Finding) bool {
			return strings.Contains(f.Hint, "root")
		}) {
			t.Errorf("%s: %s, %+v", name, report.State, report.Findings)
		}
	}
	two := newGround(t, 2)
	p2 := two.restore(snapshot, restore.Request{})
	source.StartRestored(t, two.members).Members[1].Kill()
	report = two.check(p2, confirm.Options{Timeout: 2 * time.Second}, root)
	two.want(report, confirm.Incomplete, "member", "m1", failure, "without a quorum nobody can log in")

	_, err = etcd.Client(t).AuthDisable(t.Context())
	must(t, err)
	g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Incomplete, "cluster", "auth", failure, "not enabled")
}
