package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/server/callers"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// someClusters is a daemon that guards clusters in whatever state.
type someClusters struct {
	server.Backend
	clusters []server.Cluster
	jobs     []server.Job
}

func (s someClusters) Clusters() []server.Cluster                  { return s.clusters }
func (s someClusters) Jobs() []server.Job                          { return s.jobs }
func (s someClusters) Subscribe(context.Context, func(server.Job)) {}

// startServer runs the daemon's HTTP side until the test is over and returns
// its address.
func startServer(t *testing.T, o server.Options) string {
	t.Helper()
	o.Listen, o.Metrics = "127.0.0.1:0", http.NotFoundHandler()
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.Addr().String()
}

func backupd(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func well(name string) server.Cluster {
	now := time.Now()
	return server.Cluster{Name: name, Repository: "main", Schedule: "@hourly", State: server.ClusterOK,
		LastSuccess: now.Add(-72*time.Hour - time.Minute), NextRun: now.Add(96*time.Hour + time.Minute)}
}

func TestStatus_AllOK(t *testing.T) {
	addr := startServer(t, server.Options{
		Backend: someClusters{clusters: []server.Cluster{well("b"), well("a-long-name")}},
	})
	code, stdout, stderr := backupd("status", "--server", "http://"+addr)
	want := "CLUSTER      STATE  LAST BACKUP  NEXT RUN  RUNNING\n" +
		"a-long-name  ok     3d ago       in 4d     -\n" +
		"b            ok     3d ago       in 4d     -\n"
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit code %d\n%s%s", code, cmp.Diff(want, stdout), stderr)
	}
}

// TestStatus_Paused: a pause is told, and is no failure.
func TestStatus_Paused(t *testing.T) {
	c := well("prod")
	c.Pause = &server.Pause{Until: time.Date(2026, 12, 1, 18, 0, 0, 0, time.UTC), Reason: "an upgrade", By: "root@host"}
	addr := startServer(t, server.Options{Backend: someClusters{clusters: []server.Cluster{c}}})
	code, stdout, stderr := backupd("status", "--server", "http://"+addr)
	want := "CLUSTER  STATE  LAST BACKUP  NEXT RUN  RUNNING\n" +
		"prod     ok     3d ago       in 4d     -\n" +
		"  paused:  until 2026-12-01T18:00:00Z by root@host: an upgrade\n"
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit code %d\n%s%s", code, cmp.Diff(want, stdout), stderr)
	}
	code, stdout, _ = backupd("status", "--server", "http://"+addr, "-w", "table")
	if code != 0 || !strings.Contains(stdout, "│ until 2026-12-01T18:00:00Z by root@host: an upgrade │") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	code, stdout, _ = backupd("status", "--server", "http://"+addr, "-w", "json")
	if code != 0 || !strings.Contains(stdout, `"pause":{"until":"2026-12-01T18:00:00Z","reason":"an upgrade","by":"r`) {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
}

func TestStatus_NotOK(t *testing.T) {
	bad, slow := well("zoo"), well("middle")
	bad.State, bad.LastSuccess, bad.NextRun = server.ClusterFailure, time.Time{}, time.Now().Add(-time.Minute)
	bad.Problem, bad.Hint = "no member can serve a snapshot:\nm1 is a learner", "check its endpoints"
	slow.State, slow.Problem, slow.NextRun = server.ClusterWarning, "a certificate expires in 3 days", time.Time{}
	o := server.Options{Backend: someClusters{
		clusters: []server.Cluster{well("first"), slow, bad},
		jobs: []server.Job{
			{ID: "1", Kind: "backup", Repository: "main", Cluster: "zoo", State: server.JobFailed},
			{ID: "2", Kind: "backup", Repository: "main", Cluster: "middle", State: server.JobRunning, Stage: "store",
				Done: 30, Total: 120},
			{ID: "3", Kind: "prune", Repository: "main", Cluster: "middle", State: server.JobRunning},
		},
	}}
	addr := startServer(t, o)
	code, stdout, stderr := backupd("status", "--server", "http://"+addr+"/")
	want := `CLUSTER  STATE    LAST BACKUP  NEXT RUN  RUNNING
zoo      failure  never        due       -
  problem: no member can serve a snapshot:
           m1 is a learner
  hint:    check its endpoints
middle   warning  3d ago       -         backup: store 25%, prune
  problem: a certificate expires in 3 days
first    ok       3d ago       in 4d     -
`
	if code != 3 || stdout != want || !strings.Contains(stderr, "2 of 3 clusters need attention") {
		t.Errorf("exit code %d\n%s%s", code, cmp.Diff(want, stdout), stderr)
	}
	code, stdout, _ = backupd("status", "--server", "http://"+addr, "-w", "table")
	if code != 3 || !strings.Contains(stdout, "│ check its endpoints │") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	code, stdout, _ = backupd("status", "--server", "http://"+addr, "-w", "json")
	var doc struct {
		Kind string
		status
	}
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || code != 3 {
		t.Fatalf("exit code %d, %v:\n%s", code, err, stdout)
	}
	if doc.Kind != kindStatus || len(doc.Clusters) != 3 || doc.Clusters[0].Hint != "check its endpoints" ||
		len(doc.Jobs) != 2 {
		t.Errorf("document %+v", doc)
	}
}

