package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// Levels of findings.
const (
	ok      = backup.LevelOK
	warning = backup.LevelWarning
	failure = backup.LevelFailure
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	goleak.VerifyTestMain(m)
}

// load parses a configuration. A % in it stands for a fresh folder.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	text = strings.ReplaceAll(text, "%", t.TempDir())
	conf, err := config.Parse("backupd.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

// forCluster is a configuration of one cluster of real or fake members.
func forCluster(t *testing.T, endpoints []string, more string) *config.Config {
	t.Helper()
	return load(t, fmt.Sprintf(`
repositories: {main: {url: 'file://%%/repo'}}
clusters:
- name: prod
  endpoints: [%s]
  snapshot: {schedule: '@hourly', request-timeout: 20s}
  retention: {keep-hourly: 24}
%s
daemon:
  server: {listen: 127.0.0.1:0}
  spool: {folder: %%, min-free: 0B}
`, strings.Join(endpoints, ", "), indent(more)))
}

func indent(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		out.WriteString("  " + line)
	}
	return out.String()
}

// tlsOf is the part of a configuration that meets a cluster with TLS.
func tlsOf(ca, cert, key string) string {
	var parts []string
	for _, p := range [][2]string{{"ca-file", ca}, {"cert-file", cert}, {"key-file", key}} {
		if p[1] != "" {
			parts = append(parts, p[0]+": "+p[1])
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "tls: {" + strings.Join(parts, ", ") + "}\n"
}

func run(t *testing.T, conf *config.Config) []backup.Finding {
	t.Helper()
	return check.Run(t.Context(), conf, check.Options{})
}

// spell writes findings as a person would read them.
func spell(findings []backup.Finding) string {
	var out strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&out, "%s: %s: %s: %s -> %s\n", f.Section, f.Subject, f.Level, f.Text, f.Hint)
	}
	return out.String()
}

// want requires a finding of that section and level whose text or hint has part.
func want(t *testing.T, findings []backup.Finding, section string, level backup.Level, part string) {
	t.Helper()
	for _, f := range findings {
		if f.Section == section && f.Level == level && strings.Contains(f.Text+" -> "+f.Hint, part) {
			return
		}
	}
	t.Errorf("no %s of %s that says %q in:\n%s", level, section, part, spell(findings))
}

// wantNone requires that nothing in a section is worse than ok, or than what is
// allowed.
func wantNone(t *testing.T, findings []backup.Finding, section string, worst backup.Level) {
	t.Helper()
	for _, f := range findings {
		if f.Section == section && (f.Level == failure || f.Level == warning && worst == ok) {
			t.Errorf("unexpected: %s", spell([]backup.Finding{f}))
		}
	}
}

// writeFile makes a file with a secret in it.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
