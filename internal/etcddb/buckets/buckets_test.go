package buckets_test

import (
	"strings"
	"testing"

	etcdversion "go.etcd.io/etcd/api/v3/version"

	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
)

// TestNewestKnown fails when etcd's modules become newer than what was read of etcd's
// servers. Then package buckets must be compared with them, and its tests with their start.
func TestNewestKnown(t *testing.T) {
	if got := buckets.NewestKnown(); !strings.HasPrefix(etcdversion.Version, got+".") {
		t.Errorf("etcd %s is the newest that is known, and the modules are of %s", got, etcdversion.Version)
	}
}

func TestContents_Versions(t *testing.T) {
	for _, c := range []struct {
		storage, cluster string
		want             string // in the error, or empty
		newer            string
	}{
		{"", "", "", ""},
		{"", "3.0.0", "", ""},
		{"", "3.4.0", "", ""},
		{"", "3.7.0", "", ""}, // in the seconds after an upgrade
		{"3.6.0", "3.5.0", "", ""},
		{"3.7.0", "3.5.0", "", ""}, // etcdutl migrate
		{"3.7.0", "", "", ""},
		{"3.8.0", "3.7.0", "", "3.8"},
		{"3.7.0", "3.8.0", "", "3.8"},
		{"3.12.0", "3.12.0", "", "3.12"},
		{"4.0.0", "4.0.0", "", "4.0"},
		{"3.9.0", "3.7.0", "contradicts", ""},
		{"3.7.0", "3.9.0", "contradicts", ""},
		{"", "3.8.0", "contradicts", ""},
		{"3.8.0", "", "contradicts", ""},
		{"4.0.0", "3.9.0", "contradicts", ""},
		{"3.4.0", "3.6.0", "no etcd starts", ""},
		{"2.7.0", "3.6.0", "no etcd starts", ""},
		{"3.6.0", "2.6.0", "no etcd starts", ""},
		{"3.6.1", "3.6.0", "is not a version", ""},
		{"3.6.0", "03.6.0", "is not a version", ""},
		{"3.6.0", "3.-6.0", "is not a version", ""},
		{"3.6.0", "3.6.0-rc.1", "is not a version", ""},
		{"3.6.0", "3.6", "is not a version", ""},
		{"3.6.0", "3.99999999999999999999.0", "is not a version", ""},
	} {
		contents := &buckets.Contents{}
		var err error
		if c.storage != "" {
			err = contents.Read(buckets.Meta, []byte("storageVersion"), []byte(c.storage))
		}
		if err == nil && c.cluster != "" {
			err = contents.Read(buckets.Cluster, []byte("clusterVersion"), []byte(c.cluster))
		}
		if err == nil {
			err = contents.Finish()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("storage %q, cluster %q: %v, want %q", c.storage, c.cluster, err, c.want)
		}
		if err == nil {
			if got := buckets.Newer(c.storage, c.cluster); got != c.newer {
				t.Errorf("storage %q, cluster %q: newer %q, want %q", c.storage, c.cluster, got, c.newer)
			}
		}
	}
}
