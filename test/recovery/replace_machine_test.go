//go:build machine

package recovery_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// deadMember is a member of a cluster of three that has died, on a host of its own.
type deadMember struct {
	*testserver.Cluster
	*testserver.Member
	program, etcd string
	walDir        string   // empty: in the data directory
	as            []string // runs a command as the member's user
}

func newDeadMember(t *testing.T) *deadMember {
	t.Helper()
	d := &deadMember{program: machineProgram(t)}
	d.Cluster = testserver.StartCluster(t, testserver.Options{Size: 3})
	testserver.Fill(t, d.Cluster.Client(t), testserver.FillOptions{Keys: 300, Seed: 8, Compact: true})
	d.Member = d.Members[2]
	d.Kill()
	// A user who is not root must be able to run it.
	d.etcd = filepath.Join(filepath.Dir(d.program), "etcd")
	raw, err := os.ReadFile(testserver.Binary(t, "3.7", "etcd"))
	done(t, err)
	done(t, os.WriteFile(d.etcd, raw, 0o755))
	t.Cleanup(func() { d.end(t) })
	return d
}

// start is the command that starts the member as etcd itself.
func (d *deadMember) start() string {
	words := append(append([]string{}, d.as...), d.etcd, "--listen-client-urls="+d.ClientURL,
		"--advertise-client-urls="+d.ClientURL, "--unsafe-no-fsync")
	return fmt.Sprintf(`echo $$ >>%[1]s.pids; exec %[2]s "$@" >>%[1]s.etcd 2>&1`, d.etcd, strings.Join(words, " "))
}

