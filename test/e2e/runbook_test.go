package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

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
	if len(blocks) != 11 {
		t.Fatalf("%d blocks of commands in the runbook, this test knows 11", len(blocks))
	}
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Seed: 3})
	r = newRunbook(t, source)
	makeKeys(t, r)
	r.sh(t, "backupd init")
	r.sh(t, `backupd backup --endpoints "$ENDPOINTS"`)
	r.storeIsAway(t)
	source.Members[0].Kill()
	source.Members[1].Kill()

	r.sh(t, blocks[0][1]) // the survivor is newer than every backup
	if out := r.configured().sh(t, blocks[1][1]); !strings.Contains(out, "snapshot stored") {
		t.Errorf("what waited in the spool is not stored:\n%s", out)
	}
	r.sh(t, blocks[2][1])
	r.member(source, 0)
	if out := r.sh(t, blocks[3][1]); !strings.Contains(out, "restore file") {
		t.Errorf("the plan of the file in the spool is not shown:\n%s", out)
	}
	r.sh(t, blocks[4][1])
	source.Members[2].Kill()
	if out := r.sh(t, blocks[5][1]); !strings.Contains(out, "restore snapshot") {
		t.Errorf("the plan is not shown:\n%s", out)
	}
	out := r.sh(t, blocks[6][1])
	r.set("TOKEN", regexp.MustCompile(`Cluster token: (\S+)`).FindStringSubmatch(out)[1])
	r.set("ID", regexp.MustCompile(`snapshot (\d{8}T\d{6}Z-r\d+-\w+)`).FindStringSubmatch(out)[1])

	// One host has old data, and its member the command that was printed; one has the short form.
	printed := regexp.MustCompile(`(?m)^  (backupd restore .* --name=` + source.Members[1].Name + ` .*)$`).FindString(out)
	first := r.value("DATA_DIR")
	r.member(source, 1)
	r.sh(t, `mkdir -p "$(dirname "$DATA_DIR")" && cp -r "`+source.Members[1].DataDir+`" "$DATA_DIR"`)
	printed = strings.ReplaceAll(printed, "--data-dir="+first, `--data-dir="$DATA_DIR"`)
	contains(t, r.sh(t, printed+" || echo code $?"), "--replace", "code 6")
	contains(t, r.sh(t, printed+` --replace; ls -d "$DATA_DIR".backupd-old-*`), "Its old data is in "+r.value("DATA_DIR"))
	r.member(source, 2)
	r.sh(t, blocks[7][1])
	restored := r.start(t, source)
	r.set("ENDPOINTS", strings.Join(restored.Endpoints(), ","))
	if out := r.sh(t, blocks[8][1]); strings.Count(out, "is healthy") != 3 {
		t.Errorf("not healthy:\n%s", out)
	}
	r.sh(t, blocks[9][1])
	if out := r.sh(t, "backupd list -w json"); strings.Count(out, `"encoding":"zstd+age"`) < 4 ||
		strings.Contains(out, `"encoding":"zstd"`) {
		t.Errorf("not every snapshot is encrypted:\n%s", out)
	}

	object := func(id string) string { return regexp.MustCompile(`-r\d+-`).ReplaceAllString(id, "-") + ".db.zst.age" }
	r.set("OBJECT", filepath.Join(r.repo, "prod", "data", object(r.value("ID"))))
	r.set("DATA_DIR", filepath.Join(r.dir, "plain"))
	if _, err := os.Stat(r.value("OBJECT")); err != nil {
		t.Errorf("the page does not name the data object: %v", err)
	}
	return r, blocks[10][1]
}

