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

var overlays = []string{"cronjob", "daemon", "kubeadm", "sidecar"}

// set is everything that one overlay, or the chart with one file of values, makes.
type set struct {
	name      string
	chart     bool
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
	}
	files, err := filepath.Glob(filepath.Join(deploy, "charts/backupd/ci/*-values.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("values of the chart: %q, %v", files, err)
	}
	for _, file := range files {
		all = append(all, chartSet(t, file))
	}
	return all
}

func overlay(t *testing.T, name string) set {
	t.Helper()
	dir := filepath.Join(deploy, "kustomize/overlays", name)
	out, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		t.Fatalf("build overlay %s: %v", name, err)
	}
	raw, err := out.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	namespace := "backupd"
	if name == "sidecar" {
		namespace = "etcd"
	}
	return set{name: "overlay " + name, mode: name, namespace: namespace, docs: documents(t, raw)}
}

func chartSet(t *testing.T, file string) set {
	t.Helper()
	values, err := common.ReadValuesFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := set{name: "chart " + filepath.Base(file), chart: true, mode: "daemon", namespace: "backups"}
	if mode, ok := values["mode"].(string); ok {
		s.mode = mode
	}
	rendered, err := renderChart(values)
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
	if s.mode == "sidecar" {
		s.docs = append(s.docs, sidecar(t, s.notes))
	}
	return s
}

// sidecar makes a pod from the container in the notes.
func sidecar(t *testing.T, notes string) []byte {
	t.Helper()
	_, snippet, ok := strings.Cut(notes, "\ninitContainers:\n")
	snippet, _, found := strings.Cut(snippet, "\nRestore on the day")
	if !ok || !found {
		t.Fatalf("the notes show no container:\n%s", notes)
	}
	var doc strings.Builder
	doc.WriteString("apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, labels: {app: etcd}}\nspec:\n" +
		"  serviceAccountName: backupd\n  automountServiceAccountToken: false\n  containers: []\n  initContainers:\n")
	for line := range strings.Lines(snippet) {
		doc.WriteString("  " + line)
	}
	return []byte(doc.String())
}

// renderChart does what "helm template" does: values.schema.json is applied.
func renderChart(values map[string]any) (map[string]string, error) {
	chart, err := loader.Load(filepath.Join(deploy, "charts/backupd"))
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: "backupd", Namespace: "backups", Revision: 1, IsInstall: true}
	merged, err := util.ToRenderValues(chart, values, options, common.DefaultCapabilities)
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
