package etcddb_test

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// download takes a snapshot, trailer included.
func download(t testing.TB, client *clientv3.Client) string {
	t.Helper()
	stream, err := client.Snapshot(t.Context())
	must(t, err)
	path := filepath.Join(t.TempDir(), "snapshot.db")
	file, err := os.Create(path)
	must(t, err)
	_, err = io.Copy(file, stream)
	must(t, err)
	must(t, file.Close())
	must(t, stream.Close())
	return path
}

// liveHash asks the only member of c. Revision 0 is the newest one, and is
// never answered from the cache of compaction hashes.
func liveHash(t testing.TB, c *testserver.Cluster, rev backup.Revision) backup.HashKV {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	resp, err := c.Client(t).HashKV(ctx, c.Endpoints()[0], int64(rev))
	must(t, err)
	if rev == 0 {
		rev = backup.Revision(resp.Header.Revision)
	}
	return backup.HashKV{Hash: resp.Hash, Revision: rev, CompactRevision: backup.Revision(resp.CompactRevision)}
}

// sameAsEtcdutl compares with etcdutl snapshot status of that version. The one
// of 3.5 counts the entries of all buckets as keys.
func sameAsEtcdutl(t testing.TB, version, path string, f *etcddb.Facts) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), testserver.Binary(t, version, "etcdutl"),
		"snapshot", "status", "-w", "json", path).Output()
	must(t, err)
	type status struct {
		Hash      uint32          `json:"hash"`
		Revision  backup.Revision `json:"revision"`
		TotalKey  int64           `json:"totalKey"`
		TotalSize int64           `json:"totalSize"`
		Version   string          `json:"version"`
	}
	var want status
	must(t, json.Unmarshal(out, &want))
	got := status{f.StatusHash, f.LastRecordRevision, f.TotalKeys, f.DatabaseBytes, f.StorageVersion}
	if version == "3.5" {
		sameAsEtcdutl(t, "3.7", path, f)
		want.TotalKey = got.TotalKey
	}
	if got != want {
		t.Errorf("status %+v, etcdutl %s says %+v", got, version, want)
	}
}

// inspectLive takes a snapshot of c and compares its facts with what etcdutl
// and the running member say.
func inspectLive(t testing.TB, c *testserver.Cluster) (string, *etcddb.Facts) {
	t.Helper()
	path := download(t, c.Client(t))
	must(t, trailer.Verify(t.Context(), path, nil))
	f, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	sameAsEtcdutl(t, c.Version, path, f)
	if rev, err := etcddb.Newest(t.Context(), path); err != nil || rev != f.Revision {
		t.Errorf("newest revision %d (%v), the whole file says %d", rev, err, f.Revision)
	}
	if live := liveHash(t, c, 0); f.HashKV != live {
		t.Errorf("HashKV %+v, the member says %+v", f.HashKV, live)
	}
	return path, f
}

func TestInspect_RealServers(t *testing.T) {
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			c := testserver.StartCluster(t, testserver.Options{Version: version})
			client := c.Client(t)
			if _, f := inspectLive(t, c); f.TotalKeys != 0 || f.Revision != 1 ||
				f.CompactRevision != etcddb.NeverCompacted {
				t.Errorf("facts of an empty cluster: %+v", f)
			}
			filled := testserver.Fill(t, client, testserver.FillOptions{Keys: 150, ValueBytes: 700, Seed: 1})
			inspectLive(t, c)
			_, err := client.Compact(t.Context(), filled.Revision*2/3, clientv3.WithCompactPhysical())
			must(t, err)
			_, f := inspectLive(t, c)
			if f.CompactRevision != backup.Revision(filled.Revision*2/3) ||
				f.FinishedCompactRevision != f.CompactRevision {
				t.Errorf("compact revision %d (finished %d), want %d", f.CompactRevision, f.FinishedCompactRevision,
					filled.Revision*2/3)
			}
			if f.Leases != int64(len(filled.Leases)) {
				t.Errorf("%d leases, want %d", f.Leases, len(filled.Leases))
			}
			more := testserver.Fill(t, client, testserver.FillOptions{Keys: 60, Seed: 2})
			path, f := inspectLive(t, c)

			// The cluster goes on and compacts before it is asked.
			later := testserver.Fill(t, client, testserver.FillOptions{Keys: 60, Seed: 3})
			for _, compact := range []int64{0, more.Revision - 20, more.Revision - 3} {
				if compact > 0 {
					_, err := client.Compact(t.Context(), compact, clientv3.WithCompactPhysical())
					must(t, err)
				}
				want := liveHash(t, c, f.Revision)
				got, err := etcddb.HashAt(t.Context(), path, want.Revision, want.CompactRevision)
				must(t, err)
				if got != want {
					t.Errorf("hash %+v, the member says %+v", got, want)
				}
			}
			_, err = client.Compact(t.Context(), later.Revision, clientv3.WithCompactPhysical())
			must(t, err)
			inspectLive(t, c) // compacted at the newest revision

			testFlips(t, version, testOtherFacts(t, c))
		})
	}
}

