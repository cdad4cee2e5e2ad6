package testserver

import (
	"os"
	"path/filepath"
	"testing"
)

// RestoredMember is where a restore put one member.
type RestoredMember struct {
	Name      string
	DataDir   string
	WALDir    string // empty: inside DataDir
	PeerURL   string // as in the restored membership; must be free, see [FreeURL]
	ClientURL string // must be free
}

// StartRestored starts etcd on data directories made by a restore, as an
// operator would: with the name, the directories and the URLs, and with
// nothing that could make etcd begin a new cluster. It returns when all
// members have the same leader, and fails the test with their logs if not.
func StartRestored(t testing.TB, version string, members []RestoredMember, extra ...string) *Cluster {
	t.Helper()
	return newCluster(t, version).startRestored(t, members, extra)
}

// StartRestored is the function of the same name with the version and the
// certificates of c, whose members must not be running on the same URLs.
func (c *Cluster) StartRestored(t testing.TB, members []RestoredMember, extra ...string) *Cluster {
	t.Helper()
	restored := newCluster(t, c.Version)
	restored.authority = c.authority
	restored.CAFile, restored.CertFile, restored.KeyFile, restored.CN = c.CAFile, c.CertFile, c.KeyFile, c.CN
	restored.user, restored.password = c.user, c.password
	return restored.startRestored(t, members, extra)
}

func (c *Cluster) startRestored(t testing.TB, members []RestoredMember, extra []string) *Cluster {
	t.Helper()
	for _, r := range members {
		wal := r.WALDir
		if wal == "" {
			wal = filepath.Join(r.DataDir, "member", "wal")
		}
		// On an empty directory etcd would begin a cluster of its own, healthy
		// and without the data.
		if entries, err := os.ReadDir(wal); err != nil || len(entries) == 0 {
			t.Fatalf("testserver: start restored %s: no write-ahead log in %s: %v", r.Name, wal, err)
		}
		m := c.memberAt(t, r)
		m.args = append(m.args, extra...)
		c.Members = append(c.Members, m)
	}
	if err := c.start(t); err != nil {
		t.Fatalf("testserver: start restored etcd %s: %v", c.Version, err)
	}
	return c
}
