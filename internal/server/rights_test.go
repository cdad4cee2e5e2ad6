package server_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/server/callers"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestClusters: a caller of one cluster learns nothing of another, and starts nothing there.
func TestClusters(t *testing.T) {
	const teamToken, mixedToken = "token-of-the-team-01", "token-of-the-lead-01"
	b := newBackend()
	b.clusters = append(b.clusters, server.Cluster{Repository: "main", Name: "test", Schedule: "@daily"})
	b.jobs = append(b.jobs, server.Job{ID: "job2", Kind: "backup", Repository: "main", Cluster: "test",
		State: server.JobSucceeded, Started: noon, Ended: noon})
	b.notReady = errors.New("prod is not guarded")
	mixed := tokenFile(t, mixedToken)
	r := start(t, server.Options{Backend: b, ReadTokensFile: tokenFile(t, readToken), Callers: []callers.Caller{
		{TokensFile: tokenFile(t, teamToken), Operate: true, Clusters: []string{"test"}},
		{TokensFile: mixed}, {TokensFile: mixed, Operate: true, Clusters: []string{"test"}},
	}})
	team, lead := "Authorization: Bearer "+teamToken, "Authorization: Bearer "+mixedToken
	const test = api + "/repositories/main/clusters/test"
	for _, c := range []struct {
		who, method, path string
		status            int
	}{
		{team, "GET", test, 200}, {team, "GET", prod, 404}, {team, "GET", prod + "/snapshots", 404},
		{team, "GET", prod + "/prune-plan", 404}, {team, "POST", prod + "/backups", 404},
		{team, "GET", api + "/jobs/job1", 404}, {team, "GET", api + "/jobs/job2", 200},
		{team, "GET", api + "/jobs/job1/events", 404}, {team, "GET", "/metrics", 403},
		{team, "POST", test + "/backups", 202},
		{lead, "GET", prod, 200}, {lead, "GET", "/metrics", 200}, {lead, "POST", prod + "/backups", 403},
		{lead, "POST", test + "/verifications", 400},
	} {
		if resp, body := r.do(t, c.method, c.path, "", c.who); resp.StatusCode != c.status {
			t.Errorf("%s: %s %s: %s, want %d: %s", c.who, c.method, c.path, resp.Status, c.status, body)
		}
	}
	for _, path := range []string{"/clusters", "/jobs"} {
		if _, body := r.do(t, "GET", api+path, "", team); strings.Contains(body, "prod") || !strings.Contains(body, "test") {
			t.Errorf("%s tells the team: %s", path, body)
		}
	}
	events, stop := r.follow(t, api+"/events", team)
	defer stop()
	b.change(server.Job{ID: "secret", Kind: "verify", Cluster: "prod", State: server.JobRunning, Started: noon})
	b.change(server.Job{ID: "end", Kind: "verify", Cluster: "test", State: server.JobRunning, Started: noon})
	for line := range events {
		if strings.Contains(line, "prod") {
			t.Errorf("a stream tells the team: %s", line)
		}
		if strings.Contains(line, `"end"`) {
			break
		}
	}
	// The reason why the daemon is not ready names clusters.
	for who, told := range map[string]bool{"": false, team: false, "Authorization: Bearer wrong": false,
		lead: true, "Authorization: Bearer " + readToken: true} {
		var headers []string
		if who != "" {
			headers = append(headers, who)
		}
		if p := r.problem(t, http.StatusServiceUnavailable, "GET", "/readyz", "", headers...); told !=
			strings.Contains(p.Detail+p.Hint, "prod is not guarded") {
			t.Errorf("/readyz tells %q: %+v", who, p)
		}
	}
}

// follow yields the lines of a stream of events.
func (r *running) follow(t *testing.T, path, header string) (func(yield func(string) bool), func()) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(header, ": ")
	req.Header.Set(name, value)
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(resp.Body)
	return func(yield func(string) bool) {
		for in.Scan() {
			if !yield(in.Text()) {
				return
			}
		}
		t.Errorf("the stream ended: %v", in.Err())
	}, func() { resp.Body.Close() }
}

