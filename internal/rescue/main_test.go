package rescue_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	if code, ok := rescue.ChildMain(); ok {
		os.Exit(code)
	}
	testserver.RunChild()
	code := m.Run()
	if dead.dir != "" {
		_ = os.RemoveAll(dead.dir)
	}
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lag keeps what a member applies in memory for the whole test: after kill -9 its database is
// far behind its log. A crash leaves the same, a tenth of a second behind.
var lag = []string{
	"--backend-batch-interval=1h", "--backend-batch-limit=1000000",
	"--strict-reconfig-check=false", // else members must be connected for some seconds
}

const password = "secret"

// crashed is a cluster after kill -9 of all members.
type crashed struct {
	cluster *testserver.Cluster
	acked   map[string]string // all puts that were acknowledged after the last change of the rest
}

// learner adds a member that never starts.
func learner(t testing.TB) func(*testserver.Cluster) {
	return func(c *testserver.Cluster) {
		_, err := c.Client(t).MemberAddAsLearner(t.Context(), []string{"http://127.0.0.1:1"})
		must(t, err)
	}
}

// crash makes a cluster with everything in its logs: keys, leases, a compaction, users, a member
// that was removed, and what before adds. Then it kills all at once.
func crash(t testing.TB, version string, before ...func(*testserver.Cluster)) *crashed {
	t.Helper()
	args := lag
	if version == "3.5" {
		args = append(args[:len(args):len(args)], "--enable-v2=true")
	}
	c := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3, Args: args})
	testserver.Fill(t, c.Client(t), testserver.FillOptions{Keys: 150, Compact: true})
	out := &crashed{cluster: c, acked: map[string]string{}}
	removeFollower(t, c)
	for _, f := range before {
		f(c)
	}
	c.EnableAuth(t, password)
	c.AddUser(t, "alice", "wonder", "reader")
	client := c.Client(t)
	lease, err := client.Grant(t.Context(), 7200)
	must(t, err)
	var mu sync.Mutex
	var writers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("busy/%d/%04d", w, i), fmt.Sprint(i)
				if _, err := client.Put(ctx, key, value, clientv3.WithLease(lease.ID)); err == nil {
					mu.Lock()
					out.acked[key] = value
					mu.Unlock()
				}
			}
		})
	}
	testserver.Eventually(t, "a hundred puts are acknowledged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(out.acked) > 100
	})
	for _, m := range c.Members {
		m.Kill()
	}
	cancel()
	writers.Wait()
	return out
}

// removeFollower removes a member that does not lead, and ends it. The others go on.
func removeFollower(t testing.TB, c *testserver.Cluster) {
	t.Helper()
	client := c.Client(t)
	for i, m := range c.Members {
		st, err := client.Status(t.Context(), m.ClientURL)
		must(t, err)
		if st.Leader == st.Header.MemberId {
			continue
		}
		testserver.Eventually(t, "remove "+m.Name, func() bool { // who is asked may be the one that is removed
			_, err := client.MemberRemove(t.Context(), st.Header.MemberId)
			return err == nil || errors.Is(err, rpctypes.ErrMemberNotFound)
		})
		m.Kill()
		c.Members = append(c.Members[:i:i], c.Members[i+1:]...)
		return
	}
}

// dead are the folders of a crashed cluster that tests share: each copies what it changes.
var dead struct {
	once    sync.Once
	dir     string
	folders []rescue.Folder
}

// share keeps copies of the folders of a crashed cluster for all tests.
func share(t testing.TB, c *crashed) {
	t.Helper()
	dead.once.Do(func() {
		dir, err := os.MkdirTemp("", "backupd-dead-")
		must(t, err)
		dead.dir = dir
		for _, m := range c.cluster.Members {
			dead.folders = append(dead.folders, rescue.Folder{DataDir: copyTree(t, m.DataDir, filepath.Join(dir, m.Name))})
		}
	})
}

// survivors returns copies of the folders of a crashed cluster of two.
func survivors(t testing.TB) []rescue.Folder {
	t.Helper()
	if dead.folders == nil {
		share(t, crash(t, "3.7", learner(t)))
	}
	var out []rescue.Folder
	for _, f := range dead.folders {
		to := filepath.Join(t.TempDir(), filepath.Base(f.DataDir))
		out = append(out, rescue.Folder{DataDir: copyTree(t, f.DataDir, to)})
	}
	return out
}

// copyTree copies a folder. Of the zeros that end a segment of a WAL it keeps a few.
func copyTree(t testing.TB, from, to string) string {
	t.Helper()
	must(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(at, 0o700)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		used := len(strings.TrimRight(string(raw), "\x00"))
		size := len(raw)
		if filepath.Ext(path) == ".wal" {
			size = min(size, used+64<<10)
		}
		return errors.Join(os.WriteFile(at, raw[:used], 0o600), os.Truncate(at, int64(size)))
	}))
	return to
}

// run rescues from folders.
func run(t testing.TB, what rescue.Uncommitted, folders ...rescue.Folder) (*rescue.Result, error) {
	t.Helper()
	out, err := rescue.Run(t.Context(), rescue.Request{
		Folders: folders, Work: t.TempDir(), MinFree: disk.ReserveOf(0), Uncommitted: what, WithoutWAL: true,
		Progress: func(backup.Stage, int64, int64) {},
	})
	if err == nil {
		t.Logf("from %d: entry %d, revision %d, uncommitted %v, warnings %q", len(folders), out.RaftIndex, out.Revision,
			out.Uncommitted, out.Notes)
	}
	return out, err
}

// rescued rescues and writes the snapshot file.
func rescued(t testing.TB, what rescue.Uncommitted, folders ...rescue.Folder) (*rescue.Result, string) {
	t.Helper()
	out, err := run(t, what, folders...)
	must(t, err)
	path := filepath.Join(t.TempDir(), "rescued.db")
	must(t, out.Write(t.Context(), path))
	return out, path
}
