package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
)

const (
	api  = "/api/v1"
	prod = api + "/repositories/main/clusters/prod"
)

var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "COPY"}

func TestListSnapshots_Pages(t *testing.T) {
	r := start(t, server.Options{})
	var got []string
	after, pages := "", 0
	for {
		_, body := r.do(t, "GET", prod+"/snapshots?limit=4"+after, "")
		var page server.SnapshotList
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Snapshots {
			got = append(got, string(s.ID))
		}
		if pages++; page.Next == "" {
			break
		}
		after = "&after=" + page.Next
	}
	var want []string
	for _, s := range newBackend().snapshots {
		want = append(want, string(s.ID))
	}
	if pages != 2 || !slices.Equal(got, want) {
		t.Errorf("%d pages with %q, want 2 with %q", pages, got, want)
	}
	// A page that ends where the listing ends promises no other.
	_, body := r.do(t, "GET", prod+"/snapshots?limit=6", "")
	if strings.Contains(body, `"next"`) {
		t.Errorf("the last page promises another: %s", body)
	}
}

func TestEmptyListsAreNoNull(t *testing.T) {
	b := newBackend()
	b.snapshots, b.jobs = nil, nil
	r := start(t, server.Options{Backend: b})
	for path, want := range map[string]string{
		prod + "/snapshots": `{"snapshots":[]}`,
		api + "/jobs":       `{"jobs":[]}`,
	} {
		if _, body := r.do(t, "GET", path, ""); strings.TrimSpace(body) != want {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	b.mu.Lock()
	b.clusters = nil
	b.mu.Unlock()
	if _, body := r.do(t, "GET", api+"/clusters", ""); strings.TrimSpace(body) != `{"clusters":[]}` {
		t.Error(body)
	}
}

func TestStartJobs(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b})
	resp, body := r.do(t, "POST", prod+"/backups", "")
	if resp.StatusCode != http.StatusAccepted || resp.Header.Get("Location") != api+"/jobs/job2" {
		t.Fatalf("%s, Location %q: %s", resp.Status, resp.Header.Get("Location"), body)
	}
	if resp, job := r.do(t, "GET", resp.Header.Get("Location"), ""); resp.StatusCode != http.StatusOK || job != body {
		t.Errorf("the job at Location is %s, want %s", job, body)
	}
	r.problem(t, http.StatusConflict, "POST", prod+"/backups", "{}")
	resp, body = r.do(t, "POST", prod+"/verifications", `{"snapshot":"latest"}`)
	if resp.StatusCode != http.StatusAccepted || !strings.Contains(body, `"snapshot":"latest"`) {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

// TestRepositories: a cluster that two repositories keep is asked for in one of
// them, and a repository has only its own clusters.
func TestRepositories(t *testing.T) {
	b := newBackend()
	b.clusters = append(b.clusters, server.Cluster{Repository: "far away", Name: "prod", State: server.ClusterFailure},
		server.Cluster{Repository: "main", Name: "lab", State: server.ClusterOK})
	r := start(t, server.Options{Backend: b})
	far := api + "/repositories/far%20away/clusters/"
	var c server.Cluster
	if _, body := r.do(t, "GET", far+"prod", ""); json.Unmarshal([]byte(body), &c) != nil ||
		c.Repository != "far away" || c.State != server.ClusterFailure {
		t.Errorf("got %s", body)
	}
	for path, want := range map[string]string{
		far + "lab":                              `cluster "lab" in repository "far away"`,
		far + "lab/snapshots":                    `cluster "lab" in repository "far away"`,
		api + "/repositories/none/clusters/prod": `cluster "prod" in repository "none"`,
	} {
		if p := r.problem(t, http.StatusNotFound, "GET", path, ""); !strings.Contains(p.Detail, want) {
			t.Errorf("%s: detail %q", path, p.Detail)
		}
	}
	for _, call := range [][3]string{
		{"GET", "prod/snapshots"}, {"GET", "prod/snapshots/" + snapshotID}, {"GET", "prod/prune-plan"},
		{"POST", "prod/backups"}, {"POST", "prod/verifications", `{"snapshot":"latest"}`},
		{"PUT", "prod/snapshots/" + snapshotID + "/pin", `{"reason":"x"}`},
	} {
		b.asked = server.Key{}
		resp, body := r.do(t, call[0], far+call[1], call[2])
		if resp.StatusCode >= 300 || b.asked != (server.Key{Repository: "far away", Cluster: "prod"}) {
			t.Errorf("%v: %s %s; the daemon was asked about %v", call, resp.Status, body, b.asked)
		}
		if call[0] == "POST" && !strings.Contains(body, `"repository":"far away","cluster":"prod"`) {
			t.Errorf("%v: the job %s", call, body)
		}
	}
}

func TestPin(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b})
	resp, body := r.do(t, "PUT", prod+"/snapshots/"+snapshotID+"/pin", `{"reason":" before the upgrade "}`)
	if resp.StatusCode != http.StatusNoContent || body != "" {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	if want := map[string]string{snapshotID: "before the upgrade"}; !cmp.Equal(b.pins, want) {
		t.Error(cmp.Diff(b.pins, want))
	}
}

func TestHealthAndReadiness(t *testing.T) {
	b := newBackend()
	// Probes have no token.
	r := start(t, server.Options{Backend: b, ReadTokensFile: tokenFile(t, readToken)})
	for _, path := range []string{"/healthz", "/readyz"} {
		if resp, body := r.do(t, "GET", path, ""); resp.StatusCode != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	b.mu.Lock()
	b.notReady = backup.WithHint(errors.New("no backup of prod for 3h"), "look at its endpoints")
	b.mu.Unlock()
	if resp, _ := r.do(t, "GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("a daemon that is not ready is not dead: %s", resp.Status)
	}
	p := r.problem(t, http.StatusServiceUnavailable, "GET", "/readyz", "", "Authorization: Bearer "+readToken)
	if p.Detail != "no backup of prod for 3h" || p.Hint != "look at its endpoints" {
		t.Errorf("problem %+v", p)
	}
}

func TestProblems(t *testing.T) {
	r := start(t, server.Options{})
	long := strings.Repeat("x", 70<<10)
	for _, c := range []struct {
		method, path, body string
		header             string
		status             int
		detail             string
	}{
		{"GET", "/nothing", "", "", 404, `nothing at "/nothing"`},
		{"GET", "/", "", "", 404, ""},
		{"GET", api + "/clusters/", "", "", 404, ""},
		{"GET", "//api/v1/clusters", "", "", 404, ""},
		{"GET", api + "/jobs/../clusters", "", "", 404, ""},
		{"GET", api + "/repositories/main/clusters/none", "", "", 404, `cluster "none"`},
		{"GET", api + "/repositories/main/clusters/..%2fprod", "", "", 404, ""},
		{"GET", api + "/repositories/main/clusters/none/snapshots", "", "", 404, ""},
		{"GET", api + "/repositories/main/clusters/none/prune-plan", "", "", 404, ""},
		{"POST", api + "/repositories/main/clusters/none/backups", "", "", 404, ""},
		{"POST", api + "/repositories/main/clusters/none/verifications", `{"snapshot":"latest"}`, "", 404, ""},
		{"GET", prod + "/snapshots/latest", "", "", 404, "want the form"},
		{"GET", prod + "/snapshots/20261120T101500Z-r9-aaaaaa", "", "", 404, "not found"},
		{"PUT", prod + "/snapshots/x/pin", `{"reason":"y"}`, "", 404, ""},
		{"GET", api + "/jobs/none", "", "", 404, `job "none"`},
		{"GET", api + "/jobs/none/events", "", "", 404, `job "none"`},
		{"DELETE", prod, "", "", 405, "does not allow DELETE"},
		{"GET", prod + "/snapshots?limit=0", "", "", 400, "from 1 to 1000"},
		{"GET", prod + "/snapshots?limit=1001", "", "", 400, ""},
		{"GET", prod + "/snapshots?limit=", "", "", 400, ""},
		{"GET", prod + "/snapshots?limit=1&limit=2", "", "", 400, "2 times"},
		{"GET", prod + "/snapshots?after=x", "", "", 400, "parse snapshot id"},
		{"GET", prod + "/snapshots?before=x", "", "", 400, `"before" is not known`},
		{"GET", prod + "/snapshots?a=%zz", "", "", 400, "parse query"},
		{"GET", api + "/clusters", "{}", "", 400, "takes no body"},
		{"POST", prod + "/backups", `{"force":true}`, "", 400, `unknown field "force"`},
		{"POST", prod + "/backups", `[]`, "", 400, "decode body"},
		{"POST", prod + "/backups", `{}{}`, "", 400, "more data follows"},
		{"POST", prod + "/backups", `{`, "", 400, "unexpected"},
		{"POST", prod + "/backups", `{}`, "Content-Type: text/plain", 415, `"text/plain"`},
		{"POST", prod + "/backups", `{}`, "Content-Type: ", 415, ""},
		{"POST", prod + "/backups", `{"x":"` + long + `"}`, "", 413, "65536 bytes"},
		{"POST", prod + "/verifications", "", "", 400, "field snapshot"},
		{"POST", prod + "/verifications", `{"snapshot":"newest"}`, "", 400, "field snapshot"},
		{"PUT", prod + "/snapshots/" + snapshotID + "/pin", `{}`, "", 400, "field reason"},
		{"PUT", prod + "/snapshots/" + snapshotID + "/pin", `{"reason":"a\nb"}`, "", 400, "field reason"},
		{"PUT", prod + "/snapshots/" + snapshotID + "/pin", `{"reason":"` + long[:501] + `"}`, "", 400,
			"field reason"},
	} {
		t.Run(fmt.Sprintf("%s %.70s %.40s", c.method, c.path, c.body), func(t *testing.T) {
			var headers []string
			if c.header != "" {
				headers = append(headers, c.header)
			}
			if p := r.problem(t, c.status, c.method, c.path, c.body, headers...); !strings.Contains(p.Detail, c.detail) {
				t.Errorf("detail %q, want %q in it", p.Detail, c.detail)
			}
		})
	}
}

func TestBackendErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		hint   string
	}{
		{backup.WithHint(errors.New("list: 503 SlowDown"), "try later"), 500, "try later"},
		{fmt.Errorf("snapshot: %w", server.ErrNotFound), 404, ""},
		{fmt.Errorf("snapshot: %w", server.ErrConflict), 409, ""},
		{fmt.Errorf("list: %w", context.DeadlineExceeded), 504,
			"the repository or the cluster answers too slowly; try again"},
		{fmt.Errorf("list: %w", context.Canceled), 503, "the daemon is stopping; try again"},
		{&backup.RefusedError{Reason: "it is suspect", Override: "--allow-suspect"}, 409, ""},
	} {
		b := newBackend()
		b.fail = c.err
		r := start(t, server.Options{Backend: b})
		for _, call := range [][3]string{
			{"GET", "/snapshots"}, {"GET", "/snapshots/" + snapshotID},
			{"GET", "/prune-plan"}, {"POST", "/backups"}, {"POST", "/verifications", `{"snapshot":"latest"}`},
			{"PUT", "/snapshots/" + snapshotID + "/pin", `{"reason":"x"}`},
		} {
			p := r.problem(t, c.status, call[0], prod+call[1], call[2])
			if p.Detail != c.err.Error() || p.Hint != c.hint {
				t.Errorf("%v: problem %+v, want the error and the hint %q", call, p, c.hint)
			}
		}
		if logged := strings.Contains(r.log.String(), "request failed"); logged != (c.status == 500) {
			t.Errorf("%v: logged as failed: %v", c.err, logged)
		}
	}
}

