package manifests

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// controlPlane is a cluster as kubeadm makes it: three hosts with an etcd each, which kubelets
// start from manifests, and an API server before all of them.
type controlPlane struct {
	hosts []*host
	etcd  *testserver.Cluster // where it answers; nobody but the kubelets starts it
	views *views
	dir   string // where the operator works
	env   []string
}

// host is one of the control plane, with a root of its own.
type host struct {
	name, root string
	client     string // the URL
	peer       string
	kubelet    *kubelet
}

func (h *host) folder() string   { return filepath.Join(h.root, "etc/kubernetes/manifests") }
func (h *host) manifest() string { return filepath.Join(h.folder(), "etcd.yaml") }
func (h *host) aside() string    { return h.folder() + ".stopped/etcd.yaml" }
func (h *host) data() string     { return filepath.Join(h.root, "var/lib/etcd") }

// staticPod is the manifest as kubeadm writes it for a host that joins, but for the certificates.
const staticPod = `apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: CLIENT
  labels:
    component: etcd
    tier: control-plane
  name: etcd
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=CLIENT
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=PEER
    - --initial-cluster=MEMBERS
    - --initial-cluster-state=STATE
    - --listen-client-urls=CLIENT
    - --listen-peer-urls=PEER
    - --name=NAME
    - --snapshot-count=10000
    - --unsafe-no-fsync
    image: registry.k8s.io/etcd:3.6.8-0
    imagePullPolicy: IfNotPresent
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
  hostNetwork: true
  priority: 2000001000
  priorityClassName: system-node-critical
  volumes:
  - hostPath:
      path: ROOT/var/lib/etcd
      type: DirectoryOrCreate
    name: etcd-data
status: {}
`

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	c := &controlPlane{dir: t.TempDir(), etcd: &testserver.Cluster{Version: "3.6"}}
	c.env = append(os.Environ(), "BACKUPD_SPOOL_MIN_FREE=0B", "BACKUPD_CLUSTER=prod",
		"BACKUPD_REPO=file://"+filepath.Join(c.dir, "repo"), "PATH="+filepath.Dir(backupd(t))+":"+os.Getenv("PATH"))
	for i := range 3 {
		c.join(t, &host{
			name: fmt.Sprintf("cp-%d", i+1), root: t.TempDir(),
			client: testserver.FreeURL(t), peer: testserver.FreeURL(t),
		})
	}
	c.views = newViews(t, testserver.StartAPIServer(t, c.etcd), c.etcd.Client(t))
	return c
}

// join has a host join as kubeadm does it: its manifest names the members of that moment, and
// stays as it is when others come.
func (c *controlPlane) join(t *testing.T, h *host) {
	t.Helper()
	c.hosts = append(c.hosts, h)
	var learner uint64
	state := "new"
	if len(c.hosts) > 1 {
		client := c.etcd.Client(t)
		testserver.Eventually(t, "add "+h.name, func() bool {
			resp, err := client.MemberAddAsLearner(t.Context(), []string{h.peer})
			if err == nil {
				learner = resp.Member.ID
			}
			return err == nil
		})
		state = "existing"
		defer testserver.Eventually(t, "promote "+h.name, func() bool {
			_, err := client.MemberPromote(t.Context(), learner)
			return err == nil
		})
	}
	for _, dir := range []string{h.folder(), filepath.Dir(h.aside())} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var members []string
	for _, other := range c.hosts {
		members = append(members, other.name+"="+other.peer)
	}
	text := strings.NewReplacer("CLIENT", h.client, "PEER", h.peer, "MEMBERS", strings.Join(members, ","),
		"STATE", state, "NAME", h.name, "ROOT", h.root).Replace(staticPod)
	if err := os.WriteFile(h.manifest(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.boot(t)
	c.etcd.Members = append(c.etcd.Members, &testserver.Member{Name: h.name, ClientURL: h.client, PeerURL: h.peer})
}

// boot starts the kubelet of the host.
func (h *host) boot(t *testing.T) {
	t.Helper()
	h.kubelet = startKubelet(t, h.folder(), filepath.Join(h.root, "etcd.log"))
	t.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(h.root, "etcd.log")); t.Failed() && err == nil {
			t.Logf("the end of the log of %s:\n%s", h.name, log[max(0, len(log)-1500):])
		}
	})
}

// answers reports whether something listens at any of etcd's ports.
func (h *host) answers(t *testing.T) bool {
	t.Helper()
	for _, raw := range []string{h.client, h.peer} {
		at, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if conn, err := net.DialTimeout("tcp", at.Host, time.Second); err == nil {
			_ = conn.Close()
			return true
		}
	}
	return false
}

// sh runs commands of the operator, who sits in a folder that has to do with none of the hosts.
func (c *controlPlane) sh(t *testing.T, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Env, cmd.Dir = c.env, c.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}

func (c *controlPlane) endpoints() string { return strings.Join(c.etcd.Endpoints(), ",") }

// destroy takes the power from all hosts, and their disks.
func (c *controlPlane) destroy(t *testing.T) {
	t.Helper()
	for _, h := range c.hosts {
		h.kubelet.powerCut()
		if err := os.RemoveAll(h.data()); err != nil {
			t.Fatal(err)
		}
	}
}

