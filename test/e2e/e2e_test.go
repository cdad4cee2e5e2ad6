// Package e2e_test runs the shipped binary against real clusters: every
// supported etcd, both kinds of repository, one and three members.
package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "backupd-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "backupd")
	if err := dependOnSources(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	build := exec.Command("go", "build", "-o", binary, "../../cmd/backupd")
	build.Stdout, build.Stderr = os.Stdout, os.Stderr
	code := 1
	_ = os.Setenv("BACKUPD_SPOOL_MIN_FREE", "0B") // the machine's disk may be nearly full
	if err := build.Run(); err == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// dependOnSources looks at every source of the program: the test cache remembers
// what a test looked at, but nothing of a build in a process of its own.
func dependOnSources() error {
	for _, root := range []string{"../../cmd", "../../internal", "../../deploy", "../../go.mod", "../../go.sum"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				_, err = os.Stat(path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cli runs backupd with an environment.
type cli struct {
	env []string
	dir string
}

func newCLI(t *testing.T, env ...string) *cli {
	t.Helper()
	dir := t.TempDir()
	return &cli{env: append(append(os.Environ(), "TMPDIR="+dir), env...), dir: dir}
}

func (c *cli) try(args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Dir = c.env, c.dir
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (c *cli) run(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, err := c.try(args...)
	if err != nil {
		t.Fatalf("backupd %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// manifest is the part of a snapshot's JSON that tests look at.
// snapshot is one as show and backup print it.
type snapshot struct{ Manifest manifest }

type manifest struct {
	ID       string
	Timeline string
	Revision int64
	HashKV   struct{ Hash uint32 }
	Members  []member
	Suspect  []string
}

type member struct {
	ID, Name string
	PeerURLs []string
}

func decode[T any](t *testing.T, raw string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(raw), &v); err != nil {
		t.Fatalf("decode %s: %v", raw, err)
	}
	return v
}

// contents reads every key at a revision.
func contents(t *testing.T, cl *clientv3.Client, rev int64) []*mvccpb.KeyValue {
	t.Helper()
	resp, err := cl.Get(t.Context(), "\x00", clientv3.WithRange("\x00"), clientv3.WithRev(rev))
	if err != nil {
		t.Fatalf("read all keys at %d: %v", rev, err)
	}
	return resp.Kvs
}

func equal(a, b []*mvccpb.KeyValue) bool {
	return slices.EqualFunc(a, b, func(x, y *mvccpb.KeyValue) bool { return proto.Equal(x, y) })
}

// hashes asks every member for HashKV at a revision.
func hashes(t *testing.T, c *testserver.Cluster, rev int64) map[string]uint32 {
	t.Helper()
	out := map[string]uint32{}
	cl := c.Client(t)
	for _, ep := range c.Endpoints() {
		resp, err := cl.HashKV(t.Context(), ep, rev)
		if err != nil {
			t.Fatalf("HashKV of %s at %d: %v", ep, rev, err)
		}
		out[ep] = resp.Hash
	}
	return out
}

// members lists the cluster's membership as the plan of a restore tells it.
func members(t *testing.T, cl *clientv3.Client) []member {
	t.Helper()
	resp, err := cl.MemberList(t.Context())
	if err != nil {
		t.Fatalf("list members: %v", err)
	}
	var out []member
	for _, m := range resp.Members {
		out = append(out, member{fmt.Sprintf("%x", m.ID), m.Name, m.PeerURLs})
	}
	sortMembers(out)
	return out
}

func sortMembers(m []member) {
	slices.SortFunc(m, func(a, b member) int { return strings.Compare(a.Name, b.Name) })
}

func put(ctx context.Context, t *testing.T, cl *clientv3.Client, key string) {
	t.Helper()
	if _, err := cl.Put(ctx, key, "written after the restore"); err != nil {
		t.Fatalf("put: %v", err)
	}
}

// waitFor waits for what must come. A store that is away is tried for minutes
// before an operation that was under way gives up.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !testserver.EventuallyIn(t, 5*time.Minute, what, ok) {
		t.FailNow()
	}
}
