package manifests

import (
	"encoding/json"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the copies of the alert rules")

const rulesFile = deploy + "/prometheus/backupd.rules.yaml"

func rules(t *testing.T) []monitoring.Rule {
	t.Helper()
	var spec monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(read(t, rulesFile)), &spec); err != nil {
		t.Fatal(err)
	}
	var out []monitoring.Rule
	for _, g := range spec.Groups {
		out = append(out, g.Rules...)
	}
	return out
}

// alerts are the rules that are no recordings.
func alerts(t *testing.T) []monitoring.Rule {
	t.Helper()
	return slices.DeleteFunc(rules(t), func(r monitoring.Rule) bool { return r.Alert == "" })
}

func TestPromtool(t *testing.T) {
	promtool := tool(t, "promtool", "prometheus")
	if out, err := run(t, promtool, "check", "rules", rulesFile); err != nil {
		t.Errorf("check rules: %v\n%s", err, out)
	}
	out, err := run(t, promtool, append([]string{"test", "rules"}, ruleTests(t)...)...)
	if err != nil {
		t.Errorf("test rules: %v\n%s", err, out)
	}
}

func ruleTests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(deploy + "/prometheus/*.test.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("files of tests: %q, %v", files, err)
	}
	return files
}

// TestEveryAlertIsTested wants each alert quiet, then firing, then quiet.
func TestEveryAlertIsTested(t *testing.T) {
	type test struct {
		Name           string `json:"name"`
		AlertRuleTests []struct {
			Alertname string            `json:"alertname"`
			ExpAlerts []json.RawMessage `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	}
	seen := map[string]string{} // alert to its states in order: q quiet, f firing
	for _, file := range ruleTests(t) {
		var content struct {
			Tests []test `json:"tests"`
		}
		if err := yaml.Unmarshal([]byte(read(t, file)), &content); err != nil {
			t.Fatal(err)
		}
		for _, tt := range content.Tests {
			for _, at := range tt.AlertRuleTests {
				state := "q"
				if len(at.ExpAlerts) > 0 {
					state = "f"
				}
				seen[at.Alertname] += state
			}
		}
	}
	lived := regexp.MustCompile(`qf+q`)
	for _, r := range alerts(t) {
		if !lived.MatchString(seen[r.Alert]) {
			t.Errorf("%s is tested as %q: want it quiet, firing and quiet again", r.Alert, seen[r.Alert])
		}
	}
}

func TestAlertsAreExplained(t *testing.T) {
	runbook := read(t, "../../docs/runbooks/alerts.md")
	const page = "https://github.com/etcd-backupd/backupd/blob/main/docs/runbooks/alerts.md#"
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(runbook, -1) {
		headings[m[1]] = true
	}
	for _, r := range alerts(t) {
		if s := r.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s has severity %q", r.Alert, s)
		}
		for _, a := range []string{"summary", "description"} {
			if r.Annotations[a] == "" {
				t.Errorf("%s has no %s", r.Alert, a)
			}
		}
		if got, want := r.Annotations["runbook_url"], page+strings.ToLower(r.Alert); got != want {
			t.Errorf("%s: runbook %s, want %s", r.Alert, got, want)
		}
		if !headings[r.Alert] {
			t.Errorf("docs/runbooks/alerts.md has no heading %s", r.Alert)
		}
	}
	for name := range headings {
		if !slices.ContainsFunc(alerts(t), func(r monitoring.Rule) bool { return r.Alert == name }) {
			t.Errorf("docs/runbooks/alerts.md explains %s, which is no alert", name)
		}
	}
}

// TestCopiesOfTheRules: neither kustomize nor Helm reads files outside of their
// folders. "go test -count=1 -run TestCopiesOfTheRules -update" writes the copies.
func TestCopiesOfTheRules(t *testing.T) {
	source := read(t, rulesFile)
	object := strings.Builder{}
	object.WriteString("# The alerts of deploy/prometheus for the Prometheus operator; made from there by\n" +
		"# go -C test/manifests test -count=1 -run TestCopiesOfTheRules -update\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: backupd\n" +
		"  labels:\n    app.kubernetes.io/name: backupd\nspec:\n")
	for line := range strings.Lines(source) {
		if line != "\n" {
			line = "  " + line
		}
		object.WriteString(line)
	}
	for file, want := range map[string]string{
		deploy + "/charts/backupd/files/backupd.rules.yaml":                   source,
		deploy + "/kustomize/components/prometheus-rule/prometheus-rule.yaml": object.String(),
	} {
		if *update {
			if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := read(t, file); got != want {
			t.Errorf("%s is not as %s says: run this test with -update", file, rulesFile)
		}
	}
	want := rules(t)
	for _, s := range sets(t) {
		for _, r := range of[*monitoring.PrometheusRule](s.objects(t)) {
			got, err := json.Marshal(r.Spec.Groups[0].Rules)
			if err != nil {
				t.Fatal(err)
			}
			if raw, _ := json.Marshal(want); string(got) != string(raw) {
				t.Errorf("%s: its rules are others than in %s", s.name, rulesFile)
			}
		}
	}
}

var metricName = regexp.MustCompile(`\bbackupd_[a-z_]+`)

// metrics returns the names of all metrics, as the sources spell them.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	literal := regexp.MustCompile(`"(backupd_[a-z_]+)"`)
	err := filepath.WalkDir("../../internal", func(file string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return err
		}
		for _, m := range literal.FindAllStringSubmatch(read(t, file), -1) {
			out[m[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 25 {
		t.Fatalf("the daemon has the metrics %q only", slices.Sorted(maps.Keys(out)))
	}
	return out
}

func TestRulesUseMetricsOfTheDaemon(t *testing.T) {
	known := metrics(t)
	for _, r := range rules(t) {
		used := metricName.FindAllString(r.Expr.String(), -1)
		if len(used) == 0 {
			t.Errorf("%s looks at no metric of ours", r.Alert)
		}
		for _, name := range used {
			if !known[name] {
				t.Errorf("%s looks at %s, which the daemon does not have", r.Alert, name)
			}
		}
	}
}