// TestStatus_Repositories: a cluster that two repositories keep has two rows, which
// say of which they are.
func TestStatus_Repositories(t *testing.T) {
	far := well("prod")
	far.Repository, far.NextRun = "far", time.Time{}
	o := server.Options{Backend: someClusters{
		clusters: []server.Cluster{well("prod"), far, well("lab")},
		jobs:     []server.Job{{ID: "1", Kind: "verify", Repository: "far", Cluster: "prod", State: server.JobRunning}},
	}}
	addr := startServer(t, o)
	code, stdout, _ := backupd("status", "--server", "http://"+addr)
	want := `CLUSTER    STATE  LAST BACKUP  NEXT RUN  RUNNING
lab        ok     3d ago       in 4d     -
far/prod   ok     3d ago       -         verify
main/prod  ok     3d ago       in 4d     -
`
	if code != 0 || stdout != want {
		t.Errorf("exit code %d\n%s", code, cmp.Diff(want, stdout))
	}
}

func TestStatus_Empty(t *testing.T) {
	addr := startServer(t, server.Options{Backend: someClusters{}})
	if code, stdout, _ := backupd("status", "--server", "http://"+addr); code != 0 ||
		stdout != "the daemon guards no cluster\n" {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	_, stdout, _ := backupd("status", "--server", "http://"+addr, "-w", "json")
	if want := `{"kind":"backupd/status/v1","clusters":[],"jobs":[]}` + "\n"; stdout != want {
		t.Errorf("%s, want %s", stdout, want)
	}
}

func TestStatus_Colours(t *testing.T) {
	c := well("a")
	var out strings.Builder
	rows := [][]string{{"CLUSTER", "STATE", "X"}, {"a", c.State, "x"}, {"b", "failure", "y"}}
	if err := printGlance(&out, []server.Cluster{c, c}, rows, true); err != nil {
		t.Fatal(err)
	}
	want := "CLUSTER  STATE    X\na        \x1b[32mok\x1b[0m       x\nb        \x1b[1;31mfailure\x1b[0m  y\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if colourful(&out) {
		t.Error("colours off a terminal")
	}
}

func TestStatus_TLSAndToken(t *testing.T) {
	authority := testserver.NewAuthority(t)
	ca, tokens := authority.File, filepath.Join(t.TempDir(), "tokens")
	cert, key := authority.Issue(t, "backupd")
	writeFile(t, tokens, "the-first-token-0123\nthe-second-token-0123\n")
	o := server.Options{
		Backend:  someClusters{clusters: []server.Cluster{well("a")}},
		CertFile: cert, KeyFile: key, ClientCAFile: ca, ReadTokensFile: tokens,
		Callers: []callers.Caller{{Certificate: "backupd"}},
	}
	addr := "https://" + startServer(t, o)
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"Token", []string{"--cacert", ca, "--token-file", tokens}, 0, ""},
		{"ClientCertificate", []string{"--cacert", ca, "--cert", cert, "--key", key}, 0, ""},
		{"NoToken", []string{"--cacert", ca}, 1, "Hint: give --token-file"},
		{"NoAuthority", []string{"--token-file", tokens}, 1,
			"Hint: give the authority of the daemon's certificate by --cacert"},
		{"NoSuchToken", []string{"--cacert", ca, "--token-file", "none"}, 5, "read token: open none"},
		{"NoCertificateInAuthority", []string{"--cacert", tokens}, 1, "holds no certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, _, stderr := backupd(append([]string{"status", "--server", addr, "--command-timeout", "1m"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "first-token") {
				t.Errorf("exit code %d, want %d and %q: %s", code, c.code, c.want, stderr)
			}
		})
	}
	// The environment says the same.
	t.Setenv("BACKUPD_SERVER", addr)
	t.Setenv("BACKUPD_TOKEN_FILE", tokens)
	t.Setenv("BACKUPD_CACERT", ca)
	t.Setenv("ETCDCTL_CACERT", "/etcd/ca/is/not/the/daemons")
	if code, _, stderr := backupd("status"); code != 0 {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	code, _, stderr := backupd("status", "--server", strings.Replace(addr, "https", "http", 1))
	if code != 1 || !strings.Contains(stderr, "https://") {
		t.Errorf("http where TLS is spoken: exit code %d: %s", code, stderr)
	}
}

func TestStatus_NoDaemon(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + ln.Addr().String()
	ln.Close()
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	elsewhere := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
	defer elsewhere.Close()
	token := filepath.Join(t.TempDir(), "token")
	writeFile(t, token, "a-token-0123456789\n")
	empty := filepath.Join(t.TempDir(), "empty")
	writeFile(t, empty, "\n")
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"Nobody", []string{"--server", nobody}, 1, "connection refused\nHint: is 'backupd run' running there?"},
		{"Stranger", []string{"--server", stranger.URL}, 1, "this is no backupd daemon"},
		{"Redirect", []string{"--server", elsewhere.URL}, 1, "302 Found"},
		{"HTTPSToHTTP", []string{"--server", strings.Replace(stranger.URL, "http", "https", 1)}, 1, "use http://"},
		{"NoURL", []string{"--server", "localhost:9387"}, 64, "want http://HOST:PORT"},
		{"Path", []string{"--server", nobody + "/api"}, 64, "want http://HOST:PORT"},
		{"TokenInTheClear", []string{"--server", "http://192.0.2.1:9387", "--token-file", token}, 64,
			"not sent in the clear"},
		{"EmptyToken", []string{"--server", nobody, "--token-file", empty}, 1, "is empty"},
		{"CertWithoutKey", []string{"--server", nobody, "--cert", token}, 64, "belong together"},
		{"Argument", []string{"prod"}, 64, "expects no argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := backupd(append([]string{"status"}, c.args...)...)
			if code != c.code || !strings.Contains(stderr, c.want) || stdout != "" {
				t.Errorf("exit code %d, want %d and %q: %s%s", code, c.code, c.want, stdout, stderr)
			}
		})
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
