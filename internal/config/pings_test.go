package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/etcd-backupd/backupd/internal/config"
)

// TestSharedPing: two clusters must not share a ping URL, whichever file or key holds
// it. No message shows it.
func TestSharedPing(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"x": "https://h.example/Hunter2\n", "same": " https://H.example/Hunter2/\n",
		"port": "https://h.example:8443/Hunter2", "case": "https://h.example/hunter2", "bad": "hunter2",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	shared := func(place, other string) string {
		return fmt.Sprintf("daemon.notifications[1].healthchecks.%s: the clusters x and y have the same ping URL (the one "+
			"in daemon.notifications[0].healthchecks.%s), which stays green while one of them is backed up: give each "+
			"cluster a notification of its own, with clusters: [NAME] and another URL", place, other)
	}
	for name, tt := range map[string]struct {
		x, y string
		want []string
	}{
		"two files": {"url-file: DIR/x", "url-file: DIR/same", []string{shared("url-file", "url-file")}},
		"a file and a URL": {"url-file: DIR/x", "url: 'https://H.example/Hunter2/'",
			[]string{shared("url", "url-file")}},
		"a URL and a file": {"url: 'https://h.example/Hunter2'", "url-file: DIR/same",
			[]string{shared("url-file", "url")}},
		"other URLs":           {"url-file: DIR/x", "url-file: DIR/case", nil},
		"another port":         {"url-file: DIR/x", "url-file: DIR/port", nil},
		"a file that is away":  {"url-file: DIR/x", "url-file: DIR/gone", []string{"no such file"}},
		"a file without a URL": {"url-file: DIR/bad", "url-file: DIR/x", []string{"want a URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := placed("  a: {url: 'file://DIR/repository'}\n", "x y", "DIR/spool") + "  notifications:\n" +
				"  - {clusters: [x], healthchecks: {" + tt.x + "}}\n  - {clusters: [y], healthchecks: {" + tt.y + "}}\n"
			path := filepath.Join(dir, "backupd.yaml")
			write(t, path, strings.ReplaceAll(text, "DIR", dir))
			conf, err := config.Load(path)
			if err != nil {
				t.Fatal(err)
			}
			problems := conf.CheckFiles()
			within := cmp.Comparer(func(a, b string) bool { return strings.Contains(a, b) || strings.Contains(b, a) })
			if diff := cmp.Diff(tt.want, first(problems), within, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if strings.Contains(strings.ToLower(fmt.Sprint(problems)), "hunter2") {
				t.Errorf("the URL is shown: %v", problems)
			}
		})
	}
}