// Nothing the server can be asked for restores or deletes, by any method.
func TestNoRestoreAndNoDelete(t *testing.T) {
	b := newBackend()
	r := start(t, server.Options{Backend: b})
	before := slices.Clone(b.snapshots)
	paths := []string{"/restore", api + "/restore", api + "/restores", prod + "/restore",
		prod + "/restores",
		prod + "/prune", prod + "/snapshots/" + snapshotID + "/restore",
		prod + "/snapshots/" + snapshotID + "/data"}
	for _, path := range paths {
		for _, m := range methods[1:] {
			if resp, _ := r.do(t, m, path, ""); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s %s: %s, want nothing there", m, path, resp.Status)
			}
		}
	}
	writes := 0
	for _, op := range readDocument(t, r).operations() {
		for _, m := range methods {
			if op.method == m || m == "HEAD" {
				continue
			}
			if m == "DELETE" || m == "PATCH" {
				r.problem(t, http.StatusMethodNotAllowed, m, op.example(), "")
			}
		}
		if op.method != "GET" {
			writes++
		}
		if name := strings.ToLower(op.id); strings.Contains(name, "restore") || strings.Contains(name, "delete") ||
			strings.Contains(name, "remove") {
			t.Errorf("%s %s is the operation %s", op.method, op.path, op.id)
		}
	}
	if writes != 3 {
		t.Errorf("%d routes change something, want 3: backups, verifications, pin", writes)
	}
	if !cmp.Equal(b.snapshots, before) {
		t.Error(cmp.Diff(before, b.snapshots))
	}
	// The interface to the daemon has no way to do it either.
	iface := reflect.TypeFor[server.Backend]()
	for i := range iface.NumMethod() {
		for _, bad := range []string{"Restore", "Delete", "Remove", "Unpin", "Forget"} {
			if name := iface.Method(i).Name; strings.Contains(name, bad) {
				t.Errorf("Backend has the method %s", name)
			}
		}
	}
}