// end ends what start has started.
func (d *deadMember) end(t *testing.T) {
	t.Helper()
	raw, _ := os.ReadFile(d.etcd + ".pids")
	for _, line := range strings.Fields(string(raw)) {
		pid, err := strconv.Atoi(line)
		done(t, err)
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if !bytes.Contains(command, []byte(d.etcd)) {
			continue
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		testserver.Eventually(t, "the started etcd ends", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	_ = os.Remove(d.etcd + ".pids")
}

// call runs "member replace".
func (d *deadMember) call(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	return d.killed(t, "", args...)
}

// killed runs it too, and kills it once its output has a line that begins so.
func (d *deadMember) killed(t *testing.T, at string, args ...string) (code int, out string) {
	t.Helper()
	args = append([]string{
		"member", "replace", "--endpoints=" + strings.Join(d.Endpoints(), ","), "--exec=" + d.start(), "--wait=1m",
	}, args...)
	cmd := exec.Command(d.program, args...)
	cmd.Dir = "/"
	log, err := os.CreateTemp(t.TempDir(), "out") // a pipe would be kept open by what it starts
	done(t, err)
	defer log.Close() // only written to
	cmd.Stdout, cmd.Stderr = log, log
	done(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case <-time.After(2 * time.Millisecond):
			raw, _ := os.ReadFile(log.Name())
			if at != "" && bytes.Contains(raw, []byte("\n"+at)) || at != "" && bytes.HasPrefix(raw, []byte(at)) {
				_ = cmd.Process.Kill()
			}
		}
	}
	raw, err := os.ReadFile(log.Name())
	done(t, err)
	return cmd.ProcessState.ExitCode(), string(raw)
}

// flags name the member by flags alone.
func (d *deadMember) flags() []string {
	out := []string{"--name=" + d.Name, "--data-dir=" + d.DataDir}
	if d.walDir != "" {
		out = append(out, "--wal-dir="+d.walDir)
	}
	return out
}

func (d *deadMember) list(t *testing.T) map[uint64]string {
	t.Helper()
	resp, err := d.Cluster.Client(t).MemberList(t.Context())
	done(t, err)
	out := map[uint64]string{}
	for _, m := range resp.Members {
		out[m.ID] = fmt.Sprintf("%s learner=%v", m.Name, m.IsLearner)
	}
	return out
}

// replace fails unless the member is replaced, and the same command then says that there is
// nothing to do.
func (d *deadMember) replace(t *testing.T, args ...string) (out string) {
	t.Helper()
	return d.finish(t, d.list(t), args...)
}

// finish is replace of a member of this list, which may have been begun.
func (d *deadMember) finish(t *testing.T, before map[uint64]string, args ...string) (out string) {
	t.Helper()
	code, out := d.call(t, args...)
	if code != 0 || !strings.Contains(out, "Replaced member "+d.Name) {
		server, _ := os.ReadFile(d.etcd + ".etcd")
		t.Fatalf("%q: exit code %d\n%s\n%s", args, code, out, server[max(0, len(server)-2000):])
	}
	after, fresh := d.list(t), 0
	for id, what := range after {
		if before[id] == "" {
			fresh++
		}
		if !strings.HasSuffix(what, "learner=false") {
			t.Errorf("member %s", what)
		}
	}
	if len(after) != 3 || fresh != 1 {
		t.Errorf("the members were %v and are %v", before, after)
	}
	d.same(t)
	code, again := d.call(t, args...)
	if code != 6 || !strings.Contains(again, "is healthy, so there is nothing to do") {
		t.Errorf("once more: exit code %d\n%s", code, again)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(d.DataDir), ".*backupd*")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	return out
}

// same fails unless all members have the same data.
func (d *deadMember) same(t *testing.T) {
	t.Helper()
	cl := d.Cluster.Client(t)
	put, err := cl.Put(t.Context(), "after", "x")
	done(t, err)
	seen := map[uint32]bool{}
	for _, url := range d.Endpoints() {
		testserver.Eventually(t, url+" answers HashKV", func() bool {
			h, err := cl.HashKV(t.Context(), url, put.Header.Revision)
			if err == nil {
				seen[h.Hash] = true
			}
			return err == nil
		})
	}
	if len(seen) != 1 {
		t.Errorf("hashes %v", seen)
	}
}

// refused fails unless nothing is changed.
func (d *deadMember) refused(t *testing.T, code int, words string, args ...string) {
	t.Helper()
	root := filepath.Dir(d.DataDir)
	before, members := tree(t, root), d.list(t)
	got, out := d.call(t, args...)
	if got != code || !strings.Contains(out, words) {
		t.Errorf("%q: exit code %d, want %d with %q\n%s", args, got, code, words, out)
	}
	if !maps.Equal(tree(t, root), before) || !maps.Equal(d.list(t), members) {
		t.Errorf("%q has changed\n%v\nto\n%v", args, before, tree(t, root))
	}
}

// olds are the folders that hold old data.
func olds(t *testing.T, dir string, inside bool) []string {
	t.Helper()
	pattern := dir + ".backupd-old-*"
	if inside {
		pattern = filepath.Join(dir, ".backupd-old-*")
	}
	found, err := filepath.Glob(pattern)
	done(t, err)
	return found
}

// TestMachine_ReplaceOnMount replaces a member whose data directory is a mount point, with files
// that are not etcd's in it.
func TestMachine_ReplaceOnMount(t *testing.T) {
	testserver.Root(t)
	if !testserver.MayMount(t) {
		return
	}
	d := newDeadMember(t)
	testserver.MountOnto(t, d.DataDir)
	done(t, os.Mkdir(filepath.Join(d.DataDir, "lost+found"), 0o700))
	done(t, os.WriteFile(filepath.Join(d.DataDir, "README"), nil, 0o600))
	out := d.replace(t, d.flags()...)
	moved := olds(t, d.DataDir, true)
	named := strings.Count(out, "what is not etcd's: README\n") + strings.Count(out, "what is not etcd's: README ...\n")
	if len(moved) != 1 || named != 2 {
		t.Fatalf("old data in %q\n%s", moved, out)
	}
	for _, path := range []string{
		filepath.Join(moved[0], "member", "wal"), filepath.Join(moved[0], "README"), filepath.Join(d.DataDir, "lost+found"),
	} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	d.end(t)
	for i := range 6 {
		done(t, os.WriteFile(filepath.Join(d.DataDir, fmt.Sprintf("file%d", i)), nil, 0o600))
	}
	d.refused(t, 6, "it has more than etcd puts there: file0", d.flags()...)
	// The disk was lost, and a new one is mounted.
	d.end(t)
	testserver.MountSmall(t, d.DataDir, 300)
	done(t, os.Mkdir(filepath.Join(d.DataDir, "lost+found"), 0o700))
	d.replace(t, d.flags()...)
	if moved := olds(t, d.DataDir, true); len(moved) > 0 {
		t.Errorf("old data in %q", moved)
	}
}

// TestMachine_ReplaceKilled kills the replacement at each step, where the data directory is a mount
// point and the WAL directory is elsewhere.
func TestMachine_ReplaceKilled(t *testing.T) {
	testserver.Root(t)
	if !testserver.MayMount(t) {
		return
	}
	d := newDeadMember(t)
	d.walDir = filepath.Join(filepath.Dir(d.DataDir), "wal")
	done(t, os.Rename(filepath.Join(d.DataDir, "member", "wal"), d.walDir))
	testserver.MountOnto(t, d.DataDir)
	done(t, os.Mkdir(filepath.Join(d.DataDir, "lost+found"), 0o700))
	before := d.list(t)
	for _, at := range []string{"Remove member", "Move the old data", "Add member", "Start member"} {
		if code, out := d.killed(t, at, d.flags()...); code != -1 || !strings.Contains(out, at) {
			t.Errorf("killed at %q: exit code %d\n%s", at, code, out)
		}
	}
	if code, out := d.killed(t, "Promote member", d.flags()...); code == -1 {
		d.finish(t, before, d.flags()...)
	} else if code != 0 { // else it was quicker
		t.Errorf("killed at the promotion: exit code %d\n%s", code, out)
	}
	d.same(t)
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(d.DataDir), ".*backupd*")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
	if inside, beside := olds(t, d.DataDir, true), olds(t, d.walDir, false); len(inside) != 1 || len(beside) != 1 {
		t.Errorf("old data in %q and %q", inside, beside)
	}
	if _, err := os.Stat(filepath.Join(d.DataDir, "lost+found")); err != nil {
		t.Error(err)
	}
}

// TestMachine_ReplaceWAL replaces a member with a WAL directory of its own, and refuses one that
// is a mount point, on which etcd itself cannot begin.
func TestMachine_ReplaceWAL(t *testing.T) {
	testserver.Root(t)
	if !testserver.MayMount(t) {
		return
	}
	d := newDeadMember(t)
	d.walDir = filepath.Join(filepath.Dir(d.DataDir), "wal")
	done(t, os.Rename(filepath.Join(d.DataDir, "member", "wal"), d.walDir))
	d.refused(t, 6, "--wal-dir", "--name="+d.Name, "--data-dir="+d.DataDir)
	d.replace(t, d.flags()...)
	for _, dir := range []string{d.DataDir, d.walDir} {
		if moved := olds(t, dir, false); len(moved) != 1 {
			t.Errorf("old data of %s in %q", dir, moved)
		}
	}

	d.end(t)
	testserver.MountOnto(t, d.walDir)
	done(t, os.WriteFile(filepath.Join(d.walDir, "precious"), nil, 0o600))
	d.refused(t, 6, d.walDir+" is a mount point", d.flags()...)
	// As the hint says.
	old := d.walDir
	d.walDir = filepath.Join(old, "wal")
	d.replace(t, d.flags()...)
	if found, _ := filepath.Glob(filepath.Join(old, "*.wal")); len(found) == 0 {
		t.Error("the old WAL is not where it was")
	}
	if _, err := os.Stat(filepath.Join(old, "precious")); err != nil {
		t.Error(err)
	}
}

// TestMachine_EtcdOnMountedWAL shows why such a WAL directory is refused: etcd empties it, and
// ends.
func TestMachine_EtcdOnMountedWAL(t *testing.T) {
	testserver.Root(t)
	if !testserver.MayMount(t) {
		return
	}
	for _, version := range testserver.Versions(t) {
		dir := t.TempDir()
		wal := filepath.Join(dir, "wal")
		testserver.MountOnto(t, wal)
		done(t, os.WriteFile(filepath.Join(wal, "precious"), nil, 0o600))
		peer, client := testserver.FreeURL(t), testserver.FreeURL(t)
		cmd := exec.CommandContext(t.Context(), testserver.Binary(t, version, "etcd"),
			"--data-dir="+filepath.Join(dir, "data"), "--wal-dir="+wal, "--listen-peer-urls="+peer,
			"--initial-advertise-peer-urls="+peer, "--listen-client-urls="+client, "--advertise-client-urls="+client,
			"--initial-cluster=default="+peer)
		timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		if !timer.Stop() || err == nil || !strings.Contains(string(out), "device or resource busy") {
			t.Errorf("etcd %s: %v\n%s", version, err, out)
		}
		if _, err := os.Stat(filepath.Join(wal, "precious")); err == nil {
			t.Errorf("etcd %s leaves what is in the folder", version)
		}
	}
}

// TestMachine_ReplaceFrom replaces a member by its own unit, which runs it as another user: its
// data directory is gone, then its disk is new, then its data is root's.
func TestMachine_ReplaceFrom(t *testing.T) {
	testserver.Root(t)
	if !testserver.MayMount(t) {
		return
	}
	d := newDeadMember(t)
	d.as = []string{testserver.Tool(t, "setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups", "--"}
	unit := filepath.Join(t.TempDir(), "etcd.service")
	write := func(more string) {
		done(t, os.WriteFile(unit, fmt.Appendf(nil, "[Service]\nUser=nobody\nExecStart=/usr/bin/etcd --name %s "+
			"--data-dir %s %s\n", d.Name, d.DataDir, more), 0o600))
	}
	for dir := filepath.Dir(d.DataDir); dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		done(t, err)
		done(t, os.Chmod(dir, st.Mode().Perm()|0o011))
	}
	done(t, os.RemoveAll(d.DataDir))
	write("--initial-cluster-state new --initial-cluster old=http://127.0.0.1:1," + d.Name + "=" + d.PeerURL)
	_, out := d.call(t, "--dry-run", "--from="+unit)
	for _, want := range []string{
		"Set for m3, as flags (initial-cluster is at " + unit + ":3, initial-cluster-state is at " + unit + ":3):\n",
		"\n  --initial-cluster=m1=" + d.Members[0].PeerURL + ",m2=", "\nThen start it: systemctl start etcd",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	write("")
	out = d.replace(t, "--from="+unit)
	d.ownedBy(t, "65534:65534")
	if strings.Contains(out, "The old data is in") {
		t.Errorf("there was none\n%s", out)
	}

	d.end(t)
	testserver.MountSmall(t, d.DataDir, 300)
	d.replace(t, "--from="+unit)
	d.ownedBy(t, "65534:65534")

	d.end(t)
	for path := range tree(t, d.DataDir) {
		done(t, os.Lchown(path, 0, 0))
	}
	d.replace(t, "--from="+unit)
	if len(olds(t, d.DataDir, true)) != 1 {
		t.Errorf("old data in %q", olds(t, d.DataDir, true))
	}

	d.end(t)
	d.refused(t, 78, "this is the file of another host", "--from="+unit, "--name=m1")
	write("--initial-advertise-peer-urls http://127.0.0.1:1")
	d.refused(t, 6, "and in its own settings http://127.0.0.1:1", "--from="+unit)
	write("--initial-advertise-peer-urls " + d.PeerURL + " --no-such-flag")
	d.refused(t, 78, "no-such-flag", "--from="+unit)
	resp, err := d.Cluster.Client(t).Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count < 100 {
		t.Errorf("%v, %v", resp, err)
	}
}

// ownedBy fails unless the member's folder, and what the server made in it, has that owner.
func (d *deadMember) ownedBy(t *testing.T, owner string) {
	t.Helper()
	for _, name := range []string{"", "member", "member/wal"} {
		path := filepath.Join(d.DataDir, name)
		st, err := os.Stat(path)
		done(t, err)
		own := st.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%d:%d", own.Uid, own.Gid); got != owner {
			t.Errorf("%s belongs to %s, want %s", path, got, owner)
		}
	}
}
