package testserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The keys of the gateway's one account.
const (
	s3AccessKey = "backupd-test-access"
	s3SecretKey = "backupd-test-secret"
	s3Region    = "us-east-1"
)

// S3 is one empty bucket of a real S3 server that keeps objects as files.
type S3 struct {
	Endpoint  string // "http://127.0.0.1:port"; buckets are addressed by path
	Region    string
	AccessKey string
	SecretKey string
	Bucket    string
	CAFile    string // what verifies Endpoint's certificate; empty without TLS

	root   string
	client *http.Client
}

// StartS3 returns a fresh bucket. All tests of a process that run at the same
// time share one server, which ends with the last of them.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	return sharedGateway(t).newBucket(t)
}

// StartS3TLS is [StartS3] on a server of its own that speaks only HTTPS, with
// a certificate that only readers of CAFile trust.
func StartS3TLS(t testing.TB) *S3 {
	t.Helper()
	ca := NewAuthority(t)
	cert, key := ca.Issue(t, "versitygw")
	g := startGateway(t, "--cert", cert, "--key", key)
	t.Cleanup(g.stop)
	g.url = "https://" + strings.TrimPrefix(g.url, "http://")
	g.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}}
	g.awaitHealth(t)
	s := g.newBucket(t)
	s.CAFile = ca.File
	return s
}

// URL returns what --repo takes: "s3://bucket/prefix".
func (s *S3) URL(prefix string) string { return "s3://" + s.Bucket + "/" + prefix }

// Dir returns the directory that holds the bucket: object a/b is the file a/b
// in it. A test may damage files there behind the server's back.
func (s *S3) Dir() string { return filepath.Join(s.root, s.Bucket) }

// Env returns the variables from which the AWS SDK and our own programs take
// everything they need to reach the server, for child processes.
func (s *S3) Env() []string {
	env := []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_REGION=" + s.Region,
		"AWS_ENDPOINT_URL_S3=" + s.Endpoint,
		// Without this the SDK asks a metadata service that is not there when
		// a test takes the keys away.
		"AWS_EC2_METADATA_DISABLED=true",
	}
	if s.CAFile != "" {
		env = append(env, "AWS_CA_BUNDLE="+s.CAFile)
	}
	return env
}

// Do sends one signed request for an object, or for the bucket when key is
// empty, and returns the body. An answer outside 2xx is an error. It lets a
// test look at the store without the code under test.
func (s *S3) Do(ctx context.Context, method, key string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.Endpoint+"/"+s.Bucket+"/"+key, bodyReader(body))
	if err != nil {
		return nil, err
	}
	signV4(req, body, s, time.Now())
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s\n%s", method, req.URL.Path, resp.Status, got)
	}
	return got, nil
}

// A gateway is one running versitygw.
type gateway struct {
	proc   *process
	url    string
	dir    string // holds root and the log
	root   string
	client *http.Client
	users  int // guarded by shared.mu; unused on one that is not shared
}

// shared is the gateway of this process, nil while no test uses one.
var shared struct {
	mu sync.Mutex
	gw *gateway
}

func sharedGateway(t testing.TB) *gateway {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.gw == nil || shared.gw.proc.exited() != nil {
		g := startGateway(t)
		g.awaitHealth(t)
		shared.gw = g
	}
	g := shared.gw
	g.users++
	t.Cleanup(func() {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		g.users--
		if g.users > 0 {
			return
		}
		g.stop()
		if shared.gw == g {
			shared.gw = nil
		}
	})
	return g
}

// startGateway starts a server, which need not answer yet. Its directory is
// not t's: a shared server may outlive the test that started it. (Its port may
// too; once it listens there, no lock is needed to keep others off.)
func startGateway(t testing.TB, flags ...string) *gateway {
	t.Helper()
	bin := VersityGW(t)
	must(t, "remove what dead tests left", removeOrphans())
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", s3DirPrefix(), os.Getpid()))
	must(t, "make a directory for the S3 server", err)
	root := filepath.Join(dir, "root")
	must(t, "make a directory for the S3 server", os.Mkdir(root, 0o700))
	addr := freeAddr(t)
	args := append([]string{"--port", addr, "--region", s3Region, "--health", "/healthz", "--quiet"}, flags...)
	args = append(args, "posix", root)
	// Nothing else of the environment: the gateway takes every flag from there
	// too, under names as common as LOGFILE.
	env := []string{"ROOT_ACCESS_KEY_ID=" + s3AccessKey, "ROOT_SECRET_ACCESS_KEY=" + s3SecretKey}
	proc, err := startProcess(filepath.Join(dir, "log"), bin, args, env)
	if err != nil {
		must(t, "start the S3 server", errors.Join(err, os.RemoveAll(dir)))
	}
	client := &http.Client{Transport: &http.Transport{}}
	return &gateway{proc: proc, url: "http://" + addr, dir: dir, root: root, client: client}
}

// awaitHealth waits until the server answers, or fails the test with its log.
func (g *gateway) awaitHealth(t testing.TB) {
	t.Helper()
	err := waitUntil(t.Context(), 20*time.Second, func(ctx context.Context) error {
		if err := g.proc.exited(); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+"/healthz", nil)
		if err != nil {
			return err
		}
		resp, err := g.client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("health: %s", resp.Status)
		}
		return nil
	})
	if err != nil {
		log := tail(g.proc.logPath, 40)
		g.stop()
		t.Fatalf("testserver: start the S3 server: %v\n%s", err, log)
	}
}

// bucketCount numbers the buckets of this process.
var bucketCount atomic.Int64

func (g *gateway) newBucket(t testing.TB) *S3 {
	t.Helper()
	s := &S3{
		Endpoint: g.url, Region: s3Region, AccessKey: s3AccessKey, SecretKey: s3SecretKey,
		Bucket: fmt.Sprintf("test-%d", bucketCount.Add(1)),
		root:   g.root, client: g.client,
	}
	_, err := s.Do(t.Context(), http.MethodPut, "", nil)
	if err != nil {
		t.Fatalf("testserver: create bucket: %v\n%s", err, tail(g.proc.logPath, 40))
	}
	return s
}

func (g *gateway) stop() {
	g.client.CloseIdleConnections()
	g.proc.kill()
	// If it cannot be removed now, the next process removes it.
	_ = os.RemoveAll(g.dir)
}

// s3DirPrefix begins the names of all gateways' directories; the process id
// follows. Other users have other names, for theirs cannot be removed.
func s3DirPrefix() string { return fmt.Sprintf("backupd-test-s3-%d-", os.Getuid()) }

// removeOrphans removes the directories of test processes that ended without
// their clean-up.
func removeOrphans() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), s3DirPrefix()+"*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), s3DirPrefix()), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
