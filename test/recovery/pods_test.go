//go:build long

package recovery_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// statefulSet is a StatefulSet of etcd, each pod with a restore as its init container. The test
// runs its containers in order, as a kubelet does: the init container until it succeeds.
type statefulSet struct {
	*testserver.Cluster // of the pods whose etcd has been started
	launching           sync.Mutex
	program, dir, repo  string
	plan                string
	pods                []*pod
	initial             string        // --initial-cluster in the manifest
	usual               time.Duration // that a restore takes
	id                  uint64        // of the cluster, once it is known
	kills               int
	client, peer        []string // flags for TLS, of clients and of members
}

// pod is one pod with its volume.
type pod struct {
	testserver.RestoredMember
	volume string
	member *testserver.Member
}

// podsSource is a backup of a cluster that is not there any more.
func podsSource(t *testing.T, program, version string) (repo string) {
	t.Helper()
	source := testserver.StartCluster(t, testserver.Options{Version: version, Size: 3})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 2000, ValueBytes: 2000, Seed: 5, Compact: true})
	repo = filepath.Join(t.TempDir(), "repo")
	for _, args := range [][]string{{"init"}, {"backup", "--endpoints", strings.Join(source.Endpoints(), ",")}} {
		cmd := exec.Command(program, append(args, "--repo=file://"+repo)...)
		cmd.Env = append(os.Environ(), "BACKUPD_SPOOL_MIN_FREE=0B", "BACKUPD_CLUSTER=prod")
		if args[0] == "init" {
			cmd.Env = append(os.Environ(), "BACKUPD_SPOOL_MIN_FREE=0B")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	for _, m := range source.Members {
		m.Kill()
	}
	return repo
}

// newStatefulSet makes the pods, and a plan for the first three.
func newStatefulSet(t *testing.T, program, repo, version string, secure bool) *statefulSet {
	t.Helper()
	s := &statefulSet{Cluster: testserver.NewPods(t, version, secure), program: program, dir: t.TempDir()}
	scheme := "http://"
	if secure {
		scheme = "https://"
		s.client = []string{"--cacert=" + s.CAFile, "--cert=" + s.CertFile, "--key=" + s.KeyFile}
		s.peer = []string{
			"--peer-trusted-ca-file=" + s.CAFile, "--peer-cert-file=" + s.CertFile, "--peer-key-file=" + s.KeyFile,
		}
	}
	url := func() string { return strings.Replace(testserver.FreeURL(t), "http://", scheme, 1) }
	s.repo, s.plan = filepath.Join(s.dir, "repo"), filepath.Join(s.dir, "plan.yaml")
	if err := os.CopyFS(s.repo, os.DirFS(repo)); err != nil {
		t.Fatal(err)
	}
	for n := range 5 {
		p := &pod{volume: filepath.Join(s.dir, fmt.Sprint("volume-", n)), RestoredMember: testserver.RestoredMember{
			Name: fmt.Sprint("etcd-", n), PeerURL: url(), ClientURL: url(),
		}}
		p.DataDir = filepath.Join(p.volume, "data")
		if err := os.Mkdir(p.volume, 0o700); err != nil {
			t.Fatal(err)
		}
		s.pods = append(s.pods, p)
	}
	s.initial = s.list(3)
	s.want(t, 0, "plan", "latest", "--output="+s.plan, "--repo=file://"+s.repo, "--cluster=prod",
		"--initial-cluster="+s.initial)
	began := time.Now()
	if out, code := s.run(0, s.init(s.pods[0], "--data-dir="+filepath.Join(t.TempDir(), "probe"))...); code != 0 {
		t.Fatalf("restore: %d\n%s", code, out)
	}
	s.usual = time.Since(began)
	return s
}

// list is the --initial-cluster of the first n pods.
func (s *statefulSet) list(n int) string {
	var out []string
	for _, p := range s.pods[:n] {
		out = append(out, p.Name+"="+p.PeerURL)
	}
	return strings.Join(out, ",")
}

// init is the command of the init container.
func (s *statefulSet) init(p *pod, more ...string) []string {
	args := []string{"restore", "--if-empty", "--require-this", "--plan=" + s.plan, "--name=" + p.Name}
	if len(more) == 0 || !strings.HasPrefix(more[0], "--data-dir") {
		args = append(args, "--data-dir="+p.DataDir)
	}
	return slices.Concat(args, s.peer, more)
}

// asClient is a command that asks the cluster.
func (s *statefulSet) asClient(args ...string) []string { return slices.Concat(args, s.client) }

// run runs the program, and kills it after some time, if that is not 0. The exit code is -1
// if it was killed.
func (s *statefulSet) run(limit time.Duration, args ...string) (out string, code int) {
	cmd := exec.Command(s.program, args...)
	cmd.Env = append(os.Environ(), "BACKUPD_SPOOL_MIN_FREE=0B")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with its children, as a container is
	var text strings.Builder
	cmd.Stdout, cmd.Stderr = &text, &text
	if err := cmd.Start(); err != nil {
		return err.Error(), -2
	}
	if limit > 0 {
		timer := time.AfterFunc(limit, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer timer.Stop()
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err.Error(), -2
	}
	return text.String(), cmd.ProcessState.ExitCode()
}

func (s *statefulSet) want(t *testing.T, code int, args ...string) string {
	t.Helper()
	out, got := s.run(0, args...)
	if got != code {
		t.Fatalf("%v: exit code %d, want %d\n%s", args, got, code, out)
	}
	return out
}

// start starts pods, all at once, in any order. Their init containers are killed some times at
// any moment, and are then left alone.
func (s *statefulSet) start(t *testing.T, kills int, pods ...*pod) {
	t.Helper()
	var all sync.WaitGroup
	shuffled := slices.Clone(pods)
	rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, p := range shuffled {
		all.Go(func() {
			time.Sleep(time.Duration(rand.Int64N(int64(s.usual))))
			s.startOne(t, kills, p)
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func (s *statefulSet) startOne(t *testing.T, kills int, p *pod) {
	hit := 0
	for range kills {
		out, code := s.run(1+time.Duration(rand.Int64N(int64(s.usual*5/4))), s.init(p)...)
		if code == -1 {
			hit++
		} else if code != 0 {
			t.Errorf("%s: exit code %d\n%s", p.Name, code, out)
			return
		}
	}
	if out, code := s.run(0, s.init(p)...); code != 0 {
		t.Errorf("%s: exit code %d\n%s", p.Name, code, out)
		return
	}
	s.launching.Lock()
	defer s.launching.Unlock()
	s.kills += hit
	s.launch(t, p)
}

// launch starts the container of etcd.
func (s *statefulSet) launch(t *testing.T, p *pod) {
	p.member = s.Launch(t, p.RestoredMember, "--initial-cluster="+s.initial, "--initial-cluster-state=existing",
		"--initial-cluster-token=etcd")
}

// end ends pods with SIGKILL.
func (s *statefulSet) end(pods ...*pod) {
	for _, p := range pods {
		p.member.Kill()
	}
}

// lose takes the volume of a pod that has ended, and gives it an empty one.
func (p *pod) lose(t *testing.T) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(p.volume), os.Mkdir(p.volume, 0o700)); err != nil {
		t.Fatal(err)
	}
}

// refused wants the init container of a pod to refuse with these words, and its volume to be as
// it was.
func (s *statefulSet) refused(t *testing.T, p *pod, words ...string) {
	t.Helper()
	out := s.want(t, 6, s.init(p)...)
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("%s is refused without the word %q:\n%s", p.Name, w, out)
		}
	}
	if left, err := os.ReadDir(p.volume); err != nil || len(left) > 0 {
		t.Errorf("in the volume of %s there is %v, %v", p.Name, left, err)
	}
}

// healthy wants these pods, and no others, to be one cluster, always the same one, with
// the same data, these keys and not those.
func (s *statefulSet) healthy(t *testing.T, pods []*pod, keys []string, without ...string) {
	t.Helper()
	s.WaitReady(t)
	client := s.Client(t)
	resp, err := client.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.id == 0 {
		s.id = resp.Header.ClusterId
	}
	if resp.Header.ClusterId != s.id || len(resp.Members) != len(pods) {
		t.Errorf("cluster %x of %d members, want %x of %d: %v", resp.Header.ClusterId, len(resp.Members), s.id, len(pods),
			resp.Members)
	}
	put, err := client.Put(t.Context(), "last", "write")
	if err != nil {
		t.Fatal(err)
	}
	hashes := map[uint32]bool{}
	for _, p := range pods {
		testserver.Eventually(t, p.Name+" answers HashKV", func() bool {
			h, err := client.HashKV(t.Context(), p.ClientURL, put.Header.Revision)
			if err == nil {
				hashes[h.Hash] = true
			}
			return err == nil
		})
		if left, err := os.ReadDir(p.volume); err != nil || len(left) != 1 || left[0].Name() != "data" {
			t.Errorf("in the volume of %s there is %v, %v", p.Name, left, err)
		}
	}
	if len(hashes) != 1 {
		t.Errorf("the members have the hashes %v", hashes)
	}
	for _, key := range append(slices.Clone(keys), without...) {
		resp, err := client.Get(t.Context(), key, clientv3.WithCountOnly())
		if err != nil || (resp.Count == 1) != slices.Contains(keys, key) {
			t.Errorf("key %s: %v, %v", key, resp, err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

func (s *statefulSet) put(t *testing.T, key string) {
	t.Helper()
	if _, err := s.Client(t).Put(t.Context(), key, key); err != nil {
		t.Fatal(err)
	}
}

// TestLongPods restores into a StatefulSet whose init containers are killed at any moment, and
// that is started again in any order, long after the repository is gone. What follows is
// another misfortune in each round.
func TestLongPods(t *testing.T) {
	program := replaceProgram(t)
	versions := []string{"3.5", "3.6", "3.7"}
	repos := map[string]string{}
	for _, version := range versions {
		repos[version] = podsSource(t, program, version)
	}
	misfortunes := []struct {
		name string
		run  func(*testing.T, *statefulSet)
	}{
		{"VolumeLost", podVolumeLost}, {"ScaledUp", podsScaledUp}, {"SnapshotPruned", podsPruned},
		{"AllLost", podsAllLost}, {"TwoLost", podsTwoLost},
	}
	kills := 0
	for n := range max(len(misfortunes), rounds.Of(len(misfortunes))) {
		what := misfortunes[n%len(misfortunes)]
		version := versions[n%3]
		t.Run(fmt.Sprintf("%d/%s/%s/Secure=%v", n, what.name, version, n%2 == 0), func(t *testing.T) {
			s := newStatefulSet(t, program, repos[version], version, n%2 == 0)
			three := s.pods[:3]
			s.firstStart(t, rand.IntN(2) == 0)
			s.secondStart(t)
			what.run(t, s)
			kills += s.kills
			s.end(three...)
		})
	}
	t.Logf("%d init containers were killed", kills)
}

// firstStart restores all pods; one of them may come late, when the others have gone on.
func (s *statefulSet) firstStart(t *testing.T, late bool) {
	t.Helper()
	three := slices.Clone(s.pods[:3])
	if late {
		rand.Shuffle(len(three), func(i, j int) { three[i], three[j] = three[j], three[i] })
		s.start(t, 10, three[:2]...)
		s.WaitReady(t)
		s.put(t, "early")
		s.want(t, 0, s.asClient("backup", "--repo=file://"+s.repo, "--cluster=prod",
			"--endpoints="+three[0].ClientURL)...)
		s.start(t, 10, three[2])
	} else {
		s.start(t, 10, three...)
		s.WaitReady(t)
		s.put(t, "early")
	}
	s.WaitReady(t)
	s.want(t, 0, s.asClient("verify-cluster", "--plan="+s.plan, "--wait=60s",
		"--endpoints="+strings.Join(s.Endpoints(), ","))...)
	s.healthy(t, three, []string{"early"})
}

// secondStart starts all pods again, without the repository.
func (s *statefulSet) secondStart(t *testing.T) {
	t.Helper()
	three := s.pods[:3]
	s.put(t, "after")
	if err := os.Rename(s.repo, s.repo+".gone"); err != nil {
		t.Fatal(err)
	}
	s.end(three...)
	s.start(t, 3, three...)
	s.healthy(t, three, []string{"early", "after"})
	if err := os.Rename(s.repo+".gone", s.repo); err != nil {
		t.Fatal(err)
	}
}

// podVolumeLost: the cluster runs, and one member has lost its data. It is replaced, and then its
// pod starts by itself.
func podVolumeLost(t *testing.T, s *statefulSet) {
	lost := s.pods[rand.IntN(3)]
	s.end(lost)
	lost.lose(t)
	s.refused(t, lost, "has taken part in the new cluster", "backupd member replace --name="+lost.Name)
	byHand := slices.DeleteFunc(s.init(lost), func(arg string) bool {
		return arg == "--if-empty" || arg == "--require-this"
	})
	if out := s.want(t, 6, byHand...); !strings.Contains(out, "has taken part in the new cluster") {
		t.Errorf("by hand it is refused otherwise:\n%s", out)
	}
	var others []string
	for _, p := range s.pods[:3] {
		if p != lost {
			others = append(others, p.ClientURL)
		}
	}
	var replaced sync.WaitGroup
	replaced.Go(func() {
		out, code := s.run(0, s.asClient("member", "replace", "--name="+lost.Name,
			"--data-dir="+filepath.Join(t.TempDir(), "none"), "--endpoints="+strings.Join(others, ","))...)
		if code != 0 {
			t.Errorf("member replace: exit code %d\n%s", code, out)
		}
	})
	testserver.Eventually(t, "the pod may start", func() bool { // the kubelet tries again and again
		out, code := s.run(0, s.init(lost)...)
		if code == 0 && !strings.Contains(out, "has added "+lost.Name+" anew") {
			t.Errorf("%s: %s", lost.Name, out)
		}
		return code == 0
	})
	s.launch(t, lost)
	replaced.Wait()
	s.healthy(t, s.pods[:3], []string{"early", "after"})
	s.end(s.pods[:3]...)
	s.start(t, 1, s.pods[:3]...)
	s.healthy(t, s.pods[:3], []string{"early", "after"})
}

// podsScaledUp: two more pods join by etcd's own means.
func podsScaledUp(t *testing.T, s *statefulSet) {
	for n := 3; n < 5; n++ {
		p := s.pods[n]
		if out := s.want(t, 0, s.init(p)...); !strings.Contains(out, "joins by etcd's own means") {
			t.Errorf("%s: %s", p.Name, out)
		}
		client := s.Client(t)
		testserver.Eventually(t, "a member is added", func() bool {
			_, err := client.MemberAdd(t.Context(), []string{p.PeerURL})
			return err == nil
		})
		s.initial = s.list(n + 1)
		s.launch(t, p)
		s.healthy(t, s.pods[:n+1], []string{"early", "after"})
	}
	s.end(s.pods...)
	s.start(t, 1, s.pods...)
	s.healthy(t, s.pods, []string{"early", "after"})
	s.end(s.pods[3:]...)
}

// podsPruned: the snapshot of the plan is gone for good, and only who needs it misses it.
func podsPruned(t *testing.T, s *statefulSet) {
	three := s.pods[:3]
	gone, err := filepath.Glob(filepath.Join(s.repo, "prod", "*"))
	if err != nil || len(gone) == 0 {
		t.Fatalf("the repository has %v, %v", gone, err)
	}
	for _, path := range gone {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	s.end(three...)
	s.start(t, 3, three...)
	s.healthy(t, three, []string{"early", "after"})
	s.end(three...)
	three[0].lose(t)
	s.want(t, 5, s.init(three[0])...)
	s.start(t, 0, three[1:]...)
	testserver.Eventually(t, "the others answer", func() bool {
		_, code := s.run(0, s.init(three[0], "--dry-run")...)
		return code == 6
	})
	s.refused(t, three[0], "backupd member replace --name=etcd-0")
}

// podsAllLost: the cluster was backed up since, so its plan is not the newest that there is.
func podsAllLost(t *testing.T, s *statefulSet) {
	three := s.pods[:3]
	s.want(t, 0, s.asClient("backup", "--repo=file://"+s.repo, "--cluster=prod",
		"--endpoints="+strings.Join(s.Endpoints(), ","))...)
	s.end(three...)
	for _, p := range three {
		p.lose(t)
	}
	for _, p := range three {
		s.refused(t, p, "has backups of the cluster of this restore", "backupd plan latest", "--allow-again")
	}
	for _, p := range three {
		s.want(t, 0, s.init(p, "--allow-again")...)
	}
	s.start(t, 1, three...)
	s.healthy(t, three, nil, "early", "after")
}

// podsTwoLost: one member alone has the data. It has no quorum, and no other may take its
// place.
func podsTwoLost(t *testing.T, s *statefulSet) {
	three := slices.Clone(s.pods[:3])
	rand.Shuffle(len(three), func(i, j int) { three[i], three[j] = three[j], three[i] })
	s.end(three...)
	s.start(t, 0, three[0])
	for _, p := range three[1:] {
		p.lose(t)
	}
	for _, p := range three[1:] {
		testserver.Eventually(t, "the survivor answers", func() bool {
			out, code := s.run(0, s.init(p, "--dry-run")...)
			return code == 6 && strings.Contains(out, "taken part")
		})
		s.refused(t, p, "has taken part in the new cluster")
	}
}
