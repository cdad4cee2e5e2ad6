package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

var block = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestRunbook runs the commands of docs/runbooks/cluster-is-down.md, in order, on
// a cluster that loses two of its three members.
func TestRunbook(t *testing.T) {
	testRunbook(t, func(t *testing.T, r *runbook) {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(r.dir, "key.txt"), id.String()+"\n")
		write(t, filepath.Join(r.dir, "recipients.txt"), id.Recipient().String()+"\n")
	})
}

// testRunbook makes keys and runs all but the last block of commands, which
// needs Debian's tools. It returns the shell and that block.
func testRunbook(t *testing.T, makeKeys func(*testing.T, *runbook)) (r *runbook, last string) {
	t.Helper()
	raw, err := os.ReadFile("../../docs/runbooks/cluster-is-down.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllStringSubmatch(string(raw), -1)
	if len(blocks) != 9 {
		t.Fatalf("%d blocks of commands in the runbook, this test knows 9", len(blocks))
	}
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Seed: 3})
	r = newRunbook(t, source)
	makeKeys(t, r)
	r.sh(t, "backupd init")
	r.sh(t, `backupd backup --endpoints "$ENDPOINTS"`)
	source.Members[0].Kill()
	source.Members[1].Kill()

	r.sh(t, blocks[0][1]) // the survivor is newer than every backup
	r.sh(t, blocks[1][1])
	r.sh(t, blocks[2][1])
	source.Members[2].Kill()
	if out := r.sh(t, blocks[3][1]); !strings.Contains(out, "restore snapshot") {
		t.Errorf("the plan is not shown:\n%s", out)
	}
	out := r.sh(t, blocks[4][1])
	r.set("TOKEN", regexp.MustCompile(`Cluster token: (\S+)`).FindStringSubmatch(out)[1])
	r.set("ID", regexp.MustCompile(`snapshot (\d{8}T\d{6}Z-r\d+-\w+)`).FindStringSubmatch(out)[1])
	r.sh(t, blocks[5][1])
	restored := r.start(t, source)
	r.set("ENDPOINTS", strings.Join(restored.Endpoints(), ","))
	if out := r.sh(t, blocks[6][1]); strings.Count(out, "is healthy") != 3 {
		t.Errorf("not healthy:\n%s", out)
	}
	r.sh(t, blocks[7][1])

	found, err := filepath.Glob(filepath.Join(r.repo, "prod", "data", "*.age"))
	if err != nil || len(found) != 3 {
		t.Fatalf("data objects %q, %v", found, err)
	}
	r.set("OBJECT", found[0])
	r.set("INITIAL_CLUSTER", "m1="+source.Members[0].PeerURL)
	r.set("PEER_URL", source.Members[0].PeerURL)
	return r, blocks[8][1]
}

// runbook is the operator's shell.
type runbook struct {
	dir, repo string
	env       []string
}

func newRunbook(t *testing.T, source *testserver.Cluster) *runbook {
	t.Helper()
	r := &runbook{dir: t.TempDir(), repo: filepath.Join(t.TempDir(), "repo")}
	tools := filepath.Join(r.dir, "bin")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"backupd": binary, "etcdctl": testserver.Binary(t, "3.7", "etcdctl"),
		"etcdutl": testserver.Binary(t, "3.7", "etcdutl"),
	} {
		if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.env = append(os.Environ(), "TMPDIR="+r.dir)
	for name, value := range map[string]string{
		"PATH": tools + ":" + os.Getenv("PATH"), "DIR": filepath.Join(r.dir, "restored"),
		"SURVIVOR":  source.Members[2].Endpoint,
		"ENDPOINTS": strings.Join(source.Endpoints(), ","), "BACKUPD_REPO": "file://" + r.repo,
		"BACKUPD_CLUSTER":         "prod",
		"BACKUPD_IDENTITY":        filepath.Join(r.dir, "key.txt"),
		"BACKUPD_RECIPIENTS_FILE": filepath.Join(r.dir, "recipients.txt"),
	} {
		r.set(name, value)
	}
	return r
}

func (r *runbook) set(name, value string) { r.env = append(r.env, name+"="+value) }

func (r *runbook) sh(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Env, cmd.Dir = r.env, r.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}

// start starts the three restored members, as the operator would by systemd.
func (r *runbook) start(t *testing.T, source *testserver.Cluster) *testserver.Cluster {
	t.Helper()
	var run []testserver.RestoredMember
	for i, m := range source.Members {
		run = append(run, testserver.RestoredMember{
			Name: m.Name, DataDir: filepath.Join(r.dir, "restored", fmt.Sprintf("m%d", i+1)), PeerURL: m.PeerURL,
			ClientURL: testserver.FreeURL(t),
		})
	}
	return testserver.StartRestored(t, "3.7", run)
}
