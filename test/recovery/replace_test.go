//go:build long

package recovery_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// replaceProgram builds the program that is shipped.
func replaceProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backupd")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/backupd").CombinedOutput(); err != nil {
		t.Fatalf("build backupd: %v: %s", err, out)
	}
	return path
}

// replacement is a cluster under load, a member of which is replaced by the real program.
type replacement struct {
	*testserver.Cluster
	program string
	flags   []string // that reach the cluster
	puts    atomic.Int64
	end     func() // of the load
}

func newReplacement(t *testing.T, version string, secure bool) *replacement {
	t.Helper()
	r := &replacement{program: replaceProgram(t)}
	r.Cluster = testserver.StartCluster(t, testserver.Options{Version: version, Size: 3, TLS: secure})
	testserver.Fill(t, r.Client(t), testserver.FillOptions{Keys: 2000, ValueBytes: 2000, Seed: 3, Compact: true})
	r.flags = []string{"--endpoints=" + strings.Join(r.Endpoints(), ",")}
	if secure {
		r.EnableAuth(t, "secret")
		r.flags = append(r.flags, "--cacert="+r.CAFile, "--cert="+r.CertFile, "--key="+r.KeyFile, "--user=root:secret")
	}
	r.load(t)
	return r
}

// load writes until end is called. What was acknowledged is counted.
func (r *replacement) load(t *testing.T) {
	client := r.Client(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				within, stop := context.WithTimeout(ctx, 5*time.Second)
				_, err := client.Put(within, fmt.Sprintf("load/%d/%06d", w, n), strings.Repeat("x", 500))
				stop()
				if err == nil {
					r.puts.Add(1)
				} else {
					n-- // it is written again
				}
			}
		})
	}
	r.end = func() { cancel(); wg.Wait() }
	t.Cleanup(r.end)
}

// call runs the program for a member. seen is called with each line of its answer; if it
// returns true the program is killed, and so it is after limit. It returns whether the program
// has ended by itself, without an error.
func (r *replacement) call(t *testing.T, limit time.Duration, m *testserver.Member, more []string,
	seen func(line string) (kill bool)) (done bool) {
	t.Helper()
	args := append([]string{"member", "replace", "--name", m.Name, "--data-dir", m.DataDir}, r.flags...)
	cmd := exec.Command(r.program, append(args, more...)...)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	log, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		raw, _ := os.ReadFile(log.Name())
		errs.Write(raw)
		if t.Failed() {
			t.Logf("%v\n%s", cmd.Args, errs.String())
		}
		_ = log.Close()
	}()
	cmd.Stdout, cmd.Stderr = in, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	kill := func() { _ = cmd.Process.Signal(syscall.SIGKILL) }
	timer := time.AfterFunc(limit, kill)
	defer timer.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if seen(lines.Text()) {
			kill()
			break
		}
	}
	_, _ = io.Copy(io.Discard, out)
	err = cmd.Wait()
	killed := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if err != nil && !killed {
		raw, _ := os.ReadFile(log.Name())
		t.Fatalf("%v: %v\n%s", cmd.Args, err, raw)
	}
	return err == nil
}

// whole fails unless all voted members hold the same data, with all that was acknowledged.
func (r *replacement) whole(t *testing.T, before []uint64) {
	t.Helper()
	client := r.Client(t)
	resp, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for _, m := range resp.Members {
		if m.IsLearner || m.Name == "" {
			t.Errorf("member %v", m)
		}
		old := false
		for _, id := range before {
			old = old || id == m.ID
		}
		if !old {
			fresh++
		}
	}
	if len(resp.Members) != 3 || fresh != 1 {
		t.Errorf("%d of the members are new: %v", fresh, resp.Members)
	}
	acknowledged := r.puts.Load()
	count, err := client.Get(t.Context(), "load/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	if count.Count < acknowledged {
		t.Errorf("%d keys, and %d writes were acknowledged", count.Count, acknowledged)
	}
	rev := count.Header.Revision
	hashes := map[uint32]bool{}
	for _, url := range r.Endpoints() {
		testserver.Eventually(t, url+" answers HashKV", func() bool {
			h, err := client.HashKV(t.Context(), url, rev)
			if err == nil {
				hashes[h.Hash] = true
			}
			return err == nil
		})
	}
	if len(hashes) != 1 {
		t.Errorf("the members have the hashes %v at %d", hashes, rev)
	}
}

func (r *replacement) ids(t *testing.T) (ids []uint64) {
	t.Helper()
	resp, err := r.Client(t).MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range resp.Members {
		ids = append(ids, m.ID)
	}
	return ids
}

// TestLongMemberReplace replaces a member under load, on each version, with TLS and auth and
// without, and kills the program at each line that it prints. The old data is there or gone.
func TestLongMemberReplace(t *testing.T) {
	n := 0
	for _, version := range []string{"3.5", "3.6", "3.7"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/Secure=%v", version, secure), func(t *testing.T) {
				r := newReplacement(t, version, secure)
				m, before := r.Members[n%3], r.ids(t)
				m.Kill()
				if n++; n%2 == 0 {
					if err := os.RemoveAll(m.DataDir); err != nil {
						t.Fatal(err)
					}
				}
				r.killedAtEachLine(t, m)
				r.whole(t, before)
				r.end()
				if r.puts.Load() < 100 {
					t.Errorf("only %d writes were acknowledged meanwhile", r.puts.Load())
				}
			})
		}
	}
}

