package manifests

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A panel has queries at targets[].expr, and a row that is folded has panels.
type panel struct {
	ID      int    `json:"id"`
	Title   string `json:"title"`
	Type    string `json:"type"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		Expr         string          `json:"expr"`
		LegendFormat string          `json:"legendFormat"`
		Datasource   json.RawMessage `json:"datasource"`
	} `json:"targets"`
	Panels []panel `json:"panels"`
}

type dashboard struct {
	UID        string
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name  string          `json:"name"`
			Type  string          `json:"type"`
			Query json.RawMessage `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

func loadDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, deploy+"/grafana/backupd.json")), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries returns every query of the dashboard, by the title of its panel, with
// Grafana's own variables replaced.
func queries(d dashboard) map[string][]string {
	fill := strings.NewReplacer("$repository", ".*", "$cluster", ".*", "$__rate_interval", "5m")
	out := map[string][]string{}
	var walk func([]panel)
	walk = func(panels []panel) {
		for _, p := range panels {
			for _, target := range p.Targets {
				out[p.Title] = append(out[p.Title], fill.Replace(target.Expr))
			}
			walk(p.Panels)
		}
	}
	walk(d.Panels)
	return out
}

// TestDashboardQueries has promtool parse every query, as rules that record it.
func TestDashboardQueries(t *testing.T) {
	var file strings.Builder
	file.WriteString("groups:\n  - name: dashboard\n    rules:\n")
	known, n := metrics(t), 0
	for title, list := range queries(loadDashboard(t)) {
		for _, q := range list {
			n++
			file.WriteString("      - {record: 'dashboard:query" + strconv.Itoa(n) + "', expr: " + strconv.Quote(q) +
				"}\n")
			if strings.Contains(q, "$") {
				t.Errorf("%s: a variable is not known: %s", title, q)
			}
			for _, name := range metricName.FindAllString(q, -1) {
				if !known[name] {
					t.Errorf("%s looks at %s, which the daemon does not have", title, name)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("%d queries found, want more than 30", n)
	}
	path := filepath.Join(t.TempDir(), "rules.yaml")
	write(t, path, []byte(file.String()))
	if out, err := run(t, tool(t, "promtool", "prometheus"), "check", "rules", path); err != nil {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

// TestDashboardShowsEveryMetric: what is measured is seen, too.
func TestDashboardShowsEveryMetric(t *testing.T) {
	shown := map[string]bool{
		// How a backup goes on is seen from what came of it.
		"backupd_last_attempt_timestamp_seconds":      true,
		"backupd_last_verification_timestamp_seconds": true,
	}
	for _, list := range queries(loadDashboard(t)) {
		for _, q := range list {
			for _, name := range metricName.FindAllString(q, -1) {
				shown[name] = true
			}
		}
	}
	for name := range metrics(t) {
		if !shown[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

var grouping = regexp.MustCompile(`\bby \(([^)]*)\)`)

// TestDashboardTellsRepositoriesApart: a cluster that two repositories keep has two
// rows and two lines, and each of the choices narrows them down.
func TestDashboardTellsRepositoriesApart(t *testing.T) {
	var walk func([]panel)
	walk = func(panels []panel) {
		for _, p := range panels {
			for _, q := range p.Targets {
				if n := strings.Count(q.Expr, `cluster=~"$cluster"`); n != strings.Count(q.Expr,
					`{repository=~"$repository", cluster=~"$cluster"}`) {
					t.Errorf("%s does not choose by the repository: %s", p.Title, q.Expr)
				}
				for _, by := range grouping.FindAllStringSubmatch(q.Expr, -1) {
					if labels := strings.Split(by[1], ", "); slices.Contains(labels, "cluster") &&
						!slices.Contains(labels, "repository") {
						t.Errorf("%s puts repositories together: %s", p.Title, q.Expr)
					}
				}
				if strings.Contains(q.LegendFormat, "{{cluster}}") && !strings.Contains(q.LegendFormat, "{{repository}}") {
					t.Errorf("%s does not name the repository: %s", p.Title, q.LegendFormat)
				}
			}
			walk(p.Panels)
		}
	}
	walk(loadDashboard(t).Panels)
}

func TestDashboardLayout(t *testing.T) {
	d := loadDashboard(t)
	if d.UID != "backupd" {
		t.Errorf("uid %q: links to the dashboard break", d.UID)
	}
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				if other, ok := taken[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("panel %q lies over %q or beyond the edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			if !strings.Contains(string(target.Datasource), `"${datasource}"`) {
				t.Errorf("panel %q asks %s and not the data source that is chosen", p.Title, target.Datasource)
			}
		}
	}
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		want := map[string]string{
			"repository": `label_values(backupd_cluster_info, repository)`,
			"cluster":    `label_values(backupd_cluster_info{repository=~\"$repository\"}, cluster)`, // as JSON
		}[v.Name]
		if !strings.Contains(string(v.Query), want) {
			t.Errorf("variable %s asks %s", v.Name, v.Query)
		}
	}
	if strings.Join(names, " ") != "datasource repository cluster" {
		t.Errorf("variables %q", names)
	}
}
