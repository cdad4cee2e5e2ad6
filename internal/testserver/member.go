package testserver

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serverCN is the common name all etcd servers of a cluster share.
const serverCN = "test-server"

// Member is one etcd process of a [Cluster].
type Member struct {
	Name      string
	ClientURL string // "http://127.0.0.1:port", or https with TLS
	PeerURL   string
	Endpoint  string // ClientURL without the scheme: "127.0.0.1:port"
	DataDir   string
	Learner   bool // as it was added; not updated by a promotion

	t       testing.TB // the test that started the cluster
	bin     string
	args    []string
	logPath string
	proc    *process // nil before the first start
}

// newMember lays out a member on free ports, with every flag but those about
// the cluster it begins or joins.
func (c *Cluster) newMember(t testing.TB, dir, name string) *Member {
	t.Helper()
	scheme := "http://"
	if c.authority != nil {
		scheme = "https://"
	}
	m := c.memberAt(t, RestoredMember{
		Name:      name,
		DataDir:   filepath.Join(dir, name),
		ClientURL: scheme + freeAddr(t),
		PeerURL:   scheme + freeAddr(t),
	})
	m.logPath = filepath.Join(dir, name+".log")
	return m
}

func (c *Cluster) memberAt(t testing.TB, r RestoredMember) *Member {
	t.Helper()
	u, err := url.Parse(r.ClientURL)
	must(t, "parse client URL of "+r.Name, err)
	m := &Member{
		Name: r.Name, ClientURL: r.ClientURL, PeerURL: r.PeerURL, Endpoint: u.Host, DataDir: r.DataDir,
		t: t, bin: c.bin, logPath: filepath.Join(c.dir, r.Name+".log"),
	}
	m.args = []string{
		"--name=" + m.Name,
		"--data-dir=" + m.DataDir,
		"--listen-client-urls=" + m.ClientURL,
		"--advertise-client-urls=" + m.ClientURL,
		"--listen-peer-urls=" + m.PeerURL,
		"--initial-advertise-peer-urls=" + m.PeerURL,
	}
	if r.WALDir != "" {
		m.args = append(m.args, "--wal-dir="+r.WALDir)
	}
	if c.authority != nil {
		cert := filepath.Join(c.authority.dir, serverCN+".pem")
		key := filepath.Join(c.authority.dir, serverCN+"-key.pem")
		m.args = append(m.args,
			"--cert-file="+cert, "--key-file="+key, "--trusted-ca-file="+c.CAFile, "--client-cert-auth",
			"--peer-cert-file="+cert, "--peer-key-file="+key, "--peer-trusted-ca-file="+c.CAFile,
			"--peer-client-cert-auth",
		)
	}
	return m
}

func (m *Member) start() error {
	proc, err := startProcess(m.logPath, m.bin, m.args, cleanEnv())
	if err != nil {
		return err
	}
	m.proc = proc
	return nil
}

// cleanEnv is the environment of a server. etcd takes every flag from there too; what
// the developer's shell holds for a real cluster must not reach a test's.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ETCD_") })
}

// Running reports whether the process lives; a paused one does.
func (m *Member) Running() bool { return m.proc != nil && m.proc.exited() == nil }

// PID returns the process id of the running or last run process.
func (m *Member) PID() int { return m.proc.pid() }

// Kill ends the process with SIGKILL, paused or not, and waits until it is
// gone. Its data stays.
func (m *Member) Kill() {
	if m.proc != nil {
		m.proc.kill()
	}
}

// Terminate ends the process with SIGTERM, as an operator would, and waits
// until it is gone. A member that ignores it fails the test and is killed.
func (m *Member) Terminate() {
	m.t.Helper()
	if err := m.proc.terminate(30 * time.Second); err != nil {
		m.t.Errorf("testserver: terminate %s: %v", m.Name, err)
	}
}

// Pause stops the process with SIGSTOP: its connections stay open and nothing
// answers. It returns when the process has stopped.
func (m *Member) Pause() {
	m.t.Helper()
	err := m.proc.signal(syscall.SIGSTOP)
	for err == nil {
		var done bool
		if done, err = stopped(m.PID()); done {
			return
		}
	}
	m.t.Errorf("testserver: pause %s: %v", m.Name, err)
}

// Resume continues a paused process.
func (m *Member) Resume() {
	m.t.Helper()
	if err := m.proc.signal(syscall.SIGCONT); err != nil {
		m.t.Errorf("testserver: resume %s: %v", m.Name, err)
	}
}

// Restart starts the process again on its data, after Kill or Terminate. It
// does not wait, because a member without a majority never gets ready; call
// [Cluster.WaitReady] when all are back.
func (m *Member) Restart(t testing.TB) {
	t.Helper()
	if m.Running() {
		t.Fatalf("testserver: restart %s: it is running", m.Name)
	}
	must(t, "restart "+m.Name, m.start())
}

// Rejoin starts the process as a new member of the running cluster, which has this list of
// members. It does not wait, like [Member.Restart].
func (m *Member) Rejoin(initialCluster string) error {
	if m.Running() {
		return fmt.Errorf("testserver: rejoin of %s: it is running", m.Name)
	}
	m.args = append(m.args, "--initial-cluster="+initialCluster, "--initial-cluster-state=existing")
	return m.start()
}

// Args are the flags of the process.
func (m *Member) Args() []string { return slices.Clone(m.args) }

// Log returns everything the member has logged, over all its runs.
func (m *Member) Log() string {
	data, err := os.ReadFile(m.logPath)
	if err != nil && !os.IsNotExist(err) {
		return err.Error()
	}
	return string(data)
}
