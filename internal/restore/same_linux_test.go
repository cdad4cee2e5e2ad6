package restore_test

import (
	"fmt"
	"path/filepath"
	"testing"

	etcdsnapshot "go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestExecute_SameAsEtcdutl restores with the same flags both ways. All that a
// server reads must be equal: WAL, snapshot file, database.
func TestExecute_SameAsEtcdutl(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		f := fixtureOf(t, version)
		for _, size := range []int{1, 3} {
			for _, bump := range []uint64{0, 1_000_000} {
				for _, walDir := range []string{"", "wal", "data/log"} {
					t.Run(fmt.Sprintf("%s/Members=%d/Bump=%d/WAL=%s", version, size, bump, walDir), func(t *testing.T) {
						t.Parallel()
						testSameAsEtcdutl(t, f, size, bump, walDir)
					})
				}
			}
		}
	}
}

func testSameAsEtcdutl(t *testing.T, f *fixture, size int, bump uint64, walDir string) {
	cluster := "m1=http://10.0.0.1:2380"
	if size == 3 {
		cluster = "m3=http://10.0.0.3:2380,m1=http://10.0.0.1:2380," +
			"m2=https://etcd-2.example:2380,m2=http://10.0.0.2:2380"
	}
	theirs, ours := t.TempDir(), t.TempDir()
	conf := etcdsnapshot.RestoreConfig{
		SnapshotPath: f.snapshot, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}, InitialCluster: cluster,
		InitialClusterToken: "token-1", OutputDataDir: filepath.Join(theirs, "data"),
		RevisionBump: bump, MarkCompacted: bump > 0, InitialMmapSize: 64 << 20,
	}
	req := request{
		Site: restore.Site{Name: "m1", PeerURLs: conf.PeerURLs, DataDir: filepath.Join(ours, "data")},
		Request: restore.Request{
			InitialCluster: cluster, Token: conf.InitialClusterToken, BumpRevision: bump, MarkCompacted: bump > 0,
		},
	}
	wal := filepath.Join("data", "member", "wal")
	if walDir != "" {
		wal = walDir
		conf.OutputWALDir, req.WALDir = filepath.Join(theirs, walDir), filepath.Join(ours, walDir)
	}
	must(t, etcdsnapshot.NewV3(zap.NewNop()).Restore(conf))
	restoreFile(t, f.snapshot, req)

	if got, want := walOf(t, filepath.Join(ours, wal)), walOf(t, filepath.Join(theirs, wal)); got != want {
		t.Errorf("the WAL says\n%s\netcdutl's says\n%s", got, want)
	}
	same(t, "snapshot files", snapsOf(t, req.DataDir), snapsOf(t, conf.OutputDataDir))
	same(t, "database", dump(t, databaseOf(req.DataDir)), dump(t, databaseOf(conf.OutputDataDir)))
	same(t, "folders", foldersOf(t, ours), foldersOf(t, theirs))
	noLitter(t, ours)
}

// foldersOf lists names and what their owner may do with them. Others may do nothing in a
// restored folder, whatever the umask is: etcdutl follows the umask.
func foldersOf(t testing.TB, dir string) map[string]string {
	out := contents(t, dir)
	for name, what := range out {
		out[name] = what[:4]
	}
	return out
}