// recover does what the printed runbook says: the manifests go, the members are restored, and the
// manifests come back. Only the API server is not stopped.
func (c *controlPlane) recover(t *testing.T) {
	t.Helper()
	book := c.sh(t, "backupd runbook --plan plan.yaml")
	for _, h := range c.hosts {
		c.sh(t, h.commands(t, book, "## 1. Stop everything"))
		h.boot(t)
		if _, err := os.Stat(h.manifest()); err == nil || h.answers(t) {
			t.Fatalf("%s is not stopped: %v\n%s", h.name, err, book)
		}
	}
	for _, h := range c.hosts {
		out := c.sh(t, h.commands(t, book, "## 2. Restore each member"))
		if _, err := os.Stat(filepath.Join(h.data(), "member")); err != nil {
			t.Fatalf("restored elsewhere: %v\n%s", err, out)
		}
	}
	for _, h := range c.hosts {
		c.sh(t, h.commands(t, book, "## 3. Start all members"))
	}
	c.sh(t, "backupd verify-cluster --plan plan.yaml --wait 2m --endpoints "+c.endpoints())
}

// commands returns those of a step of the runbook for this host, as they are with its own root and
// for who runs the test, who is root there.
func (h *host) commands(t *testing.T, book, step string) string {
	t.Helper()
	_, text, _ := strings.Cut(book, "\n"+step)
	text, _, _ = strings.Cut(text, "\n## ")
	_, text, _ = strings.Cut(text, "\n### "+h.name+" ")
	text, _, _ = strings.Cut(text, "\n### ")
	var blocks []string
	for _, block := range strings.Split(text, "\n```sh\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		t.Fatalf("the step %q has no commands for %s:\n%s", step, h.name, book)
	}
	return strings.NewReplacer("/etc/kubernetes/manifests", h.folder(), "backupd restore ",
		fmt.Sprintf("backupd restore --chown %d:%d ", os.Getuid(), os.Getgid())).Replace(strings.Join(blocks, "\n"))
}

// restart has every etcd end and start again as the operator of a kubeadm cluster does it.
func (c *controlPlane) restart(t *testing.T) {
	t.Helper()
	for _, h := range c.hosts {
		c.sh(t, "mv "+h.manifest()+" "+h.aside())
		testserver.Eventually(t, h.name+" ends", func() bool { return !h.answers(t) })
		c.sh(t, "mv "+h.aside()+" "+h.manifest())
		client := c.etcd.Client(t)
		testserver.Eventually(t, h.name+" is back", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			st, err := client.Status(ctx, h.client)
			return err == nil && st.Leader != 0 && len(st.Errors) == 0
		})
	}
}

// lost is how many objects come after the snapshot: the API server writes some revisions by
// itself in the time of the test, which must not make up for them.
const lost = 200

// TestRecovery has an API server go on, which is never restarted, through the loss of every etcd
// and the restore of an older snapshot. With the bump that is the default all that it answers,
// and all that its clients hold, is what etcd holds. Without a bump it is not, and there is no
// error anywhere: so this test can fail, and the bump is needed.
func TestRecovery(t *testing.T) {
	t.Run("Bump", func(t *testing.T) {
		c, snapshot := loseEverything(t, "")
		v, began := c.views, time.Now()
		v.agree(t, "after the restore")
		t.Logf("all agree %v after the cluster was verified", time.Since(began).Round(100*time.Millisecond))
		if got := v.etcd(t); !got.has(snapshot) || got.count("lost-") > 0 {
			t.Errorf("etcd has not what was backed up: %s", snapshot.difference(got))
		}
		v.create(t, "new", 20)
		v.remove(t, "kept", 0, 20)
		v.change(t, "kept", 50, 60)
		v.agree(t, "after new writes")
		c.restart(t)
		v.create(t, "newer", 5)
		v.agree(t, "after restarts of every etcd")
		got := v.etcd(t)
		if n := []int{got.count("new-"), got.count("newer-"), got.count("kept-")}; !slices.Equal(n, []int{20, 5, 130}) {
			t.Errorf("etcd has %d new, newer, and kept objects", n)
		}
	})
	t.Run("NoBump", func(t *testing.T) {
		c, _ := loseEverything(t, "--bump-revision=0")
		c.views.hasGoneWrong(t)
	})
}

// loseEverything destroys a cluster that was changed after its backup, and restores it. It
// returns what was backed up.
func loseEverything(t *testing.T, bump string) (*controlPlane, view) {
	t.Helper()
	c := startControlPlane(t)
	v := c.views
	v.create(t, "kept", 150)
	v.agree(t, "before the backup")
	from := ""
	for _, h := range c.hosts {
		from += " --from " + h.manifest()
	}
	c.sh(t, "backupd init; backupd backup --endpoints "+c.endpoints())
	// The manifests have the members of the day when each host joined.
	c.sh(t, "backupd plan latest --output plan.yaml --members snapshot "+bump+from)
	snapshot := v.etcd(t)
	v.create(t, "lost", lost)
	v.remove(t, "kept", 10, 40)
	v.change(t, "kept", 100, 120)
	v.agree(t, "before the disaster")
	c.destroy(t)
	c.recover(t)
	return c, snapshot
}
