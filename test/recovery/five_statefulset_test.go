//go:build long

package recovery_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

const statefulSetManifest = `apiVersion: v1
kind: Service
metadata:
  name: etcd
  namespace: storage
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: etcd}
  ports:
  - {name: client, port: 2379}
  - {name: peer, port: 2380}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: etcd
  namespace: storage
spec:
  serviceName: etcd
  replicas: 3
  selector:
    matchLabels: {app: etcd}
  template:
    metadata:
      labels: {app: etcd}
    spec:
      securityContext: {runAsUser: UID, runAsGroup: GID}
      containers:
      - name: etcd
        image: quay.io/coreos/etcd:v3.6.4
        env:
        - name: NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        - name: SET_NAME
          value: etcd
        - name: INITIAL_CLUSTER_SIZE
          value: "3"
        volumeMounts:
        - name: data
          mountPath: MOUNT
        command:
        - /bin/sh
        - -ec
        - |
          HOSTNAME=$(hostname)
          PEERS=etcd-0=http://etcd-0.etcd.${NAMESPACE}:2380,etcd-1=http://etcd-1.etcd.${NAMESPACE}:2380
          PEERS=$PEERS,etcd-2=http://etcd-2.etcd.${NAMESPACE}:2380
          # A pod above the initial size has been added to the cluster, and joins it.
          if [ -f MOUNT/join ]; then
            exec etcd --name ${HOSTNAME} --data-dir MOUNT/default.etcd \
              --listen-peer-urls http://0.0.0.0:2380 --listen-client-urls http://0.0.0.0:2379 \
              --advertise-client-urls http://${HOSTNAME}.${SET_NAME}.${NAMESPACE}:2379 \
              --initial-advertise-peer-urls http://${HOSTNAME}.${SET_NAME}.${NAMESPACE}:2380 \
              --initial-cluster-state existing --initial-cluster "$(cat MOUNT/join)"
          fi
          exec etcd --name ${HOSTNAME} --data-dir MOUNT/default.etcd \
            --listen-peer-urls http://0.0.0.0:2380 --listen-client-urls http://0.0.0.0:2379 \
            --advertise-client-urls http://${HOSTNAME}.${SET_NAME}.${NAMESPACE}:2379 \
            --initial-advertise-peer-urls http://${HOSTNAME}.${SET_NAME}.${NAMESPACE}:2380 \
            --initial-cluster-token etcd-cluster-1 --initial-cluster ${PEERS} --initial-cluster-state new
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      resources: {requests: {storage: 1Gi}}
`

// podSpec is what of a set the kubelet needs here.
type podSpec struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Replicas int
		Template struct {
			Spec struct {
				SecurityContext struct {
					RunAsUser int `yaml:"runAsUser"`
				} `yaml:"securityContext"`
				Containers []struct {
					Command []string
					Env     []struct {
						Name, Value string
						ValueFrom   struct {
							FieldRef struct {
								FieldPath string `yaml:"fieldPath"`
							} `yaml:"fieldRef"`
						} `yaml:"valueFrom"`
					}
					VolumeMounts []struct {
						Name      string
						MountPath string `yaml:"mountPath"`
					} `yaml:"volumeMounts"`
				}
			}
		}
	}
}

// pods is a StatefulSet and the nodes that run it: the n-th pod has an address of its own, and a
// claim that is a folder. Names of the headless service are known to a proxy for HTTP.
type pods struct {
	*site
	set   podSpec
	bin   string // etcd and hostname
	proxy string
}

