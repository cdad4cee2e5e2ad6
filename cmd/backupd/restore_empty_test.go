package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore/again"
)

// pending is a restore over old data that was interrupted when half of it was moved. What is
// restored is the one member of that cluster.
func pending(t *testing.T, c again.Cluster) (dir string) {
	t.Helper()
	moving := func(_, path string) bool { return strings.Contains(path, publish.AsidePrefix) }
	return interrupted(t, moving, func(tree string) error {
		who, err := proto.Marshal(&etcdserverpb.Metadata{
			NodeID: proto.Uint64(uint64(c.Members[0].ID)), ClusterID: proto.Uint64(uint64(c.ID)),
		})
		if err != nil {
			return err
		}
		snap := filepath.Join(tree, "member", "snap")
		err = errors.Join(os.MkdirAll(snap, 0o700), os.WriteFile(filepath.Join(snap, "db"), make([]byte, 4*4096), 0o600))
		if err != nil {
			return err
		}
		w, err := wal.Create(zap.NewNop(), filepath.Join(tree, "member", "wal"), who)
		if err != nil {
			return err
		}
		return w.Close()
	})
}

// TestRestore_IfEmpty_Interrupted: what was interrupted is finished without a repository, and
// then looked at as all that is there. No flag says where a repository is.
func TestRestore_IfEmpty_Interrupted(t *testing.T) {
	c, err := again.Named("m1=http://h:1", "t9")
	if err != nil {
		t.Fatal(err)
	}
	args := func(dir, token string, more ...string) []string {
		return append([]string{"restore", "--if-empty", "20261120T101500Z-r5-aaaaaa", "--name", "m1", "--data-dir", dir,
			"--initial-cluster", "m1=http://h:1", "--initial-cluster-token", token}, more...)
	}
	dir := pending(t, c)
	code, _, stderr := backupd(args(dir, "t9", "--dry-run")...)
	if code != 6 || !strings.Contains(stderr, "backupd restore --finish --data-dir="+dir) {
		t.Errorf("a dry run: exit code %d\n%s", code, stderr)
	}
	code, stdout, stderr := backupd(args(dir, "t9")...)
	if code != 0 || !strings.Contains(stdout, "Finished the interrupted restore of snapshot x") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = backupd(args(dir, "t9")...)
	if code != 0 || !strings.Contains(stdout, "was made by this restore") {
		t.Errorf("once more: exit code %d\n%s%s", code, stdout, stderr)
	}

	// It was another restore.
	dir = pending(t, c)
	code, _, stderr = backupd(args(dir, "t8", "--require-this")...)
	if code != 6 || !strings.Contains(stderr, "another history") {
		t.Errorf("another restore: exit code %d\n%s", code, stderr)
	}
	code, stdout, stderr = backupd(args(dir, "t8")...)
	if code != 0 || !strings.Contains(stdout, "another history") {
		t.Errorf("another restore: exit code %d\n%s%s", code, stdout, stderr)
	}
}
