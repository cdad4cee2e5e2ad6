package testserver_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestStartRestored(t *testing.T) {
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		t.Run(version, func(t *testing.T) {
			source := testserver.StartCluster(t, testserver.Options{Version: version})
			testserver.Fill(t, source.Client(t), testserver.FillOptions{})
			want := contents(t, source)
			members := restoreWithEtcdutl(t, version, saveWithEtcdctl(t, source), "http")
			source.Members[0].Kill()

			restored := testserver.StartRestored(t, version, members)
			if got := contents(t, restored); got != want {
				t.Error("the restored cluster does not hold what the source held")
			}
			put(t, restored, "after")
			if version == "3.7" { // once is enough; etcd lets a new cluster wait for seconds
				restored.AddMember(t)
			}
		})
	}
}

func TestCluster_StartRestored(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{TLS: true})
	put(t, source, "key")
	members := restoreWithEtcdutl(t, "3.7", saveWithEtcdctl(t, source), "https")
	put(t, source.StartRestored(t, members), "after")
}

func TestStartRestored_AuthEnabled(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	file := saveAfterAuth(t, source)
	members := restoreWithEtcdutl(t, "3.7", file, "http")
	put(t, source.StartRestored(t, members), "after")
	source.Members[0].Kill()
}

func saveWithEtcdctl(t *testing.T, c *testserver.Cluster, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snapshot.db")
	args := append([]string{"--endpoints=" + c.Members[0].ClientURL}, flags...)
	if c.CAFile != "" {
		args = append(args, "--cacert="+c.CAFile, "--cert="+c.CertFile, "--key="+c.KeyFile)
	}
	run(t, testserver.Binary(t, c.Version, "etcdctl"), append(args, "snapshot", "save", file)...)
	return file
}

func saveAfterAuth(t *testing.T, c *testserver.Cluster) string {
	t.Helper()
	c.EnableAuth(t, "secret")
	return saveWithEtcdctl(t, c, "--user=root:secret")
}

// restoreWithEtcdutl makes the data directories of three members.
func restoreWithEtcdutl(t *testing.T, version, file, scheme string) []testserver.RestoredMember {
	t.Helper()
	dir := t.TempDir()
	var members []testserver.RestoredMember
	var initial []string
	for i := range 3 {
		name := fmt.Sprintf("r%d", i+1)
		m := testserver.RestoredMember{
			Name:      name,
			DataDir:   filepath.Join(dir, name),
			ClientURL: scheme + strings.TrimPrefix(testserver.FreeURL(t), "http"),
			PeerURL:   scheme + strings.TrimPrefix(testserver.FreeURL(t), "http"),
		}
		members = append(members, m)
		initial = append(initial, m.Name+"="+m.PeerURL)
	}
	members[0].WALDir = filepath.Join(dir, "wal-of-r1")
	for _, m := range members {
		args := []string{
			"snapshot", "restore", file, "--name=" + m.Name, "--data-dir=" + m.DataDir,
			"--initial-cluster=" + strings.Join(initial, ","), "--initial-advertise-peer-urls=" + m.PeerURL,
		}
		if m.WALDir != "" {
			args = append(args, "--wal-dir="+m.WALDir)
		}
		run(t, testserver.Binary(t, version, "etcdutl"), args...)
	}
	return members
}

// contents spells every key with its revisions, value and lease.
func contents(t *testing.T, c *testserver.Cluster) string {
	t.Helper()
	resp, err := c.Client(t).Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if resp.Count == 0 {
		t.Fatal("no keys")
	}
	return fmt.Sprint(resp.Kvs)
}
