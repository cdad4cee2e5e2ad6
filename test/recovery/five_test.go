//go:build long

package recovery_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kballard/go-shellquote"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// site is one deployment on loopback addresses. Each host is a folder with its files, and an
// address of its own. What starts the servers is in the other files of the test: it reads the
// operator's files by the rules of what it stands for, and shares nothing with the program.
type site struct {
	version string
	program string // backupd
	root    string // everybody may go through it
	net     string // the first three numbers of all addresses
	repo    []string
	tls     *tls.Config
	user    string // of etcd
}

func newSite(t *testing.T, version string) *site {
	t.Helper()
	s := &site{version: version, program: replaceProgram(t), root: t.TempDir()}
	for dir := s.root; strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.repo = []string{"--repo=file://" + filepath.Join(s.root, "repo"), "--cluster=prod"}
	s.user = "nobody"
	if os.Geteuid() != 0 {
		s.user = os.Getenv("USER")
	}
	t.Setenv("ETCD_CLIENT_DEBUG", "error") // clients say each attempt to reach a server that starts
	for s.net == "" || !s.free() {
		s.net = fmt.Sprintf("127.%d.%d.", 1+rand.IntN(250), rand.IntN(250))
	}
	return s
}

// free reports whether nobody uses the addresses.
func (s *site) free() bool {
	for i := 1; i < 16; i++ {
		for _, port := range []string{":2379", ":2380"} {
			l, err := net.Listen("tcp", s.addr(i)+port)
			if err != nil {
				return false
			}
			_ = l.Close()
		}
	}
	return true
}

func (s *site) addr(host int) string { return fmt.Sprint(s.net, host) }

// path is a file of a host.
func (s *site) path(host int, path string) string {
	return filepath.Join(s.root, fmt.Sprint("host", host), path)
}

// write writes a file of a host. @ in the text is the root of the host's files.
func (s *site) write(t *testing.T, host int, path, text string) string {
	t.Helper()
	return s.writeFile(t, s.path(host, path), strings.ReplaceAll(text, "@", s.path(host, "")), 0o644)
}

