package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// host is a folder with a shell in it: one host of a restore. Paths are relative, so
// what one host prints works on another.
type host struct {
	env []string
	dir string
}

func newHost(t *testing.T, env ...string) *host {
	t.Helper()
	h := &host{dir: t.TempDir()}
	tools := filepath.Join(h.dir, "bin")
	if err := os.Mkdir(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(tools, "backupd")); err != nil {
		t.Fatal(err)
	}
	h.env = append(append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"), "TMPDIR="+h.dir), env...)
	return h
}

// sh runs one line in a shell and returns its exit code.
func (h *host) sh(t *testing.T, line string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", line)
	cmd.Env, cmd.Dir = h.env, h.dir
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// want runs a line that must end with that exit code.
func (h *host) want(t *testing.T, code int, line string) (stdout, stderr string) {
	t.Helper()
	stdout, stderr, got := h.sh(t, line)
	if got != code {
		t.Fatalf("%s\nends with exit code %d, want %d:\n%s%s", line, got, code, stdout, stderr)
	}
	return stdout, stderr
}

// hinted returns the command that a hint beginning with these words has.
func hinted(t *testing.T, stderr, words string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^(?:Hint: )?` + words + `[^:]*: (backupd .*)$`).FindStringSubmatch(stderr)
	if m == nil {
		t.Fatalf("no hint %q in\n%s", words, stderr)
	}
	return m[1]
}

// restored is the part of a restore's JSON that tests look at.
type restored struct {
	Kind, SHA256, Token string
	Others              []struct{ Member, Line string }
}

// TestOneRestore_AcrossHosts restores the members of a cluster on three hosts, with a
// newer backup in between. A member with the newer data must not get into the cluster.
func TestOneRestore_AcrossHosts(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 200, Seed: 5})
	env := []string{
		"BACKUPD_REPO=file://" + filepath.Join(t.TempDir(), "a repo"), "BACKUPD_CLUSTER=prod",
		"ETCDCTL_PASSWORD=never-to-be-printed",
	}
	first, second, third, elsewhere := newHost(t, env...), newHost(t, env...), newHost(t), newHost(t)
	backup := "backupd backup -w json --endpoints " + strings.Join(source.Endpoints(), ",")
	first.want(t, 0, "backupd init")
	stdout, _ := first.want(t, 0, backup)
	old := decode[snapshot](t, stdout).Manifest
	stdout, _ = first.want(t, 0, "backupd restore latest --name m1 --data-dir 'a dir' --wal-dir log -w json "+
		"--allow-running --bump-revision 1000 --clear-alarms")
	r := decode[restored](t, stdout)
	if len(r.Others) != 2 || r.Others[0].Member != "m2" || r.Others[1].Member != "m3" {
		t.Fatalf("commands for the other members: %+v", r.Others)
	}
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 100, Seed: 6})
	stdout, _ = first.want(t, 0, backup)
	if newer := decode[snapshot](t, stdout).Manifest; newer.Revision <= old.Revision {
		t.Fatalf("revisions %d and then %d", old.Revision, newer.Revision)
	}
	first.want(t, 0, "backupd snapshot save newer.db --endpoints "+source.Endpoints()[0])
	for _, m := range source.Members {
		m.Kill()
	}

	// The newer snapshot with the token of the first. Both ways out are printed.
	_, stderr := second.want(t, 6, "backupd restore latest --name m2 --data-dir 'a dir' --wal-dir log "+
		"--bump-revision 1000 --mark-compacted --clear-alarms --initial-cluster-token "+r.Token)
	if !strings.Contains(stderr, "of another snapshot") || strings.Contains(stderr, "never-to-be-printed") {
		t.Errorf("refused as\n%s", stderr)
	}
	if _, err := os.Stat(filepath.Join(second.dir, "a dir")); err == nil {
		t.Error("something was restored")
	}
	fresh := hinted(t, stderr, "to restore this, with a fresh token")
	stdout, _ = newHost(t).want(t, 0, fresh+" -w json")
	if got := decode[restored](t, stdout); got.Token == r.Token || got.SHA256 == r.SHA256 {
		t.Errorf("%s\nhas restored %+v", fresh, got)
	}

	// A file of the newer data with that token: no repository says what it was made for.
	_, filed := first.want(t, 6, "backupd snapshot restore newer.db --name m2 --data-dir file "+
		"--initial-cluster m2=http://127.0.0.1:1 --initial-cluster-token "+r.Token)
	if line := hinted(t, filed, "to restore what the token was made for"); !strings.Contains(line, " SNAPSHOT ") {
		t.Errorf("the hint says %s", line)
	}

	// The right snapshot with other changes, or other members.
	for flags, reason := range map[string]string{
		"--clear-alarms --bump-revision 0":                                                            "other changes",
		"--clear-alarms --mark-compacted --bump-revision 1001":                                        "other changes",
		"--mark-compacted --bump-revision 1000":                                                       "other changes",
		"--clear-alarms --mark-compacted --bump-revision 1000 --initial-cluster m2=http://10.0.0.1:1": "other members",
	} {
		_, stderr := second.want(t, 6, fmt.Sprintf("backupd restore %s --name m2 --data-dir %q --wal-dir log %s "+
			"--initial-cluster-token %s", old.ID, "a dir", flags, r.Token))
		if !strings.Contains(stderr, reason) {
			t.Errorf("%s: refused as\n%s", flags, stderr)
		}
		stdout, _ := newHost(t).want(t, 0, hinted(t, stderr, "to restore what the token was made for")+" -w json")
		if got := decode[restored](t, stdout); got.Token != r.Token || got.SHA256 != r.SHA256 {
			t.Errorf("%s: the command in the hint has restored %+v", flags, got)
		}
	}

	// The printed commands need nothing of the first host but the repository.
	second.want(t, 0, hinted(t, stderr, "to restore what the token was made for"))
	for i, h := range []*host{elsewhere, third} {
		if line := r.Others[i].Line; strings.Count(line, first.dir) != 2 { // absolute, for whoever stands anywhere
			t.Errorf("the command for %s has relative paths: %s", r.Others[i].Member, line)
		}
		h.want(t, 0, strings.ReplaceAll(r.Others[i].Line, first.dir, h.dir))
	}
	var run []testserver.RestoredMember
	for i, h := range []*host{first, second, third} {
		run = append(run, testserver.RestoredMember{
			Name: source.Members[i].Name, DataDir: filepath.Join(h.dir, "a dir"), WALDir: filepath.Join(h.dir, "log"),
			PeerURL: source.Members[i].PeerURL, ClientURL: testserver.FreeURL(t),
		})
	}
	got := hashes(t, testserver.StartRestored(t, "3.7", run), 0)
	seen := map[uint32]bool{}
	for _, hash := range got {
		seen[hash] = true
	}
	if len(got) != 3 || len(seen) != 1 {
		t.Errorf("the members hold different data: %v", got)
	}
}

// crash starts a restore again and again until a kill hits it between its first
// visible change and its last.
func (h *host) crash(t *testing.T, args ...string) {
	t.Helper()
	for range 200 {
		cmd := exec.Command(binary, args...)
		cmd.Env, cmd.Dir = h.env, h.dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		journal := filepath.Join(h.dir, ".data.backupd-restore", "journal.json")
		for waiting := true; waiting; {
			select {
			case <-ended:
				waiting = false
			default:
				if _, err := os.Lstat(journal); err == nil {
					waiting = false
				}
			}
		}
		_ = cmd.Process.Kill()
		<-ended
		if _, err := os.Lstat(journal); err == nil {
			return
		}
		for _, dir := range []string{"data", "log", ".data.backupd-restore", ".log.backupd-restore"} {
			if err := os.RemoveAll(filepath.Join(h.dir, dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Fatal("no kill hit the restore between its changes")
}

// TestOneRestore_Interrupted kills a restore in its last step and then asks for other
// restores to the same place.
func TestOneRestore_Interrupted(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7"})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 200, Seed: 7})
	h := newHost(t)
	save := "backupd snapshot save --endpoints " + source.Endpoints()[0] + " "
	h.want(t, 0, save+"old.db")
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 100, Seed: 8})
	h.want(t, 0, save+"new.db")
	flags := []string{"snapshot", "restore", "it.db", "--name=m1", "--data-dir=data", "--wal-dir=log",
		"--initial-cluster=m1=http://127.0.0.1:1,m2=http://127.0.0.1:2"}
	command := "backupd " + strings.Join(flags, " ")

	h.want(t, 0, "cp old.db it.db")
	want, _ := h.want(t, 0, command+" -w json && rm -r data log")
	h.crash(t, flags...)
	got, _ := h.want(t, 0, command+" -w json")
	if a, b := decode[map[string]any](t, got), decode[map[string]any](t, want); !reflect.DeepEqual(a, b) {
		t.Errorf("finished after a kill, -w json prints\n%swithout a kill it is\n%s", got, want)
	}
	sum := h.data(t)

	h.want(t, 0, "rm -r data log")
	h.crash(t, flags...)
	h.want(t, 0, "cp new.db it.db")
	for other, differs := range map[string]string{
		command:                        "the snapshot",
		command + " --chown 4711:4711": "the snapshot, --chown",
		command + " --clear-alarms":    "the snapshot, --clear-alarms",
		command + " -w json":           "the snapshot",
	} {
		_, stderr := h.want(t, 6, other)
		if !strings.Contains(stderr, "it differs in "+differs+"\n") {
			t.Errorf("%s: refused as\n%s", other, stderr)
		}
	}
	_, stderr := h.want(t, 6, command+" --dry-run")
	finish := hinted(t, stderr, "to finish the interrupted restore")
	_, stderr = h.want(t, 6, command)
	if again := hinted(t, stderr, "to finish the interrupted restore"); again != finish {
		t.Errorf("to finish: %s, and in a dry run: %s", again, finish)
	}
	h.want(t, 0, "mv it.db away.db")
	_, gone := h.want(t, 5, command)
	if again := hinted(t, gone, "to finish the interrupted restore"); again != finish {
		t.Errorf("to finish, when the file is gone: %s, want %s", again, finish)
	}
	h.want(t, 0, "mv away.db it.db")
	elsewhere := newHost(t) // the command finds the folder from everywhere
	stdout, _ := elsewhere.want(t, 0, finish)
	if !strings.Contains(stdout, "Finished the interrupted restore of file it.db\nRestored member m1 to ") ||
		!strings.Contains(stdout, "--name=m2") {
		t.Errorf("%s prints\n%s", finish, stdout)
	}
	if again := h.data(t); !reflect.DeepEqual(again, sum) {
		t.Errorf("finished with the data %v, want %v", again, sum)
	}
	elsewhere.want(t, 5, finish)
	h.want(t, 0, hinted(t, stderr, "to start this one"))
	if now := h.data(t); reflect.DeepEqual(now, sum) {
		t.Error("the other restore has not replaced the data")
	}
}

// data says what is in the restored database.
func (h *host) data(t *testing.T) map[string]any {
	t.Helper()
	stdout, _ := h.want(t, 0, "backupd snapshot status -w json data/member/snap/db")
	var v map[string]any
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"hash": v["hash"], "revision": v["revision"]}
}
