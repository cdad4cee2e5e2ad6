package testserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/certs"
)

// readyLimit bounds how long a cluster may take to elect a leader. It takes
// about a second; a machine busy with other tests is given much more.
const readyLimit = 60 * time.Second

// Options say which cluster [StartCluster] starts. The zero value is one
// member of the newest etcd, without TLS.
type Options struct {
	Version string   // etcd minor as in [Versions]; default 3.7
	Size    int      // voting members; default 1
	TLS     bool     // mutual TLS for clients and between peers
	Name    string   // members are called Name1, Name2, ...; default "m"
	Args    []string // more flags for every member; later ones win over ours
}

// Cluster is a running etcd cluster of real processes on loopback.
type Cluster struct {
	Version string
	Members []*Member

	// The files a client needs; all empty without TLS. CN is the common name
	// in CertFile, which etcd takes for a user name once auth is on.
	CAFile, CertFile, KeyFile string
	CN                        string

	bin            string
	dir            string
	authority      *Authority // nil without TLS
	user, password string     // for our own clients; set by EnableAuth
}

// StartCluster starts a cluster and returns when all members have the same
// leader. The processes end with the test, whose log then holds the end of
// theirs if it failed. Their data is not synced to disk (except by 3.4, which
// has no flag for that): a killed member loses nothing by that, only a power cut
// would show it.
func StartCluster(t testing.TB, o Options) *Cluster {
	t.Helper()
	if o.Version == "" {
		o.Version = "3.7"
	}
	if o.Name == "" {
		o.Name = "m"
	}
	c := newCluster(t, o.Version)
	if o.TLS {
		c.useAuthority(t, newAuthority(t, c.dir))
	}
	for attempt := 1; ; attempt++ {
		c.Members = c.plan(t, o, attempt)
		err := c.start(t)
		if err == nil {
			return c
		}
		// Another program, which does not use our locks, may take a port.
		if attempt == 3 || !c.logsContain("address already in use") {
			t.Fatalf("testserver: start etcd %s: %v", o.Version, err)
		}
		c.kill()
	}
}

func newCluster(t testing.TB, version string) *Cluster {
	t.Helper()
	c := &Cluster{Version: version, bin: Binary(t, version, "etcd"), dir: t.TempDir()}
	t.Cleanup(func() {
		c.kill()
		if !t.Failed() {
			return
		}
		for _, m := range c.Members {
			t.Logf("the end of the log of %s (etcd %s):\n%s", m.Name, version, tail(m.logPath, 8))
		}
	})
	return c
}

// useAuthority gives the cluster server and client certificates of a.
func (c *Cluster) useAuthority(t testing.TB, a *Authority) {
	t.Helper()
	c.authority, c.CAFile, c.CN = a, a.File, "test-client"
	c.CertFile, c.KeyFile = a.Issue(t, c.CN)
	a.Issue(t, serverCN)
}

// plan lays out the members of a new cluster.
func (c *Cluster) plan(t testing.TB, o Options, attempt int) []*Member {
	t.Helper()
	dir := filepath.Join(c.dir, strconv.Itoa(attempt))
	must(t, "make a directory", os.Mkdir(dir, 0o700))
	var members []*Member
	var initial []string
	for i := range max(o.Size, 1) {
		m := c.newMember(t, dir, o.Name+strconv.Itoa(i+1))
		members = append(members, m)
		initial = append(initial, m.Name+"="+m.PeerURL)
	}
	for _, m := range members {
		m.args = append(m.args,
			"--initial-cluster="+strings.Join(initial, ","),
			"--initial-cluster-state=new",
			"--initial-cluster-token="+filepath.Base(c.dir)+strconv.Itoa(os.Getpid()),
		)
		m.args = append(m.args, c.noSync()...)
		m.args = append(m.args, o.Args...)
	}
	return members
}

func (c *Cluster) noSync() []string {
	if c.Version == "3.4" {
		return nil
	}
	return []string{"--unsafe-no-fsync"}
}

// start starts every member and waits for all of them.
func (c *Cluster) start(t testing.TB) error {
	for _, m := range c.Members {
		if err := m.start(); err != nil {
			return err
		}
	}
	return c.awaitReady(t.Context())
}

// kill ends every member that runs.
func (c *Cluster) kill() {
	for _, m := range c.Members {
		m.Kill()
	}
}

func (c *Cluster) logsContain(text string) bool {
	for _, m := range c.Members {
		if strings.Contains(m.Log(), text) {
			return true
		}
	}
	return false
}

// Endpoints returns the client URLs of the voting members.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.Members {
		if !m.Learner {
			urls = append(urls, m.ClientURL)
		}
	}
	return urls
}

// Client returns a client for the voting members, closed when t is over. After
// EnableAuth it logs in as root.
func (c *Cluster) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return c.ClientAs(t, c.user, c.password)
}

// ClientAs is [Cluster.Client] with another login, or with none when user is
// empty.
func (c *Cluster) ClientAs(t testing.TB, user, password string) *clientv3.Client {
	t.Helper()
	// The test's context ends before its clean-ups run, which may want the
	// client still.
	client, err := c.dial(context.WithoutCancel(t.Context()), user, password, c.Endpoints()...)
	must(t, "connect to etcd", err)
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("testserver: close etcd client: %v", err)
		}
	})
	return client
}

func (c *Cluster) dial(ctx context.Context, user, password string, urls ...string) (*clientv3.Client, error) {
	conf, err := c.TLSConfig()
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Context:     ctx,
		Endpoints:   urls,
		DialTimeout: 10 * time.Second,
		TLS:         conf,
		Username:    user,
		Password:    password,
		Logger:      zap.NewNop(),
	})
}

// TLSConfig returns what a client needs to connect, or nil without TLS.
func (c *Cluster) TLSConfig() (*tls.Config, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	pair, err := certs.ReadPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load client certificate: %w", err)
	}
	pool, err := certs.ReadPool(c.CAFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{*pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// Authority is the authority of a cluster with TLS, or nil.
func (c *Cluster) Authority() *Authority { return c.authority }

// IssueCert makes another client certificate of the cluster's authority, for
// the user called cn, and returns its two files. It needs a cluster with TLS.
func (c *Cluster) IssueCert(t testing.TB, cn string) (certFile, keyFile string) {
	t.Helper()
	if c.authority == nil {
		t.Fatal("testserver: IssueCert of a cluster without TLS")
	}
	return c.authority.Issue(t, cn)
}
