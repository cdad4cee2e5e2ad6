package daemon_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMissingFiles: a file that is not there fails its cluster, or the clusters of its
// repository, loudly and at once. The others are protected, and the daemon reloads.
func TestMissingFiles(t *testing.T) {
	h := newHouse(t)
	secure := testserver.StartCluster(t, testserver.Options{TLS: true})
	ca := filepath.Join(h.dir, "ca")
	tls := "    tls: {ca-file: " + ca + ", cert-file: " + secure.CertFile + ", key-file: " + secure.KeyFile + "}\n"
	h.configure("@yearly", "  - name: secure\n    endpoints: ["+secure.Endpoints()[0]+"]\n    repository: main\n"+
		"    snapshot: {schedule: \"@every 1s\", retries: 0}\n"+tls+
		"  - name: far\n    endpoints: ["+h.etcd.Endpoints()[0]+"]\n    repository: away\n"+
		"    snapshot: {schedule: \"@yearly\", retries: 0}\n")
	h.edit("  - name: prod\n", "  - name: prod\n    repository: main\n")
	h.edit("clusters:\n", "  away: {url: \"s3://bucket\", s3: {endpoint: \"http://127.0.0.1:1\", credentials-file: "+
		h.dir+"/keys}}\nclusters:\n")
	told := h.webhook()
	d := h.daemon()
	h.run(d)
	h.ok(d)
	missing := func(d *daemon.Daemon, name, file string) {
		t.Helper()
		c := named(t, d, name)
		if c.State != server.ClusterFailure || !strings.Contains(c.Problem, file+": stat: no such file") || c.Hint == "" ||
			strings.ContainsAny(c.Problem, "\n;|^") {
			t.Errorf("got %+v", c)
		}
		ready := d.Ready()
		if ready == nil || !strings.Contains(ready.Error(), name) || strings.Contains(ready.Error(), "main/prod") {
			t.Errorf("ready: got %v", ready)
		}
		await(t, "word of "+name, func() bool {
			for _, e := range told() {
				if e.Cluster == name && e.Job == "backup" && e.Kind == "failure" && strings.Contains(e.Error, file) {
					return true
				}
			}
			return false
		})
	}
	missing(d, "secure", ca)
	missing(d, "far", h.dir+"/keys")
	j, err := d.StartBackup(server.Key{Repository: "away", Cluster: "far"})
	h.must(err)
	if got := h.ended(d, j.ID); got.State != server.JobFailed || !strings.Contains(got.Error, h.dir+"/keys") {
		t.Errorf("got %+v", got)
	}

	// The next slot sees that it is there.
	raw, err := os.ReadFile(secure.CAFile)
	h.must(err)
	h.must(os.WriteFile(ca, raw, 0o600))
	await(t, "the cluster to be protected", func() bool { return named(t, d, "secure").State == server.ClusterOK })
	await(t, "word of it", func() bool { return slices.Contains(kinds(told()), "backup recovery") })

	// A reload with a missing file does all the rest, and one with the file ends the failure.
	// No slot of the cluster lies between them: one that failed would be its last backup.
	h.edit("@every 1s", "@yearly")
	h.edit("keep-last: 3", "keep-last: 4")
	h.edit(ca+",", ca+".new,")
	h.reload(d)
	missing(d, "secure", ca+".new")
	h.backup(d, server.JobSucceeded)
	h.must(os.Rename(ca, ca+".new"))
	h.reload(d)
	if c := named(t, d, "secure"); c.State != server.ClusterOK {
		t.Errorf("after a reload with the file: %+v", c)
	}
}

// TestMissingFiles_Own: the daemon's own files must be there.
func TestMissingFiles_Own(t *testing.T) {
	h := newHouse(t)
	h.edit("/spool}", "/spool}\n  notifications: [{webhook: {url-file: /does/not/exist}}]")
	problems := h.load().CheckOwnFiles()
	if len(problems) != 1 || problems[0].Path != "daemon.notifications[0].webhook.url-file" {
		t.Errorf("got %v", problems)
	}
}

func named(t *testing.T, d *daemon.Daemon, name string) server.Cluster {
	t.Helper()
	for _, c := range d.Clusters() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no cluster %s", name)
	return server.Cluster{}
}
