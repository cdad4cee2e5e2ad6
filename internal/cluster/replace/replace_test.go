package replace_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a cluster of three with a member that is replaced.
type rig struct {
	*testserver.Cluster
	c    *cluster.Cluster
	keys int64
}

func newRig(t *testing.T, o testserver.Options) *rig {
	t.Helper()
	o.Size = 3
	r := &rig{Cluster: testserver.StartCluster(t, o)}
	testserver.Fill(t, r.Client(t), testserver.FillOptions{Seed: 7, Compact: true})
	r.c = testserver.Connect(t, cluster.Config{Endpoints: r.Endpoints(), RequestTimeout: 5 * time.Second})
	r.keys = r.count(t, r.Client(t))
	return r
}

func (r *rig) count(t *testing.T, cl *clientv3.Client) int64 {
	t.Helper()
	resp, err := cl.Get(t.Context(), "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	ok(t, err)
	return resp.Count
}

// options are those of the replacement of a member, which is started when that is asked for.
func (r *rig) options(m *testserver.Member, before func(string) error) replace.Options {
	if before == nil {
		before = func(string) error { return nil }
	}
	return replace.Hooked(replace.Options{
		Name: m.Name, DataDir: m.DataDir, Wait: time.Minute,
		Starter: func(_ context.Context, s replace.Settings) (<-chan error, error) {
			return nil, m.Rejoin(s.InitialCluster)
		},
	}, before)
}

func (r *rig) id(t *testing.T, name string) backup.MemberID {
	t.Helper()
	resp, err := r.Client(t).MemberList(t.Context())
	ok(t, err)
	for _, m := range resp.Members {
		if m.Name == name {
			return backup.MemberID(m.ID)
		}
	}
	t.Fatalf("no member %s in %v", name, resp.Members)
	return 0
}

// refused fails unless err is a refusal with these words and this override.
func refused(t *testing.T, err error, words, override string) {
	t.Helper()
	var refusal *backup.RefusedError
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, words) || refusal.Override != override {
		t.Fatalf("got %v (%+v), want a refusal with %q and %q", err, refusal, words, override)
	}
	var hint *backup.HintError
	if !errors.As(err, &hint) {
		t.Errorf("%v has no hint", err)
	}
}

// whole fails unless the cluster is as it was, with another id for the one member.
func (r *rig) whole(t *testing.T, m *testserver.Member, was backup.MemberID) {
	t.Helper()
	r.WaitReady(t)
	resp, err := r.Client(t).MemberList(t.Context())
	ok(t, err)
	if len(resp.Members) != 3 {
		t.Fatalf("the members are %v", resp.Members)
	}
	for _, is := range resp.Members {
		if is.IsLearner || is.Name == m.Name && backup.MemberID(is.ID) == was {
			t.Errorf("member %s is %+v", is.Name, is)
		}
	}
	if got := r.count(t, r.Client(t)); got != r.keys {
		t.Errorf("%d keys, want %d", got, r.keys)
	}
	put, err := r.Client(t).Put(t.Context(), "any", "value")
	ok(t, err)
	hashes := map[uint32]bool{}
	for _, url := range r.Endpoints() {
		is, err := r.c.Identify(t.Context(), url)
		ok(t, err)
		h, err := r.c.HashKV(t.Context(), is, backup.Revision(put.Header.Revision))
		ok(t, err)
		hashes[h.Hash] = true
	}
	if len(hashes) != 1 {
		t.Errorf("the members have the hashes %v", hashes)
	}
	_, err = r.Client(t).Delete(t.Context(), "any")
	ok(t, err)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(m.DataDir), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v is left", left, err)
	}
}

// TestRun replaces members of one cluster after all kinds of refusals, and goes on after each
// interruption.
func TestRun(t *testing.T) {
	r := newRig(t, testserver.Options{})
	second, third := r.Members[1], r.Members[2]
	run := func(o replace.Options) (*replace.Report, error) { return replace.Run(t.Context(), r.c, o) }

	_, err := run(r.options(second, nil))
	refused(t, err, "is not dead: it answers at "+second.ClientURL, "--allow-running")
	stranger := r.options(second, nil)
	stranger.Name = "m9"
	_, err = run(stranger)
	refused(t, err, "has no member m9: it has m", "--removed")

	third.Kill()
	old := r.id(t, third.Name)
	hung, err := net.Listen("tcp", strings.TrimPrefix(third.PeerURL, "http://"))
	ok(t, err)
	_, err = run(r.options(third, nil))
	refused(t, err, "something listens on its peer URL "+third.PeerURL, "--allow-running")
	ok(t, hung.Close())
	wrong := r.options(third, nil)
	wrong.DataDir = second.DataDir
	_, err = run(wrong)
	refused(t, err, "a running process holds", "")
	plan := r.options(third, func(change string) error { return errors.New(change + " in a dry run") })
	plan.DryRun = true
	report, err := run(plan)
	ok(t, err)
	want := []replace.Step{
		replace.Remove, replace.Aside, replace.Add, replace.Start, replace.Promote, replace.Compare,
	}
	if !slices.Equal(report.Steps, want) || !strings.Contains(report.Settings.InitialCluster, "m3="+third.PeerURL) {
		t.Errorf("the plan is %+v", report)
	}

	unready := errors.New("its settings are not ready")
	for _, dry := range []bool{false, true} {
		o := r.options(third, func(change string) error { return errors.New(change + " though it is not ready") })
		o.DryRun, o.Ready = dry, func(replace.Settings) error { return unready }
		if _, err := run(o); !errors.Is(err, unready) || r.id(t, third.Name) != old {
			t.Errorf("a dry run: %v, got %v", dry, err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context()) // as Ctrl-C does
	o := r.options(third, func(change string) error { cancel(); return context.Cause(ctx) })
	_, err = replace.Run(ctx, r.c, o)
	var hint *backup.HintError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "m3 is in the clus") {
		t.Errorf("interrupted: %v, %+v", err, hint)
	}

	killed := errors.New("killed")
	seen := map[string]int{}
	var changes []string
	for n := 0; ; n++ {
		report, err = run(r.options(third, func(change string) error {
			if seen[change]++; seen[change] == 1 {
				changes = append(changes, change)
				return fmt.Errorf("%w before %s", killed, change)
			}
			return nil
		}))
		if err == nil {
			break
		}
		if !errors.Is(err, killed) || n > 20 {
			t.Fatal(err)
		}
	}
	for _, change := range []string{"note", "remove", "rename", "add", "start", "promote", "compare", "finish"} {
		if !slices.Contains(changes, change) {
			t.Errorf("the changes were %v, without %s", changes, change)
		}
	}
	if report.MemberID != r.id(t, third.Name) || report.HashKV == nil {
		t.Errorf("the report is %+v", report)
	}
	r.whole(t, third, old)
	asides, err := filepath.Glob(third.DataDir + ".backupd-old-*")
	if err != nil || len(asides) != 1 {
		t.Errorf("the old data is in %v", asides)
	}

}