// FuzzRouter sends whatever a caller can spell. A healthy backend never leads
// to a 5xx, and every error is a problem.
func FuzzRouter(f *testing.F) {
	for _, m := range []string{"GET", "POST", "PUT", "DELETE"} {
		for _, p := range []string{"/", "/healthz", "/metrics", prod, prod + "/backups",
			prod + "/verifications",
			prod + "/snapshots?limit=3", prod + "/snapshots/" + snapshotID + "/pin",
			api + "/jobs/job1/events", "/%2e%2e//x", "*"} {
			f.Add(m, p, `{"snapshot":"latest","reason":"x"}`, "application/json", "localhost")
		}
	}
	f.Add("CONNECT", "localhost:1", "", "", "[::1]:9")
	handler := server.HandlerForTest(f, server.Options{Listen: "127.0.0.1:0", Backend: newBackend(), Metrics: metrics()})
	f.Fuzz(func(t *testing.T, method, target, body, kind, host string) {
		resp, raw := server.ServeForTest(handler, method, target, body, kind, host)
		if resp == nil { // no request can be made of it
			return
		}
		if resp.StatusCode >= 500 {
			t.Errorf("%s %q: %s %s", method, target, resp.Status, raw)
		}
		if resp.StatusCode >= 400 && (resp.Header.Get("Content-Type") != server.ProblemType || !json.Valid(raw)) {
			t.Errorf("%s %q: %s %s is no problem: %q", method, target, resp.Status, resp.Header.Get("Content-Type"), raw)
		}
	})
}
