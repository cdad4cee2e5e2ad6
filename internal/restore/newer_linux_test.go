package restore_test

import (
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestFromFile_EtcdVersion names an etcd that starts, whichever of its two versions the
// database has in advance.
func TestFromFile_EtcdVersion(t *testing.T) {
	f := newest(t)
	for _, c := range []struct{ storage, cluster, want string }{
		{"3.7.0", "3.6.0", "3.7"}, // "etcdutl migrate" of 3.6, or the end of an upgrade: 3.6 does not start
		{"3.6.0", "3.7.0", "3.7"}, // the same of 3.7: neither does it here
		{"3.6.0", "3.0.0", "3.6"}, // a cluster that has just begun
	} {
		t.Run(c.storage+"/"+c.cluster, func(t *testing.T) {
			root := t.TempDir()
			path := copyFile(t, f.stopped, filepath.Join(root, "db"))
			db, err := bolt.Open(path, 0o600, nil)
			must(t, err)
			must(t, db.Update(func(tx *bolt.Tx) error {
				must(t, tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte(c.storage)))
				return tx.Bucket([]byte("cluster")).Put([]byte("clusterVersion"), []byte(c.cluster))
			}))
			must(t, db.Close())
			src, err := restore.FromFile(t.Context(), path, restore.SkipHash, nil)
			must(t, err)
			if got := src.About().EtcdVersion; got != c.want {
				t.Fatalf("got etcd %q, want %s", got, c.want)
			}
			members, initial := plannedMembers(t, root, 1)
			req := request{Site: restore.Site{OutputDir: root}, Request: restore.Request{InitialCluster: initial}}
			w, err := req.plan(t.Context(), src)
			must(t, err)
			must(t, req.execute(t.Context(), w, src))
			testserver.StartRestored(t, c.want, members).Client(t)
		})
	}
}

// TestPlan_NewerEtcd: a database of an etcd that is newer than backupd knows is restored,
// and the plan says so, whether it is made from a file or from a stored snapshot.
func TestPlan_NewerEtcd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	must(t, etcddb.NewSkeleton(path))
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		must(t, tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("3.9.0")))
		return tx.Bucket([]byte("cluster")).Put([]byte("clusterVersion"), []byte("3.9.0"))
	}))
	must(t, db.Close())
	file, err := restore.FromFile(t.Context(), path, restore.SkipHash, nil)
	must(t, err)
	manifest := &backup.Manifest{Capture: backup.Capture{StorageVersion: "3.9.0"}}
	manifest.Plain.SHA256 = backup.Digest{1}
	for _, source := range []restore.Origin{file.About(), snapshot.NewSource(nil, manifest, nil).About()} {
		p, err := restore.NewPlan(source, restore.Request{InitialCluster: "m1=http://127.0.0.1:2380"})
		must(t, err)
		if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, "it is of etcd 3.9") {
			t.Errorf("%s: notes %q do not name the version", source.Name, notes)
		}
	}
}

// TestPlan_Doubts: a plan from a file names what the inspection does not refuse.
func TestPlan_Doubts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	must(t, etcddb.NewSkeleton(path))
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		must(t, tx.Bucket([]byte("auth")).Put([]byte("authEnabled"), []byte{1}))
		return tx.Bucket([]byte("authUsers")).Put([]byte("root"), []byte("\x0a\x04root\x1a\x04roo\xff"))
	}))
	must(t, db.Close())
	file, err := restore.FromFile(t.Context(), path, restore.SkipHash, nil)
	must(t, err)
	p, err := restore.NewPlan(file.About(), restore.Request{InitialCluster: "m1=http://127.0.0.1:2380"})
	must(t, err)
	for _, want := range []string{"lacks the role root", `"roo\xff", a name that is no UTF-8`, "which is not there"} {
		if notes := strings.Join(p.Notes, "\n"); !strings.Contains(notes, want) {
			t.Errorf("notes %q do not say %q", notes, want)
		}
	}
}