func newPods(t *testing.T, s *site, manifest string) *pods {
	t.Helper()
	p := &pods{site: s}
	raw, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(raw), "\n---\n") {
		var of podSpec
		if err := yaml.Unmarshal([]byte(doc), &of); err != nil {
			t.Fatal(err)
		}
		if of.Kind == "StatefulSet" {
			p.set = of
		}
	}
	s.install(t, 0, "bin/etcd")
	p.bin = filepath.Dir(s.writeFile(t, s.path(0, "bin/hostname"), "#!/bin/sh\necho $POD_OF_TEST\n", 0o755))
	service := "." + p.set.Metadata.Name + "." + p.set.Metadata.Namespace + ":2380"
	quiet := log.New(io.Discard, "", 0)
	proxy := httptest.NewServer(&httputil.ReverseProxy{FlushInterval: -1, ErrorLog: quiet, Rewrite: func(
		r *httputil.ProxyRequest,
	) {
		var n int
		_, _ = fmt.Sscanf(r.In.URL.Host, p.set.Metadata.Name+"-%d"+service, &n)
		r.SetURL(&url.URL{Scheme: "http", Host: s.addr(n+1) + ":2380"})
		r.Out.URL.Path, r.Out.URL.RawQuery = r.In.URL.Path, r.In.URL.RawQuery
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }})
	t.Cleanup(proxy.CloseClientConnections)
	p.proxy = proxy.URL
	return p
}

func (p *pods) name(n int) string { return fmt.Sprintf("%s-%d", p.set.Metadata.Name, n) }

// claim is where the data of a pod is on its node.
func (p *pods) claim(n int) string {
	return p.path(n, "var/lib/kubelet/"+p.set.Spec.Template.Spec.Containers[0].VolumeMounts[0].Name+"-"+p.name(n))
}

// start runs one pod.
func (p *pods) start(t *testing.T, n int) *process {
	t.Helper()
	spec := p.set.Spec.Template.Spec
	c := spec.Containers[0]
	if err := os.MkdirAll(p.claim(n), 0o755); err != nil {
		t.Fatal(err)
	}
	p.giveAway(t, p.claim(n))
	env := []string{"POD_OF_TEST=" + p.name(n), "HTTP_PROXY=" + p.proxy, "PATH=" + p.bin + ":/usr/bin:/bin"}
	for _, v := range c.Env {
		switch v.ValueFrom.FieldRef.FieldPath {
		case "":
		case "metadata.namespace":
			v.Value = p.set.Metadata.Namespace
		default:
			t.Fatalf("fieldRef %s", v.ValueFrom.FieldRef.FieldPath)
		}
		env = append(env, v.Name+"="+v.Value)
	}
	var args []string
	for _, w := range c.Command { // the mount, and the network of the pod
		args = append(args, strings.NewReplacer(c.VolumeMounts[0].MountPath, p.claim(n), "0.0.0.0", p.addr(n+1)).Replace(w))
	}
	return p.site.start(t, args, env, "/", fmt.Sprint(spec.SecurityContext.RunAsUser))
}

func (p *pods) endpoint(n int) string { return "http://" + p.addr(n+1) + ":2379" }

func (p *pods) endpoints(size int) (out []string) {
	for n := range size {
		out = append(out, p.endpoint(n))
	}
	return out
}

// run starts the first pods of the set.
func (p *pods) run(t *testing.T, user string, size int) (ps []*process) {
	t.Helper()
	for n := range size {
		ps = append(ps, p.start(t, n))
	}
	p.ready(t, user, ps, p.endpoints(size)...)
	return ps
}