func (s *site) writeFile(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// folder makes a folder of a host that belongs to etcd.
func (s *site) folder(t *testing.T, host int, path string) string {
	t.Helper()
	dir := s.path(host, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s.giveAway(t, dir)
	return dir
}

func (s *site) giveAway(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, credential(t, s.user).uid, credential(t, s.user).gid); err != nil {
		t.Fatal(err)
	}
}

// install puts the etcd program to a path of a host.
func (s *site) install(t *testing.T, host int, path string) {
	t.Helper()
	to := s.path(host, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(to) // another version
	raw, err := os.ReadFile(testserver.Binary(t, s.version, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	common := filepath.Join(s.root, "etcd-"+s.version)
	if _, err := os.Stat(common); err != nil {
		s.writeFile(t, common, string(raw), 0o755)
	}
	if err := os.Link(common, to); err != nil {
		t.Fatal(err)
	}
}

// answer is what the program said and how it ended.
type answer struct {
	code        int
	out, stderr string
}

// run runs backupd in a folder that has nothing to do with the deployment.
func (s *site) run(t *testing.T, env, command []string) answer {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "BACKUPD_") || strings.HasPrefix(v, "ETCD") || strings.HasPrefix(v, "KUBERNETES")
	}), append(env, "BACKUPD_SPOOL_MIN_FREE=0B")...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// want runs backupd and demands how it ends, and words that it says.
func (s *site) want(t *testing.T, code int, args []string, words ...string) answer {
	t.Helper()
	return s.wantBy(t, nil, []string{s.program}, code, args, words...)
}

// wantBy is want with variables, and a command that runs backupd.
func (s *site) wantBy(t *testing.T, env, by []string, code int, args []string, words ...string) answer {
	t.Helper()
	a := s.run(t, env, append(slices.Clone(by), args...))
	if a.code != code {
		t.Fatalf("backupd %s\nends with %d, want %d\n%s%s", shellquote.Join(args...), a.code, code, a.out, a.stderr)
	}
	for _, w := range words {
		if !strings.Contains(a.out+a.stderr, w) {
			t.Errorf("backupd %s\ndoes not say %q:\n%s%s", shellquote.Join(args...), w, a.out, a.stderr)
		}
	}
	return a
}

// typedRestore is all that an operator types for a restore: the repository, the cluster's name,
// the file and, where it serves several hosts, the member's name, which else is empty.
func (s *site) typedRestore(file, name string, more ...string) []string {
	args := append([]string{"restore", "latest", "--from", file}, s.repo...)
	if name != "" {
		args = append(args, "--name", name)
	}
	return append(args, more...)
}

// command returns the words of the printed command in the line that has a text, without the
// program.
func (a answer) command(t *testing.T, text string) []string {
	t.Helper()
	for line := range strings.SplitSeq(a.out+a.stderr, "\n") {
		_, command, found := strings.Cut(line, "backupd ")
		if !found || !strings.Contains(line, text) {
			continue
		}
		words, err := shellquote.Split(command)
		if err != nil {
			t.Fatalf("%q: %v", command, err)
		}
		return words
	}
	t.Fatalf("no command in a line with %q:\n%s%s", text, a.out, a.stderr)
	return nil
}

// replaced returns a command with one flag changed, as the operator does on another host.
func replaced(args []string, flag, value string) []string {
	args = slices.Clone(args)
	for i, a := range args {
		if strings.HasPrefix(a, "--"+flag+"=") {
			args[i] = "--" + flag + "=" + value
		}
	}
	return args
}

// process is what was started, with all that it has started.
type process struct {
	cmd   *exec.Cmd
	log   string // a file
	ended chan struct{}
	// notified is closed when a service has said that it is ready.
	notified chan struct{}
	closers  []io.Closer // what ends with it
}

type ids struct{ uid, gid int }

// credential looks up a user by name or number.
func credential(t *testing.T, name string) ids {
	t.Helper()
	var id ids
	out, err := exec.Command("id", "-u", name).Output()
	group, gerr := exec.Command("id", "-g", name).Output()
	if err != nil || gerr != nil {
		t.Fatalf("user %s: %v, %v", name, err, gerr)
	}
	_, _ = fmt.Sscan(string(out), &id.uid)
	_, _ = fmt.Sscan(string(group), &id.gid)
	return id
}

// start runs a command with that environment and no other, in dir, as a user.
func (s *site) start(t *testing.T, args, env []string, dir, user string) *process {
	t.Helper()
	log, err := os.CreateTemp(s.root, "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process writes it
	p := &process{cmd: exec.Command(args[0], args[1:]...), log: log.Name(), ended: make(chan struct{}),
		notified: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env = dir, append([]string{"PATH=/usr/local/bin:/usr/bin:/bin"}, env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if user != "" && os.Geteuid() == 0 {
		id := credential(t, user)
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid)}
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %q: %v", args, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(p.kill)
	return p
}

// said is its output.
func (p *process) said() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// kill ends the process and all that it has started.
func (p *process) kill() {
	for _, c := range p.closers {
		_ = c.Close()
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// alive reports whether something of the process runs.
func (p *process) alive() bool { return syscall.Kill(-p.cmd.Process.Pid, 0) == nil }

// client returns one that is closed at the end of the test.
func (s *site) client(t *testing.T, user string, endpoints ...string) *clientv3.Client {
	t.Helper()
	name, password, _ := strings.Cut(user, ":")
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, TLS: s.tls, DialTimeout: 20 * time.Second, Username: name, Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ready waits until every endpoint answers a linearizable read.
func (s *site) ready(t *testing.T, user string, ps []*process, endpoints ...string) {
	t.Helper()
	for _, e := range endpoints {
		var last error
		ok := testserver.EventuallyIn(t, time.Minute, "etcd at "+e, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			name, password, _ := strings.Cut(user, ":")
			c, err := clientv3.New(clientv3.Config{
				Endpoints: []string{e}, TLS: s.tls, DialTimeout: 2 * time.Second, Username: name, Password: password,
			})
			if last = err; err != nil {
				return false
			}
			defer c.Close() // only read with
			_, last = c.Get(ctx, "x")
			return last == nil
		})
		if !ok {
			for _, p := range ps {
				t.Logf("%q\n%s", p.cmd.Args, p.said())
			}
			t.Fatalf("%s: %v", e, last)
		}
	}
}

// fill writes keys, keys with leases, a user and a role.
func (s *site) fill(t *testing.T, c *clientv3.Client) {
	t.Helper()
	testserver.Fill(t, c, testserver.FillOptions{Keys: 100, Seed: 7, Compact: true})
	for _, do := range []func() error{
		func() error { _, err := c.RoleAdd(t.Context(), "reader"); return err },
		func() error {
			_, err := c.RoleGrantPermission(t.Context(), "reader", "a", "b", clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := c.UserAdd(t.Context(), "alice", "wonderland"); return err },
		func() error { _, err := c.UserGrantRole(t.Context(), "alice", "reader"); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
}

// state is what must be the same after a disaster.
type state struct {
	Keys     map[string]string
	Leases   map[clientv3.LeaseID]string
	Users    map[string]string
	Auth     bool
	Members  map[string]string
	revision int64
	hash     uint32
}

// read reads it, and demands that all members hold the same.
func (s *site) read(t *testing.T, user string, endpoints ...string) state {
	t.Helper()
	ctx, c := t.Context(), s.client(t, user, endpoints...)
	st := state{Keys: map[string]string{}, Leases: map[clientv3.LeaseID]string{}, Users: map[string]string{},
		Members: map[string]string{}}
	all, err := c.Get(ctx, "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	st.revision = all.Header.Revision
	for _, kv := range all.Kvs {
		st.Keys[string(kv.Key)] = fmt.Sprintf("%s@%d/%d/%d/%d", kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version,
			kv.Lease)
	}
	leases, err := c.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases.Leases {
		ttl, err := c.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(ttl.Keys, bytes.Compare)
		st.Leases[l.ID] = fmt.Sprintf("%d %q", ttl.GrantedTTL, ttl.Keys)
	}
	users, err := c.UserList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users.Users {
		got, err := c.UserGet(ctx, u)
		if err != nil {
			t.Fatal(err)
		}
		st.Users[u] = fmt.Sprint(got.Roles)
	}
	auth, err := c.AuthStatus(ctx)
	if err != nil {
		t.Fatal(err)
	}
	st.Auth = auth.Enabled
	members, err := c.MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range members.Members {
		st.Members[m.Name] = strings.Join(m.PeerURLs, ",")
	}
	st.hash = s.hashes(t, c, endpoints)
	return st
}

// hashes waits until all members have one revision and one hash.
func (s *site) hashes(t *testing.T, c *clientv3.Client, endpoints []string) (hash uint32) {
	t.Helper()
	ok := testserver.EventuallyIn(t, 20*time.Second, "one hash on all members", func() bool {
		seen := map[string]uint32{}
		for _, e := range endpoints {
			h, err := c.HashKV(t.Context(), e, 0)
			if err != nil {
				t.Logf("%s: %v", e, err)
				return false
			}
			hash = h.Hash
			seen[fmt.Sprint(h.Hash, h.Header.Revision, h.Header.ClusterId)] = h.Hash
		}
		return len(seen) == 1
	})
	if !ok {
		t.Error("the members hold different data")
	}
	return hash
}

// same compares two states. Without a bump hash and revision are the same, too.
func same(t *testing.T, before, after state, bumped bool) {
	t.Helper()
	for _, c := range []struct {
		what          string
		before, after any
	}{
		{"keys", before.Keys, after.Keys}, {"leases", before.Leases, after.Leases}, {"users", before.Users, after.Users},
		{"auth", before.Auth, after.Auth}, {"members", before.Members, after.Members},
	} {
		if !reflect.DeepEqual(c.before, c.after) {
			t.Errorf("%s before:\n%v\nafter:\n%v", c.what, c.before, c.after)
		}
	}
	if len(before.Keys) == 0 || len(before.Leases) == 0 || len(before.Users) == 0 {
		t.Errorf("nothing was compared: %d keys, %d leases, %d users", len(before.Keys), len(before.Leases),
			len(before.Users))
	}
	switch {
	case bumped && after.revision < before.revision+1e9:
		t.Errorf("revision %d before, and %d after a bump", before.revision, after.revision)
	case !bumped && (before.revision != after.revision || before.hash != after.hash):
		t.Errorf("revision and hash %d %x before, %d %x after", before.revision, before.hash, after.revision, after.hash)
	}
}

// backup makes the repository, and a snapshot in it.
func (s *site) backup(t *testing.T, more ...string) answer {
	t.Helper()
	s.want(t, 0, []string{"init", s.repo[0]})
	return s.want(t, 0, append(append([]string{"backup"}, s.repo...), more...))
}

// owned demands that all of a folder belongs to a user.
func owned(t *testing.T, dir, user string) {
	t.Helper()
	id := credential(t, user)
	n := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n++
		if got := info.Sys().(*syscall.Stat_t); int(got.Uid) != id.uid || int(got.Gid) != id.gid {
			t.Errorf("%s belongs to %d:%d, want %s", path, got.Uid, got.Gid, user)
		}
		return nil
	})
	if err != nil || n < 4 {
		t.Errorf("%d entries in %s: %v", n, dir, err)
	}
}

// destroy removes folders and what is in them, and makes the parents again that are not etcd's.
func destroy(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "member")); err != nil {
			t.Errorf("there is no data to destroy: %v", err)
		}
		removeAll(t, dir)
	}
}

func removeAll(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}
