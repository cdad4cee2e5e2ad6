//go:build machine

package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_Dashboard asks a real Prometheus, which scrapes a real daemon, every query
// of the dashboard, and every expression of the alert rules.
func TestMachine_Dashboard(t *testing.T) {
	prometheus := testserver.Tool(t, "prometheus", "prometheus")
	real := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 20})
	dir := t.TempDir()
	server, listen := testserver.FreeURL(t), testserver.FreeURL(t)
	rules, err := filepath.Abs("../../deploy/prometheus/backupd.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tls := testserver.StartCluster(t, testserver.Options{TLS: true}) // for a certificate whose expiry is watched
	write(t, filepath.Join(dir, "backupd.yaml"), fmt.Sprintf(`repositories:
  local: {url: "file://%[1]s/repository"}
clusters:
  - name: prod
    endpoints: [%[2]s]
    snapshot: {schedule: "@every 1s"}
    verify: {schedule: "@every 2s"}
    retention: {keep-last: 2}
  - name: secure
    endpoints: [%[3]s]
    tls: {ca-file: %[4]s, cert-file: %[5]s, key-file: %[6]s}
    snapshot: {schedule: "@every 1s"}
daemon:
  server: {listen: "%[7]s"}
  spool: {max-bytes: 1GiB, min-free: 0B}
  notifications:
    - {on: [success], command: {program: /bin/true}}
`, dir, real.Endpoints()[0], tls.Endpoints()[0], tls.CAFile, tls.CertFile, tls.KeyFile,
		strings.TrimPrefix(server, "http://")))
	write(t, filepath.Join(dir, "prometheus.yml"), fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: backupd
    static_configs: [{targets: [%q]}]
`, rules, strings.TrimPrefix(server, "http://")))
	newCLI(t).run(t, "init", "--repo", "file://"+dir+"/repository")
	background(t, newCLI(t).env, binary, "run", "--config", filepath.Join(dir, "backupd.yaml"))
	background(t, os.Environ(), prometheus, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "tsdb"),
		"--web.listen-address="+strings.TrimPrefix(listen, "http://"))

	p := promQL{listen}
	waitFor(t, "scrapes after a pruned backup and a verification", func() bool {
		return len(p.try("backupd_last_prune_timestamp_seconds")) > 0 &&
			len(p.try("backupd_last_verification_successful")) > 0 &&
			len(p.try("increase(backupd_backups_total[1m])")) > 0 && len(p.try("backupd_notifications_total")) > 0
	})
	// These metrics appear only in trouble.
	mayBeEmpty := regexp.MustCompile(`ALERTS|errors_total|deriv|repository_created_total`)
	for _, q := range dashboardQueries(t) {
		got, err := p.ask(q)
		if err != nil {
			t.Errorf("%s: %v", q, err)
		} else if len(got) == 0 && !mayBeEmpty.MatchString(q) {
			t.Errorf("%s: no answer", q)
		}
	}
	loaded := decode[struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}](t, p.get("/api/v1/rules"))
	n := 0
	for _, g := range loaded.Data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health == "err" {
				t.Errorf("rule %s: %s", r.Name, r.LastError)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d alert rules are loaded", n)
	}
}

// dashboardQueries returns what the panels ask, as Grafana would send it.
func dashboardQueries(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/grafana/backupd.json")
	if err != nil {
		t.Fatal(err)
	}
	type panel struct {
		Targets []struct{ Expr string }
		Panels  []json.RawMessage
	}
	var queries []string
	var walk func(raw json.RawMessage)
	walk = func(raw json.RawMessage) {
		p := decode[panel](t, string(raw))
		for _, target := range p.Targets {
			queries = append(queries, strings.NewReplacer("$repository", ".*", "$cluster", ".*", "$__rate_interval", "1m",
				"$__interval", "15s").Replace(target.Expr))
		}
		for _, below := range p.Panels {
			walk(below)
		}
	}
	walk(raw)
	if len(queries) < 20 || slices.Contains(queries, "") {
		t.Fatalf("found %d queries: %q", len(queries), queries)
	}
	return queries
}

// promQL is the API of a Prometheus.
type promQL struct{ url string }

func (p promQL) get(path string) string {
	resp, err := http.Get(p.url + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(raw)
}

func (p promQL) ask(query string) ([]any, error) {
	var out struct {
		Status, Error string
		Data          struct{ Result []any }
	}
	raw := p.get("/api/v1/query?query=" + url.QueryEscape(query))
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		return nil, fmt.Errorf("answer %q: %w", raw, err)
	}
	if out.Status != "success" {
		return nil, fmt.Errorf("%s", out.Error)
	}
	return out.Data.Result, nil
}

func (p promQL) try(query string) []any {
	got, err := p.ask(query)
	if err != nil {
		return nil
	}
	return got
}

// background runs a program until the test is over, and shows what it said if
// the test failed.
func background(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text := out.String(); t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), text[max(0, len(text)-3000):])
		}
	})
}
