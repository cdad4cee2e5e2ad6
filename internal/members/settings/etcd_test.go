package settings_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestResolve_Etcd compares with what etcd itself takes from the same start.
func TestResolve_Etcd(t *testing.T) {
	const listen = "--listen-client-urls http://127.0.0.1:0 --advertise-client-urls http://127.0.0.1:1 " +
		"--listen-peer-urls http://127.0.0.1:0 "
	for version, c := range map[string]struct{ args, env string }{
		"3.5": {listen + "-name m1 --name=m2 --initial-advertise-peer-urls http://10.0.0.2:2380,http://10.0.0.1:2380 " +
			"--initial-cluster m2=http://10.0.0.1:2380,m2=http://10.0.0.2:2380", "ETCD_DATA_DIR=sub/../d ETCD_WAL_DIR=w"},
		"3.6": {listen + "--config-file=", "ETCD_NAME=m3 ETCD_WAL_DIR= ETCD_INITIAL_CLUSTER_TOKEN=t"},
		"3.7": {"--config-file etcd.yml --name other", "ETCD_DATA_DIR=other"},
	} {
		dir := t.TempDir()
		file := "name: m4\nwal-dir:\ninitial-cluster-token: t12\nlisten-peer-urls: http://127.0.0.1:0\n" +
			"listen-client-urls: http://127.0.0.1:0\nadvertise-client-urls: 'http://127.0.0.1:1'\n"
		write(t, filepath.Join(dir, "etcd.yml"), file)
		if problem := compare(t, version, dir, strings.Fields(c.args), strings.Fields(c.env)); problem != "" {
			t.Errorf("%s: %s", version, problem)
		}
	}
}

// compare starts etcd, and says in what it differs from what is resolved here.
func compare(t testing.TB, version, dir string, args, env []string) string {
	t.Helper()
	s := start(args, env)
	s.Dir = members.Word{Text: dir}
	h, err := settings.Resolve(s, fromDisk())
	if err != nil {
		return "we refuse: " + err.Error()
	}
	forget(t, dir)
	taken, output, ok := testserver.Take(t, dir, append([]string{testserver.Binary(t, version, "etcd")}, args...), env)
	if !ok {
		return "etcd does not start, and we accept: " + output
	}
	return difference(h, taken)
}

// difference is between a host and what etcd took.
func difference(h *settings.Host, taken testserver.Taken) string {
	ours := testserver.Taken{
		Name: h.Name.Text, DataDir: h.DataDir.Text, WALDir: h.WALDir.Text, PeerURLs: strings.Join(h.PeerURLs, ","),
		InitialCluster: taken.InitialCluster, Token: taken.Token,
	}
	if h.Token.Text != "" {
		ours.Token = h.Token.Text
	}
	if h.InitialCluster != nil {
		parsed, err := members.Parse(taken.InitialCluster)
		if err != nil || members.Format(parsed) != members.Format(h.InitialCluster) {
			return "the cluster is " + members.Format(h.InitialCluster) + ", to etcd " + taken.InitialCluster
		}
	}
	taken.DataDir = filepath.Clean(taken.DataDir)
	if taken.WALDir != "" {
		taken.WALDir = filepath.Clean(taken.WALDir)
	}
	if ours != taken {
		return strings.Join([]string{"ours ", show(h), ", etcd's ", taken.Name, taken.DataDir, taken.WALDir,
			taken.PeerURLs}, " ")
	}
	return ""
}

// forget removes what an etcd before has made, so that the next one begins anew, too.
func forget(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "etcd.yml" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}