// testOtherFacts looks at what is not in the key bucket, and returns the snapshot.
func testOtherFacts(t *testing.T, c *testserver.Cluster) string {
	client := c.Client(t)
	members, err := client.MemberList(t.Context())
	must(t, err)
	m := members.Members[0]
	_, err = pb.NewMaintenanceClient(client.ActiveConnection()).Alarm(t.Context(), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: m.ID, Alarm: pb.AlarmType_NOSPACE,
	})
	must(t, err)
	c.EnableAuth(t, "secret")
	_, err = c.Client(t).RoleAdd(t.Context(), "viewer")
	must(t, err)
	c.AddUser(t, "reader", "secret", "viewer", "gone")
	refuseLoss(t, c.Client(t))

	status, err := c.Client(t).Status(t.Context(), c.Endpoints()[0])
	must(t, err)
	path := download(t, c.Client(t))
	f, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	wantMember := backup.Member{ID: backup.MemberID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs}
	if !reflect.DeepEqual(f.Members, []backup.Member{wantMember}) {
		t.Errorf("members %+v, want %+v", f.Members, wantMember)
	}
	if want := []backup.Alarm{{MemberID: wantMember.ID, Type: "NOSPACE"}}; !reflect.DeepEqual(f.Alarms, want) {
		t.Errorf("alarms %+v, want %+v", f.Alarms, want)
	}
	if len(f.Doubts)+len(f.Cautions) > 0 {
		t.Errorf("etcd makes users of which the inspection says %q and %q", f.Doubts, f.Cautions)
	}
	if !f.AuthEnabled || f.Users != 2 || f.Roles != 1 {
		t.Errorf("auth %v with %d users and %d roles, want it on, 2 and 1", f.AuthEnabled, f.Users, f.Roles)
	}
	// Asking is itself an entry in the raft log when auth is on.
	if f.RaftTerm != status.RaftTerm || f.ConsistentIndex < 100 || f.ConsistentIndex > status.RaftAppliedIndex+50 {
		t.Errorf("term %d and index %d, the member is at %d and %d", f.RaftTerm, f.ConsistentIndex, status.RaftTerm,
			status.RaftAppliedIndex)
	}
	if !strings.HasPrefix(f.ClusterVersion, c.Version) {
		t.Errorf("cluster version %q, want %s", f.ClusterVersion, c.Version)
	}
	if c.Version > "3.5" && !strings.HasPrefix(f.StorageVersion, c.Version) {
		t.Errorf("storage version %q, want %s", f.StorageVersion, c.Version)
	}
	return path
}

// refuseLoss has etcd refuse all by which the user root could lose the role root, and
// deletes a role that a user has: etcd revokes it.
func refuseLoss(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	_, revoked := client.UserRevokeRole(ctx, "root", "root")
	_, deleted := client.UserDelete(ctx, "root")
	if revoked == nil || deleted == nil {
		t.Errorf("etcd takes the role root from the user root (%v), or deletes it (%v)", revoked, deleted)
	}
	_, err := client.RoleDelete(ctx, "gone")
	must(t, err)
}