// TestLongFive_StatefulSet: a set of three that was scaled to five is restored with five members,
// and with three.
func TestLongFive_StatefulSet(t *testing.T) {
	s := newSite(t, "3.6")
	id := credential(t, s.user)
	manifest := s.write(t, 0, "git/etcd.yaml", strings.NewReplacer("UID", fmt.Sprint(id.uid), "GID", fmt.Sprint(id.gid),
		"MOUNT", s.path(9, "data")).Replace(statefulSetManifest))
	p := newPods(t, s, manifest)
	ps := p.run(t, "", p.set.Spec.Replicas)
	c := s.client(t, "", p.endpoints(3)...)
	s.fill(t, c)
	for _, do := range []func() error{
		func() error { _, err := c.UserAdd(t.Context(), "root", "secret"); return err },
		func() error { _, err := c.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := c.AuthEnable(t.Context()); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	const root = "root:secret"
	for n := 3; n < 5; n++ {
		ps = append(ps, p.join(t, s.client(t, root, p.endpoints(3)...), n))
		s.ready(t, root, ps, p.endpoint(n))
	}
	before := s.read(t, root, p.endpoints(5)...)
	s.backup(t, "--endpoints="+strings.Join(p.endpoints(5), ","), "--user="+root)
	for n, proc := range ps {
		proc.kill()
		destroy(t, filepath.Join(p.claim(n), "default.etcd"))
	}
	// On another host than the pod's nobody can know where the claim is.
	s.want(t, 78, s.typedRestore(manifest, "etcd-0"), "etcd.yaml:41: ", `is in the volume "data-etcd-0"`,
		"run this in a pod that mounts the volume data-etcd-0 at "+s.path(9, "data"))

	// In a pod that has the claim at its place: it is the operator who knows how many there are.
	a := p.inPod(t, 0, 6, s.typedRestore(manifest, "etcd-0"), "the snapshot has etcd-0=",
		"etcd.yaml:42 has etcd-0=", "to restore the 5 members of the snapshot", "to restore the 3 members of the files")
	five, three := a.command(t, "--members=snapshot"), a.command(t, "--members=files")

	a = p.inPod(t, 0, 0, five, "Restored member etcd-0 to "+s.path(9, "data/default.etcd"),
		"let the StatefulSet have 5 replicas before its pods start: the file has 3")
	for n := 1; n < 5; n++ {
		words := []string{"Restored member " + p.name(n)}
		if n > 2 {
			words = append(words, p.name(n)+" is above the 3 replicas of the file: the set must have ")
		}
		p.inPod(t, n, 0, a.command(t, "--name="+p.name(n)), words...)
	}
	ps = p.run(t, root, 5)
	same(t, before, s.read(t, root, p.endpoints(5)...), true)

	for n, proc := range ps {
		proc.kill()
		destroy(t, filepath.Join(p.claim(n), "default.etcd"))
	}
	a = p.inPod(t, 0, 6, three, "was begun")
	a = p.inPod(t, 0, 0, a.command(t, "--new"), "Restored member etcd-0",
		"not restored, as --members=files says: etcd-3, etcd-4 of the snapshot; start 3 pods")
	p.inPod(t, 1, 0, a.command(t, "--name=etcd-1"), "Restored member etcd-1")
	p.inPod(t, 2, 0, a.command(t, "--name=etcd-2"), "Restored member etcd-2")
	p.run(t, root, 3)
	for n := 3; n < 5; n++ {
		delete(before.Members, p.name(n))
	}
	same(t, before, s.read(t, root, p.endpoints(3)...), true)
}

// inPod runs backupd where the claim of a pod is mounted, with the names of mounts of the pod.
func (p *pods) inPod(t *testing.T, n, code int, args []string, words ...string) answer {
	t.Helper()
	mount := p.set.Spec.Template.Spec.Containers[0].VolumeMounts[0].MountPath
	script := fmt.Sprintf("mkdir -p %[2]s && mount --bind %[1]s %[2]s && exec \"$@\"", p.claim(n), mount)
	by := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		by = append(by, "--map-root-user")
	}
	return p.wantBy(t, []string{"KUBERNETES_SERVICE_HOST=10.0.0.1"}, append(by, "sh", "-c", script, "sh", p.program), code,
		args, words...)
}

// join adds a member, and starts its pod as what adds it does.
func (p *pods) join(t *testing.T, c *clientv3.Client, n int) *process {
	t.Helper()
	peer := fmt.Sprintf("http://%s.%s.%s:2380", p.name(n), p.set.Metadata.Name, p.set.Metadata.Namespace)
	var added *clientv3.MemberAddResponse
	var err error
	if !testserver.Eventually(t, "the cluster takes a member", func() bool {
		added, err = c.MemberAdd(t.Context(), []string{peer})
		return err == nil
	}) {
		t.Fatal(err)
	}
	var list []string
	for _, m := range added.Members {
		name := m.Name
		if m.ID == added.Member.ID {
			name = p.name(n)
		}
		list = append(list, name+"="+m.PeerURLs[0])
	}
	s := p.writeFile(t, filepath.Join(p.claim(n), "join"), strings.Join(list, ","), 0o644)
	p.giveAway(t, s)
	return p.start(t, n)
}