// TestStrangers: connections that say nothing starve neither probes nor callers, and a
// stranger keeps no connection.
func TestStrangers(t *testing.T) {
	r := start(t, server.Options{ReadTokensFile: tokenFile(t, readToken)})
	for range 400 {
		c, err := net.Dial("tcp", r.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if resp, _ := r.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("a probe: %s; the connection is closed: %v", resp.Status, resp.Close)
	}
	if resp, _ := r.do(t, "GET", api+"/jobs", "", "Authorization: Bearer "+readToken); resp.StatusCode != http.StatusOK ||
		resp.Close {
		t.Errorf("a caller: %s; the connection is closed: %v", resp.Status, resp.Close)
	}
}

// TestStrangers_All: where no credentials are asked for, callers that keep their connection
// and say nothing more lock nobody out.
func TestStrangers_All(t *testing.T) {
	r := start(t, server.Options{MetricsListen: "127.0.0.1:0"})
	for _, addr := range []net.Addr{r.Addr(), r.MetricsAddr()} {
		for range 100 {
			c, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
				t.Fatalf("%q, %v", line, err)
			}
		}
		r.url = "http://" + addr.String()
		if resp, _ := r.do(t, "GET", "/metrics", ""); resp.StatusCode != http.StatusOK {
			t.Error(resp.Status)
		}
	}
}

// TestMetricsListen: an address of its own tells metrics and health to all, and nothing else.
func TestMetricsListen(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b, ReadTokensFile: tokenFile(t, readToken), MetricsListen: "127.0.0.1:0"})
	r.url = "http://" + r.MetricsAddr().String()
	for path, want := range map[string]int{"/metrics": 200, "/healthz": 200, "/readyz": 200, api + "/clusters": 404,
		api + "/openapi.json": 404, prod + "/snapshots": 404} {
		if resp, body := r.do(t, "GET", path, ""); resp.StatusCode != want {
			t.Errorf("GET %s: %s, want %d: %s", path, resp.Status, want, body)
		}
	}
	if resp, _ := r.do(t, "POST", prod+"/backups", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a backup is started: %s", resp.Status)
	}
	b.notReady = errors.New("prod is not guarded")
	if p := r.problem(t, http.StatusServiceUnavailable, "GET", "/readyz", ""); strings.Contains(p.Detail+p.Hint, "prod") {
		t.Errorf("the reason is told: %+v", p)
	}
}

// TestChange: addresses, certificates and callers change while the server runs; a change
// that cannot be made changes nothing.
func TestChange(t *testing.T) {
	r := start(t, server.Options{})
	first := r.Addr().String()
	change := func(o server.Options) {
		t.Helper()
		c, err := r.Prepare(o)
		if err != nil {
			t.Fatal(err)
		}
		c.Apply()
	}
	status := func(want int, headers ...string) {
		t.Helper()
		if resp, body := r.do(t, "GET", api+"/jobs", "", headers...); resp.StatusCode != want {
			t.Errorf("%s, want %d: %s", resp.Status, want, body)
		}
	}
	status(200)
	right := "Authorization: Bearer " + readToken
	// start listens on any port, so the address stays as it is configured.
	guarded := server.Options{Listen: "127.0.0.1:0", ReadTokensFile: tokenFile(t, readToken)}
	change(guarded)
	status(401)
	status(200, right)

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for want, o := range map[string]server.Options{
		"in use":     {Listen: taken.Addr().String()},
		"needs TLS":  {Listen: ":0"},
		"open none":  {Listen: "127.0.0.1:0", ReadTokensFile: "none"},
		"address al": {Listen: "127.0.0.2:0", MetricsListen: taken.Addr().String()},
	} {
		if _, err := r.Prepare(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, port, _ := net.SplitHostPort(first)
	var hinted *backup.HintError
	if _, err := r.Prepare(server.Options{Listen: "localhost:" + port}); !errors.As(err, &hinted) ||
		!strings.Contains(hinted.Hint, "this daemon itself") {
		t.Errorf("its own port: %v", err)
	}
	status(401)
	status(200, right)

	ca := testserver.NewAuthority(t)
	secure := guarded
	secure.CertFile, secure.KeyFile = ca.Issue(t, "server")
	change(secure)
	transport := r.client.Transport.(*http.Transport)
	transport.CloseIdleConnections()
	transport.TLSClientConfig = &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
	r.url = "https://" + first
	status(200, right)

	secure.Listen = "127.0.0.2:0"
	change(secure)
	for refused := false; !refused && t.Context().Err() == nil; { // the former address is left soon
		c, err := net.Dial("tcp", first)
		if refused = err != nil; !refused {
			c.Close()
		}
	}
	r.url = "https://" + r.Addr().String()
	status(200, right)
	change(server.Options{})
	if r.Addr() != nil {
		t.Error("the server listens, and is off")
	}
	change(guarded)
	r.url = fmt.Sprint("http://", r.Addr())
	status(200, right)
}
