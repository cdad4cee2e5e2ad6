package e2e_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestTLSAndAuth guards a cluster that asks for client certificates and for a
// user, and restores it: auth is still enforced.
func TestTLSAndAuth(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3, TLS: true})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Seed: 5})
	repo := "BACKUPD_REPO=file://" + t.TempDir()
	endpoints := "ETCDCTL_ENDPOINTS=" + strings.Join(source.Endpoints(), ",")
	tls := []string{"ETCDCTL_CACERT=" + source.CAFile, "ETCDCTL_CERT=" + source.CertFile,
		"ETCDCTL_KEY=" + source.KeyFile}
	base := append([]string{repo, endpoints, "BACKUPD_CLUSTER=prod", "ETCDCTL_COMMAND_TIMEOUT=3s"}, tls...)

	// Certificates: needed, and checked.
	newCLI(t, base...).run(t, "init")
	newCLI(t, base...).run(t, "backup")
	for name, env := range map[string][]string{
		"no CA":          {repo, endpoints, "BACKUPD_CLUSTER=prod", "ETCDCTL_COMMAND_TIMEOUT=2s"},
		"no certificate": {repo, endpoints, "BACKUPD_CLUSTER=prod", "ETCDCTL_COMMAND_TIMEOUT=2s", tls[0]},
	} {
		if _, stderr, err := newCLI(t, env...).try("backup"); err == nil ||
			!strings.Contains(stderr, "no member can serve") {
			t.Errorf("%s: %v\n%s", name, err, stderr)
		}
	}

	source.EnableAuth(t, "rootpw")
	source.AddUser(t, "reader", "readerpw", "readers")
	for name, c := range map[string]struct {
		user, want string
	}{
		// etcd takes the certificate's common name for the user.
		"nobody":         {"", "no such user"},
		"wrong password": {"root:nonsense", "wrong user name or password"},
		"not root":       {"reader:readerpw", "the user lacks the role root"},
	} {
		env := base
		if c.user != "" { // an empty variable is refused
			env = append([]string{"ETCDCTL_USER=" + c.user}, base...)
		}
		_, stderr, err := newCLI(t, env...).try("backup")
		if err == nil || !strings.Contains(stderr, c.want) || !strings.Contains(stderr, "Hint: ") {
			t.Errorf("%s: %v, want %q and a hint in:\n%s", name, err, c.want, stderr)
		}
		if strings.Contains(stderr, "nonsense") || strings.Contains(stderr, "readerpw") {
			t.Errorf("%s: a password is shown:\n%s", name, stderr)
		}
	}
	root := newCLI(t, append([]string{"ETCDCTL_USER=root", "ETCDCTL_PASSWORD=rootpw"}, base...)...)
	m := decode[snapshot](t, root.run(t, "backup", "-w", "json")).Manifest
	if len(m.Suspect) > 0 {
		t.Errorf("suspect: %v", m.Suspect)
	}

	for _, mem := range source.Members {
		mem.Kill()
	}
	out := filepath.Join(t.TempDir(), "all")
	p := decode[plan](t, root.run(t, "restore", "latest", "-w", "json", "--all-members", "--output-dir", out))
	var run []testserver.RestoredMember
	for i, target := range p.Targets {
		run = append(run, testserver.RestoredMember{Name: target.Member, DataDir: target.DataDir,
			PeerURL: p.Members[i].PeerURLs[0], ClientURL: strings.Replace(testserver.FreeURL(t), "http:", "https:", 1)})
	}
	restored := source.StartRestored(t, run)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	put(ctx, t, restored.ClientAs(t, "root", "rootpw"), "after")
	if _, err := restored.ClientAs(t, "", "").Put(ctx, "k", "v"); err == nil {
		t.Error("the restored cluster takes a write without a user")
	}
}
