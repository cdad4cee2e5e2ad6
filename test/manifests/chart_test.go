package manifests

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"sigs.k8s.io/yaml"
)

const chartDir = deploy + "/charts/backupd"

// TestChartRefuses: values that cannot work are refused before anything is installed.
func TestChartRefuses(t *testing.T) {
	good := read(t, chartDir+"/ci/minimal-values.yaml")
	for _, tt := range []struct{ name, values, want string }{
		{"no values", "", "config.clusters is empty"},
		{"no repository", "config: {clusters: [{name: a}]}", "config.repositories is empty"},
		{"unknown key", good + "\nreplicas: 2\n", "replicas"},
		{"unknown key below", good + "\nimage: {tga: v1}\n", "tga"},
		{"unknown part of the configuration", good + "\nmode: cronjob\nconfig: {cluster: []}\n", "cluster"},
		{"mode", good + "\nmode: deamon\n", "mode"},
		{"latest", good + "\nimage: {tag: latest}\n", "tag"},
		{"digest", good + "\nimage: {digest: 0123}\n", "digest"},
		{"number for text", good + "\nspool: {size: 20}\n", "size"},
		{"no size", good + "\nspool: {size: 20GB}\n", "size"},
		{"cluster that is no name of a volume", good + "\netcd: {existingSecrets: {Prod_1: a}}\n", "Prod_1"},
		{"claim without use", good + "\nspool: {persistent: false, existingClaim: a}\n", "spool.existingClaim is only for"},
		{"claim in another mode", good + "\nmode: cronjob\nspool: {existingClaim: a}\n", "spool.existingClaim is only for"},
		{"no Secret", good + "\nconfig: " + withSecrets("certs"),
			`"certs" in companions.secrets: want NAMESPACE/NAME`},
		{"Secrets beside etcd", good + "\nmode: sidecar\nconfig: " + withSecrets("prod/certs"),
			"not for mode sidecar"},
		{"port of the API", good + "\ncompanions: {apiServerPorts: [0]}\n", "apiServerPorts"},
		{"port", good + "\nnetworkPolicy: {egressPorts: [70000]}\n", "egressPorts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The later of two equal keys counts here.
			var values map[string]any
			if err := yaml.Unmarshal([]byte(dedupe(tt.values)), &values); err != nil {
				t.Fatal(err)
			}
			_, err := renderChart(values)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// withSecrets is a configuration that names a Secret.
func withSecrets(name string) string {
	return "{repositories: {main: {url: s3://example-backups/etcd}}, clusters: [{name: a, " +
		"endpoints: [http://etcd:2379], " +
		"companions: {secrets: [" + name + "]}}]}\n"
}

// dedupe drops a top-level block that a later one of the same key replaces.
func dedupe(text string) string {
	blocks := map[string]string{}
	key := ""
	for line := range strings.Lines(text) {
		if k, _, ok := strings.Cut(line, ":"); ok && !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "#") {
			key = k
			blocks[key] = ""
		}
		blocks[key] += line
	}
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(blocks)) {
		out.WriteString(blocks[k])
	}
	return out.String()
}

// TestValuesAreDescribed: each value has a comment, and the schema knows it.
func TestValuesAreDescribed(t *testing.T) {
	text := read(t, chartDir+"/values.yaml")
	var above, section string
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		key, value, isKey := strings.Cut(trimmed, ":")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case strings.HasPrefix(trimmed, "#"):
			above += trimmed
			continue
		case indent == 0 && isKey:
			section = key
		}
		// Inside of config and resources one comment is for all.
		leaf := isKey && strings.TrimSpace(value) != ""
		if leaf && indent <= 2 && section != "resources" && !strings.HasPrefix(above, "# -- ") &&
			!strings.Contains(above, "# -- ") {
			t.Errorf("values.yaml: %s %s has no comment", section, key)
		}
		if trimmed != "" {
			above = ""
		}
	}

	var schema map[string]any
	if err := json.Unmarshal([]byte(read(t, chartDir+"/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	values, err := common.ReadValues([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	compareKeys(t, "", schema, values)
}

// compareKeys wants the schema to know exactly the keys there are.
func compareKeys(t *testing.T, path string, schema, values map[string]any) {
	t.Helper()
	properties, ok := schema["properties"].(map[string]any)
	if !ok || path == ".config.daemon" {
		return // anything goes
	}
	for key, value := range values {
		below, ok := properties[key].(map[string]any)
		if !ok {
			t.Errorf("values.schema.json does not know %s.%s", path, key)
			continue
		}
		if object, ok := value.(map[string]any); ok {
			compareKeys(t, path+"."+key, below, object)
		}
	}
	for key := range properties {
		if _, ok := values[key]; !ok && key != "global" {
			t.Errorf("values.yaml does not have %s.%s", path, key)
		}
	}
}

// TestChartAndOverlaysAgree: the containers of both are the same but for names.
func TestChartAndOverlaysAgree(t *testing.T) {
	container := func(s set) map[string]any {
		for _, p := range pods(s.objects(t)) {
			if p.test {
				continue
			}
			c := p.backupd(t)
			raw, err := json.Marshal(map[string]any{"image": c.Image, "args": c.Args, "ports": c.Ports,
				"liveness":  c.LivenessProbe,
				"readiness": c.ReadinessProbe, "message": c.TerminationMessagePolicy, "restart": c.RestartPolicy})
			if err != nil {
				t.Fatal(err)
			}
			var out map[string]any
			if err := json.Unmarshal(raw, &out); err != nil {
				t.Fatal(err)
			}
			return out
		}
		t.Fatalf("%s: no pod", s.name)
		return nil
	}
	for _, mode := range overlays {
		values := mode
		if mode == "daemon" {
			values = "minimal"
		}
		a, b := container(overlay(t, mode)), container(chartSet(t,
			filepath.Join(chartDir, "ci", values+"-values.yaml")))
		for key := range a {
			x, _ := json.Marshal(a[key])
			y, _ := json.Marshal(b[key])
			if string(x) != string(y) {
				t.Errorf("%s: %s is %s in the overlay and %s in the chart", mode, key, x, y)
			}
		}
	}
}

// TestNotes: they name the commands for the worst day.
func TestNotes(t *testing.T) {
	for _, s := range sets(t) {
		if s.chart && (!strings.Contains(s.notes, "backupd restore --repo s3://example-") ||
			strings.Contains(s.notes, "<no value>")) {
			t.Errorf("%s: the notes show no restore:\n%s", s.name, s.notes)
		}
	}
}
