package manifests

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// kube is a real API server with an etcd behind it, and the clients that people use.
type kube struct {
	bin, home, config string
	etcd              *testserver.Cluster // behind it
}

func startKube(t *testing.T) kube {
	t.Helper()
	etcd := testserver.StartCluster(t, testserver.Options{})
	server := testserver.StartAPIServer(t, etcd)
	k := kube{bin: t.TempDir(), home: t.TempDir(), config: server.Kubeconfig, etcd: etcd}
	out, err := exec.CommandContext(t.Context(), "go", "tool", "-n", "helm").Output()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	for name, program := range map[string]string{"kubectl": server.Kubectl, "helm": strings.TrimSpace(string(out))} {
		if err := os.Symlink(program, filepath.Join(k.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func (k kube) env() []string {
	return []string{
		"PATH=" + k.bin + ":/usr/bin:/bin", "KUBECONFIG=" + k.config, "HOME=" + k.home,
	}
}

// try runs kubectl or helm.
func (k kube) try(t *testing.T, stdin []byte, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(k.bin, program), args...)
	cmd.Env, cmd.Stdin = k.env(), bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run wants no complaint, either: with a warning the API server says that a field is
// unknown or deprecated, or that a pod is not as restricted as its namespace asks.
func (k kube) run(t *testing.T, stdin []byte, program string, args ...string) string {
	t.Helper()
	out, err := k.try(t, stdin, program, args...)
	if err != nil || strings.Contains(out, "Warning:") {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

func (k kube) kubectl(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	return k.run(t, stdin, "kubectl", args...)
}

// apply has the server judge the documents as a dry run, and then keep them.
func (k kube) apply(t *testing.T, namespace string, docs [][]byte) {
	t.Helper()
	for _, dry := range []string{"server", "none"} {
		k.kubectl(t, join(docs), "apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run="+dry,
			"--namespace="+namespace, "-f", "-")
	}
}

func (k kube) remove(t *testing.T, namespace string, docs [][]byte) {
	t.Helper()
	if len(docs) > 0 {
		k.kubectl(t, join(docs), "delete", "--namespace="+namespace, "--timeout=30s", "-f", "-")
	}
}

// makePods makes the pods of the templates in a set, and deletes them: there are no
// controllers that would, and only a pod itself is refused for what it may not do.
func (k kube) makePods(t *testing.T, s set) {
	t.Helper()
	var made [][]byte
	for _, p := range pods(s.objects(t)) {
		one := &core.Pod{
			TypeMeta:   meta.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: meta.ObjectMeta{GenerateName: "made-", Namespace: s.namespace, Labels: p.labels},
			Spec:       p.spec,
		}
		for _, claim := range p.claims {
			one.Spec.Volumes = append(one.Spec.Volumes, core.Volume{Name: claim.Name, VolumeSource: core.VolumeSource{
				PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-0"},
			}})
		}
		if len(one.Spec.Containers) == 0 { // backupd is a sidecar of this
			etcd := p.backupd(t)
			etcd.Name, etcd.RestartPolicy, etcd.LivenessProbe, etcd.Ports = "etcd", nil, nil, nil
			one.Spec.Containers = []core.Container{etcd}
		}
		raw, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, raw)
	}
	if len(made) == 0 {
		t.Fatalf("%s makes no pod", s.name)
	}
	k.kubectl(t, join(made), "create", "--validate=strict", "-f", "-")
	k.kubectl(t, nil, "delete", "pods", "--all", "--namespace="+s.namespace, "--timeout=30s")
}

func join(docs [][]byte) []byte { return bytes.Join(docs, []byte("\n---\n")) }

// operator teaches the server the kinds of the Prometheus operator.
func (k kube) operator(t *testing.T) {
	t.Helper()
	const module = "github.com/prometheus-operator/prometheus-operator"
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = "../servers/prometheus-operator"
	out, err := cmd.Output()
	var found struct{ Dir string }
	if err := json.Unmarshal(out, &found); err != nil || found.Dir == "" {
		t.Fatalf("download %s: %v\n%s", module, err, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"podmonitors", "prometheusrules"} {
		k.kubectl(t, nil, "apply", "--server-side", "-f",
			filepath.Join(found.Dir, "example/prometheus-operator-crd/monitoring.coreos.com_"+kind+".yaml"))
		k.kubectl(t, nil, "wait", "--for=condition=established", "--timeout=60s", "crd/"+kind+".monitoring.coreos.com")
	}
}

// get reads an object from the server.
func get[T runtime.Object](t *testing.T, k kube, namespace, kind, name string, into T) T {
	t.Helper()
	if err := json.Unmarshal([]byte(k.kubectl(t, nil, "get", kind, name, "--namespace="+namespace, "-o", "json")),
		into); err != nil {
		t.Fatal(err)
	}
	return into
}
