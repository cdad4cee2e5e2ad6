package manifests

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

const deploy = "../../deploy"

var overlays = []string{"cronjob", "daemon", "kubeadm", "sidecar", "sidecar-restore"}

// set is everything that one overlay, or the chart with one file of values, makes.
type set struct {
	name      string
	chart     bool
	file      string // of the chart's values
	operator  bool   // an overlay with the line for the Prometheus operator
	secrets   bool   // its pods read Secrets as their account
	mode      string // as the overlays are called
	namespace string
	docs      [][]byte
	notes     string // of a chart
}

// sets renders everything there is.
func sets(t *testing.T) []set {
	t.Helper()
	var all []set
	for _, name := range overlays {
		all = append(all, overlay(t, name))
		if name != "cronjob" { // which serves no metrics
			all = append(all, overlayWithOperator(t, name))
		}
		if strings.Contains("cronjob daemon kubeadm", name) { // whose account is its own
			all = append(all, overlayWithSecrets(t, name))
		}
	}
	for _, file := range chartValues(t) {
		all = append(all, chartSet(t, file))
	}
	return all
}

// chartValues are the files of values that the chart is tried with.
func chartValues(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "ci/*-values.yaml"))
	if err != nil || len(files) < 6 {
		t.Fatalf("values of the chart: %q, %v", files, err)
	}
	return files
}

func overlay(t *testing.T, name string) set {
	t.Helper()
	return kustomize(t, name, filepath.Join(deploy, "kustomize/overlays", name))
}

// overlayWithOperator is an overlay with the one line of the page that switches on
// what needs the Prometheus operator.
func overlayWithOperator(t *testing.T, name string) set {
	t.Helper()
	s := overlayWith(t, name, "components: [../deploy/kustomize/components/prometheus-operator]\n")
	s.name, s.operator = s.name+" with the operator", true
	return s
}

// overlayWith is an overlay with one line of the page below it.
func overlayWith(t *testing.T, name, line string) set {
	t.Helper()
	if !strings.Contains(read(t, filepath.Join(docs, "kubernetes.md")), "\n"+line) {
		t.Fatalf("the page does not show %q", line)
	}
	dir := t.TempDir()
	to, err := filepath.Abs(deploy)
	if err != nil {
		t.Fatal(err)
	}
	// kustomize takes no absolute path.
	up, err := filepath.Rel(dir, to)
	if err != nil {
		t.Fatal(err)
	}
	namespace := namespaceOf(name)
	write(t, filepath.Join(dir, "kustomization.yaml"), []byte(strings.ReplaceAll(
		"namespace: "+namespace+"\nresources: [../deploy/kustomize/overlays/"+name+"]\n"+line, "../deploy", up)))
	return kustomize(t, name, dir)
}

// overlayWithSecrets is an overlay with the line of the page that lets backupd read Secrets.
func overlayWithSecrets(t *testing.T, name string) set {
	t.Helper()
	s := overlayWith(t, name, "components: [../deploy/kustomize/components/companion-secrets]\n")
	s.name, s.secrets = s.name+" with Secrets", true
	return s
}

func namespaceOf(overlay string) string {
	if strings.HasPrefix(overlay, "sidecar") {
		return "etcd"
	}
	return "backupd"
}

func kustomize(t *testing.T, name, dir string) set {
	t.Helper()
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("build overlay %s: %v", name, err)
	}
	raw, err := out.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	s := set{name: "overlay " + name, mode: strings.TrimSuffix(name, "-restore"), namespace: namespaceOf(name),
		docs: documents(t, raw)}
	if s.mode != name { // what the overlay does not make
		s.docs = append(s.docs, documents(t, []byte("apiVersion: v1\nkind: ConfigMap\n"+
			"metadata: {name: backupd-plan, namespace: etcd}\n"))...)
	}
	return s
}

func chartSet(t *testing.T, file string, apis ...string) set {
	t.Helper()
	values, err := common.ReadValuesFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := set{name: "chart " + filepath.Base(file), chart: true, file: file, mode: "daemon",
		namespace: "backups"}
	if mode, ok := values["mode"].(string); ok {
		s.mode = mode
	}
	s.secrets = strings.HasSuffix(file, "daemon-values.yaml")
	rendered, err := renderChart(values, apis...)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		if strings.HasSuffix(name, "NOTES.txt") {
			s.notes = rendered[name]
		} else if !strings.HasPrefix(filepath.Base(name), "_") {
			s.docs = append(s.docs, documents(t, []byte(rendered[name]))...)
		}
	}
	s.docs = append(s.docs, s.given(t)...)
	return s
}

// given is what a chart needs to be there already.
func (s set) given(t *testing.T) [][]byte {
	t.Helper()
	var docs string
	if s.mode == "sidecar" {
		docs = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: etcd}\n---\n" + sidecar(t, s.notes)
	}
	if strings.HasSuffix(s.name, "quiet-values.yaml") {
		docs = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a-claim-of-ours}\n" +
			"spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 5Gi}}}\n"
	}
	return documents(t, []byte(docs))
}

// sidecar makes a pod from the container in the notes.
func sidecar(t *testing.T, notes string) string {
	t.Helper()
	_, snippet, ok := strings.Cut(notes, "\ninitContainers:\n")
	snippet, _, found := strings.Cut(snippet, "\nAn identity of the pod")
	if !ok || !found {
		t.Fatalf("the notes show no container:\n%s", notes)
	}
	var doc strings.Builder
	doc.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, labels: {app: etcd}}\nspec:\n" +
		"  serviceAccountName: etcd\n  automountServiceAccountToken: false\n  containers: []\n  initContainers:\n")
	snippet, _, _ = strings.Cut(snippet, "\n\nThe container \"restore\"")
	for line := range strings.Lines(snippet) {
		doc.WriteString("  " + line)
	}
	if strings.Contains(snippet, "{name: data, ") { // the volume of etcd
		doc.WriteString("\n    - {name: data, emptyDir: {sizeLimit: 1Gi}}\n")
	}
	return doc.String()
}

// renderChart does what "helm template" does: values.schema.json is applied. The
// cluster knows these APIs, too.
func renderChart(values map[string]any, apis ...string) (map[string]string, error) {
	chart, err := loader.Load(chartDir)
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: "backupd", Namespace: "backups", Revision: 1, IsInstall: true}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.APIVersions = append(capabilities.APIVersions, apis...)
	merged, err := util.ToRenderValues(chart, values, options, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.RenderWithContext(context.Background(), chart, merged)
}

// documents splits a stream of YAML; those with nothing in them are left out.
func documents(t *testing.T, raw []byte) [][]byte {
	t.Helper()
	var out [][]byte
	reader := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(raw)))
	defer reader.Close()
	buffer := make([]byte, 1<<20)
	for {
		n, err := reader.Read(buffer)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("split documents: %v", err)
		}
		doc := bytes.Clone(buffer[:n])
		if len(bytes.TrimSpace(stripComments(doc))) > 0 {
			out = append(out, doc)
		}
	}
}

func stripComments(doc []byte) []byte {
	var kept [][]byte
	for line := range bytes.Lines(doc) {
		if trimmed := bytes.TrimSpace(line); !bytes.HasPrefix(trimmed, []byte("#")) && string(trimmed) != "---" {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept, nil)
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