func (r *replacement) killedAtEachLine(t *testing.T, m *testserver.Member) {
	t.Helper()
	known := map[string]bool{}
	for n := 0; ; n++ {
		if n > 20 {
			t.Fatal("it does not come to an end")
		}
		done := r.call(t, time.Minute, m, nil, func(line string) bool {
			if list, ok := strings.CutPrefix(line, "  ETCD_INITIAL_CLUSTER="); ok && !m.Running() {
				list, err := strconv.Unquote(list)
				if err == nil {
					err = m.Rejoin(list)
				}
				if err != nil {
					t.Error(err)
				}
			}
			// After the comparison it may be done before the signal comes.
			kill := !known[line] && !known["Replaced"] && !strings.HasPrefix(line, "Note: ")
			known[line] = true
			if strings.HasPrefix(line, "The old data") || strings.HasPrefix(line, "Replaced") {
				known["Replaced"], kill = true, false
			}
			return kill
		})
		if done {
			break
		}
	}
	for _, want := range []string{
		"Remove member " + m.Name, "Add member " + m.Name, "Start member " + m.Name, "Promote member " + m.Name,
		"Compare HashKV of member " + m.Name, "Replaced member " + m.Name,
	} {
		found := false
		for line := range known {
			found = found || strings.HasPrefix(line, want)
		}
		if !found {
			t.Errorf("no line begins with %q: %v", want, known)
		}
	}
}

// TestLongMemberReplace_TwoDown: without a quorum nothing is changed, and the answer says so, with
// auth too, where nobody can even log in.
func TestLongMemberReplace_TwoDown(t *testing.T) {
	for _, secure := range []bool{false, true} {
		r := newReplacement(t, "3.7", secure)
		r.end()
		for _, m := range r.Members[:2] {
			m.Kill()
		}
		m := r.Members[0]
		args := append([]string{"member", "replace", "--name", m.Name, "--data-dir", m.DataDir, "--allow-more-down"},
			r.flags...)
		out, err := exec.Command(r.program, args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 6 || !strings.Contains(string(out), "quorum") ||
			!strings.Contains(string(out), "backupd restore --help") {
			t.Errorf("Secure=%v: %v\n%s", secure, err, out)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(m.DataDir), ".*")); len(left) > 0 {
			t.Errorf("%v is left", left)
		}
	}
}

// TestLongMemberReplace_Random starts the member by --exec, as etcd itself, and kills the
// program after any time. The etcd that it has started lives on.
func TestLongMemberReplace_Random(t *testing.T) {
	r := newReplacement(t, "3.7", false)
	for n := range max(4, rounds.Of(4)) {
		m, before := r.Members[n%3], r.ids(t)
		m.Kill()
		endStarted(t, m)
		if n%2 == 0 {
			if err := os.RemoveAll(m.DataDir); err != nil {
				t.Fatal(err)
			}
		}
		run := startBySelf(t, m)
		for kills := 0; ; kills++ {
			limit := time.Duration(rand.Int64N(int64(3 * time.Second)))
			if kills > 25 {
				limit = time.Minute
			}
			if r.call(t, limit, m, []string{"--exec", run}, func(string) bool { return false }) {
				break
			}
			if kills > 30 {
				t.Fatal("it does not come to an end")
			}
		}
		r.whole(t, before)
	}
}

// startBySelf is a command that starts the member as etcd itself.
func startBySelf(t *testing.T, m *testserver.Member) string {
	t.Helper()
	t.Cleanup(func() { endStarted(t, m) })
	etcd := []string{testserver.Binary(t, "3.7", "etcd"), "--listen-client-urls=" + m.ClientURL,
		"--advertise-client-urls=" + m.ClientURL, "--unsafe-no-fsync"}
	return fmt.Sprintf(`echo $$ >>%[1]s.pid; exec %[2]s "$@" >>%[1]s.etcd 2>&1`, m.DataDir, strings.Join(etcd, " "))
}

// TestLongMemberReplace_Page runs the commands of the page.
func TestLongMemberReplace_Page(t *testing.T) {
	raw, err := os.ReadFile("../../docs/runbooks/member-replace.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(raw), -1)
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of commands in the page, this test knows 3", len(blocks))
	}
	r := newReplacement(t, "3.7", false)
	m, before := r.Members[1], r.ids(t)
	m.Kill()
	from := filepath.Join(t.TempDir(), "etcd.env")
	file := fmt.Sprintf("ETCD_NAME=%s\nETCD_DATA_DIR=%s\nETCD_LISTEN_PEER_URLS=%[3]s\n"+
		"ETCD_INITIAL_ADVERTISE_PEER_URLS=%[3]s\n", m.Name, m.DataDir, m.PeerURL)
	if err := os.WriteFile(from, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, block := range blocks {
		cmd := exec.Command("bash", "-euc", block[1])
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(r.program)+":"+os.Getenv("PATH"), "MEMBER="+m.Name,
			"ENDPOINTS="+strings.Join(r.Endpoints(), ","), "DATA_DIR="+m.DataDir,
			"FROM="+from, "START="+startBySelf(t, m))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", block[1], err, out)
		}
		changed := !slices.Equal(r.ids(t), before)
		if changed != (n == 2) {
			t.Errorf("%s: were the members changed: %v\n%s", block[1], changed, out)
		}
		t.Logf("%s", out)
	}
	r.whole(t, before)
}

// endStarted ends what --exec has started for a member.
func endStarted(t *testing.T, m *testserver.Member) {
	t.Helper()
	raw, err := os.ReadFile(m.DataDir + ".pid")
	if err != nil {
		return
	}
	for _, line := range strings.Fields(string(raw)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if !strings.Contains(string(command), m.DataDir) {
			continue // it has ended
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		testserver.Eventually(t, "the started etcd ends", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	_ = os.Remove(m.DataDir + ".pid")
}
