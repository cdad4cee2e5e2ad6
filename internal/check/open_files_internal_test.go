package check

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/openfiles"
)

func TestCheckOpenFiles(t *testing.T) {
	two := config.Cluster{Endpoints: []string{"a", "b"}}
	conf := &config.Config{Clusters: []config.Cluster{{Endpoints: []string{"a"}}, two, two}}
	for _, test := range []struct {
		concurrency int
		limit       uint64
		want        string
	}{
		{1, uint64(openfiles.Need(3, 2)), ""}, // two may be asked without a turn
		{1, uint64(openfiles.Need(3, 2)) - 1, "daemon.concurrency: 1 may need 78"},
		{50, 64, "this process may open 64 files, and daemon.concurrency: 50 may need 78"},
		{50, uint64(openfiles.Need(3, 2)), ""}, // there are only three
	} {
		conf.Daemon.Concurrency = test.concurrency
		l := list{findings: checkOpenFiles(conf, test.limit)}
		l.expect(t, test.want)
	}
}