// storeIsAway takes a snapshot while the repository is not at its address, and brings that back.
// FILE is what waits in the spool.
func (r *runbook) storeIsAway(t *testing.T) {
	t.Helper()
	id := regexp.MustCompile(`[a-z2-7]{26}`).FindString(r.sh(t, "backupd init"))
	write(t, filepath.Join(r.dir, "backupd.yaml"), `
repositories:
  main: {url: "${URL}", repository-id: `+id+`, recipients-files: ["${BACKUPD_RECIPIENTS_FILE}"]}
clusters:
  - name: prod
    endpoints: ["`+strings.ReplaceAll(r.value("ENDPOINTS"), ",", `", "`)+`"]
    snapshot: {schedule: "@hourly", retries: 0}
daemon:
  server: {listen: "off"}
  spool: {folder: "`+r.dir+`/spool", min-free: 0B}
`)
	r.sh(t, `etcdctl --endpoints "$ENDPOINTS" put the "store is away"; mkdir -m 0700 spool; mv "`+r.repo+`" away`)
	r.configured().sh(t, `backupd backup --once || [ $? -eq 5 ]
mv away "`+r.repo+`" && ls spool/backupd-*.pending.json && cp spool/backupd-*.spool waits`)
	r.set("FILE", filepath.Join(r.dir, "waits"))
	r.set("NEW_TOKEN", "made-up")
}

// configured is a shell of an operator who has the daemon's configuration, and no address.
func (r *runbook) configured() *runbook {
	c := &runbook{dir: r.dir, repo: r.repo, env: slices.DeleteFunc(slices.Clone(r.env), func(v string) bool {
		return strings.HasPrefix(v, "BACKUPD_REPO=")
	})}
	c.set("URL", r.value("BACKUPD_REPO"))
	c.set("BACKUPD_CONFIG", filepath.Join(r.dir, "backupd.yaml"))
	return c
}

// member says on which host the operator is.
func (r *runbook) member(source *testserver.Cluster, i int) {
	m := source.Members[i]
	r.set("MEMBER", m.Name)
	r.set("PEER_URL", m.PeerURL)
	r.set("DATA_DIR", filepath.Join(r.dir, "restored", fmt.Sprintf("m%d", i+1)))
}

// runbook is the operator's shell.
type runbook struct {
	dir, repo string
	env       []string
}

func newRunbook(t *testing.T, source *testserver.Cluster) *runbook {
	t.Helper()
	r := newShell(t)
	var members []string
	for _, m := range source.Members {
		members = append(members, m.Name+"="+m.PeerURL)
	}
	for name, value := range map[string]string{
		"SNAPSHOT": "latest", "OWNER": fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()),
		"INITIAL_CLUSTER": strings.Join(members, ","), "SURVIVOR": source.Members[2].Endpoint,
		"ENDPOINTS": strings.Join(source.Endpoints(), ","), "BACKUPD_REPO": "file://" + r.repo,
		"BACKUPD_CLUSTER":         "prod",
		"BACKUPD_IDENTITY":        filepath.Join(r.dir, "key.txt"),
		"BACKUPD_RECIPIENTS_FILE": filepath.Join(r.dir, "recipients.txt"),
	} {
		r.set(name, value)
	}
	return r
}

// newShell has backupd and etcd's programs in its path, and nothing else set.
func newShell(t *testing.T) *runbook {
	t.Helper()
	r := &runbook{dir: t.TempDir(), repo: filepath.Join(t.TempDir(), "repo")}
	tools := filepath.Join(r.dir, "bin")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"backupd": binary, "etcd": testserver.Binary(t, "3.7", "etcd"),
		"etcdctl": testserver.Binary(t, "3.7", "etcdctl"), "etcdutl": testserver.Binary(t, "3.7", "etcdutl"),
	} {
		if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.env = append(os.Environ(), "TMPDIR="+r.dir, "PATH="+tools+":"+os.Getenv("PATH"))
	return r
}

func (r *runbook) set(name, value string) { r.env = append(r.env, name+"="+value) }

// value returns a variable of the shell.
func (r *runbook) value(name string) string {
	for _, v := range slices.Backward(r.env) { // the last one counts
		if after, ok := strings.CutPrefix(v, name+"="); ok {
			return after
		}
	}
	return ""
}

func (r *runbook) sh(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // pages wait in loops
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that a trap is run
	cmd.WaitDelay = 10 * time.Second
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
