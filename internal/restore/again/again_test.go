package again_test

import (
	"path/filepath"
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore/again"
)

// TestLook_Names: which names without data are restored, which are those of more pods, and
// which are a mistake.
func TestLook_Names(t *testing.T) {
	for _, tc := range []struct{ members, name, want string }{
		{"etcd-0=http://a:1,etcd-1=http://b:1,etcd-2=http://c:1", "etcd-1", "restore"},
		{"etcd-0=http://a:1,etcd-1=http://b:1,etcd-2=http://c:1", "etcd-3", "above-size"},
		{"etcd-0=http://a:1,etcd-1=http://b:1,etcd-2=http://c:1", "etcd-10", "above-size"},
		{"etcd-0=http://a:1,etcd-1=http://b:1,etcd-2=http://c:1", "main-3", "refused"},
		{"etcd-0=http://a:1,etcd-1=http://b:1,etcd-2=http://c:1", "etcd-03", "refused"},
		{"etcd-0=http://a:1,etcd-1=http://b:1,etcd-2=http://c:1", "etcd", "refused"},
		{"etcd-0=http://a:1,etcd-2=http://c:1", "etcd-1", "refused"},
		{"etcd-9=http://a:1", "etcd-10", "above-size"},
		{"m1=http://a:1,etcd-0=http://c:1", "etcd-1", "refused"},
		{"m1=http://a:1", "m2", "refused"},
	} {
		c, err := again.Named(tc.members, "token")
		if err != nil {
			t.Fatal(err)
		}
		got := "restore"
		switch found, err := c.Look(tc.name, filepath.Join(t.TempDir(), "data"), ""); {
		case err != nil:
			got = "refused"
		case found != nil:
			got = string(found.State)
		}
		if got != tc.want {
			t.Errorf("%s in %s: %s, want %s", tc.name, tc.members, got, tc.want)
		}
	}
}
