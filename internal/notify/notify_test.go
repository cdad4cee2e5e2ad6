package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/notify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func failure() notify.Event {
	return notify.Event{
		Kind: notify.Failed, Job: "backup", Repository: "main", Cluster: "prod",
		Labels: map[string]string{"team": "a"}, Time: noon,
		Error: `dial "10.0.0.1": <refused> & gone`, Hint: "is etcd up?", Since: noon,
	}
}

// receiver is a real HTTP server that writes down its requests.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string
	header []http.Header
	answer func(n int, w http.ResponseWriter, r *http.Request)
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	t.Helper()
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		n := len(r.got)
		r.got = append(r.got, fmt.Sprintf("%s %s %s", req.Method, req.URL.RequestURI(), body))
		r.header = append(r.header, req.Header)
		r.mu.Unlock()
		if r.answer != nil {
			r.answer(n, w, req)
		}
	}))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections() // the notifier's transport is the default one
		r.Close()
	})
	return r
}

func (r *receiver) requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.got...)
}

// outcome is what a notifier did with some events.
type outcome struct {
	results []string
	logs    string
}

// inTime is how long the last deliveries may take.
func inTime() time.Duration { return 10 * time.Second }

// deliver runs a notifier until all events found their end.
func deliver(t *testing.T, to notify.Receiver, kinds []notify.Kind, events ...notify.Event) outcome {
	t.Helper()
	target, err := notify.NewTarget(to, nil, kinds)
	if err != nil {
		t.Fatal(err)
	}
	var logs bytes.Buffer
	n := notify.New([]*notify.Target{target}, slog.New(slog.NewTextHandler(&logs, nil)))
	var out outcome
	all := make(chan struct{}, 1000)
	n.Results = func(kind, result string) {
		out.results = append(out.results, kind+" "+result)
		all <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx, inTime) }()
	for _, e := range events {
		n.Notify(e)
		<-all
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	out.logs = logs.String()
	return out
}

func (o outcome) want(t *testing.T, results ...string) {
	t.Helper()
	if diff := cmp.Diff(results, o.results, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("results (-want +got):\n%s\n%s", diff, o.logs)
	}
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWebhookSendsTheEvent(t *testing.T) {
	r := newReceiver(t, nil)
	token := write(t, "s3cret\n")
	deliver(t, notify.Webhook{URLFile: write(t, r.URL+"/hook?key=x\n"), TokenFile: token}, nil, failure()).want(t,
		"webhook sent")
	if len(r.got) != 1 {
		t.Fatalf("requests %q", r.got)
	}
	body, ok := strings.CutPrefix(r.got[0], "POST /hook?key=x ")
	var back notify.Event
	if err := json.Unmarshal([]byte(body), &back); !ok || err != nil {
		t.Fatalf("%q: %v", r.got[0], err)
	}
	if diff := cmp.Diff(failure(), back, cmpopts.IgnoreUnexported(notify.Event{})); diff != "" {
		t.Error(diff)
	}
	if h := r.header[0]; h.Get("Authorization") != "Bearer s3cret" || h.Get("Content-Type") != "application/json" {
		t.Errorf("header %v", h)
	}
}

func TestFilesAreReadAtEachUse(t *testing.T) {
	a, b := newReceiver(t, nil), newReceiver(t, nil)
	url, token := write(t, a.URL), write(t, "one")
	target, err := notify.NewTarget(notify.Webhook{URLFile: url, TokenFile: token}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := notify.New([]*notify.Target{target}, slog.New(slog.DiscardHandler))
	sent := make(chan struct{})
	n.Results = func(string, string) { sent <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx, inTime) }()
	n.Notify(failure())
	<-sent
	for file, content := range map[string]string{url: b.URL, token: "two"} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.Notify(failure())
	<-sent
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(a.got) != 1 || len(b.got) != 1 || a.header[0].Get("Authorization") != "Bearer one" ||
		b.header[0].Get("Authorization") != "Bearer two" {
		t.Errorf("requests %q with %v, then %q with %v", a.got, a.header, b.got, b.header)
	}
}

func TestSlackEscapes(t *testing.T) {
	r := newReceiver(t, nil)
	long := failure()
	long.Error = strings.Repeat("ä", 10000)
	deliver(t, notify.Slack{URL: r.URL + "/services/T0/B0/secret"}, nil, failure(), long).want(t, "slack sent",
		"slack sent")
	var m struct{ Text string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(r.got[0], "POST /services/T0/B0/secret ")), &m); err != nil {
		t.Fatal(err)
	}
	if want := "Backup of cluster prod in repository main failed: dial \"10.0.0.1\": &lt;refused&gt; " +
		"&amp; gone\nHint: is etcd up?"; m.Text != want {
		t.Errorf("text %q, want %q", m.Text, want)
	}
	if n := len(r.got[1]); n > 3100 || !strings.Contains(r.got[1], "ä…") {
		t.Errorf("a long message has %d bytes", n)
	}
}

func TestHealthchecks(t *testing.T) {
	r := newReceiver(t, nil)
	event := func(job string, kind notify.Kind) notify.Event {
		e := failure()
		if e.Job, e.Kind = job, kind; kind != notify.Failed {
			e.Error, e.Hint, e.Since = "", "", time.Time{}
		}
		return e
	}
	huge := event("backup", notify.Failed)
	huge.Error = strings.Repeat("x", 20000)
	deliver(t, notify.Healthchecks{URL: r.URL + "/ping/uuid?create=1"}, nil,
		event("backup", notify.Started), event("backup", notify.Succeeded), event("backup", notify.Recovered),
		event("verify", notify.Failed), huge)
	want := []string{
		"GET /ping/uuid/start?create=1 ",
		"POST /ping/uuid?create=1 Backup of cluster prod in repository main succeeded",
		"POST /ping/uuid?create=1 Backup of cluster prod in repository main works again",
		"POST /ping/uuid/fail?create=1 Verification of cluster prod in repository main failed: dial \"10.0.0.1\": " +
			"<refused> & gone\nHint: is " +
			"etcd up?",
	}
	if diff := cmp.Diff(want, r.got[:4]); diff != "" {
		t.Error(diff)
	}
	if n := len(r.got[4]); n < 9000 || n > 10100 {
		t.Errorf("a huge failure has %d bytes", n)
	}
}

func TestCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	// The shell adds PWD, SHLVL and _.
	script := `cat > "$1.json"
		env | grep -vE '^(PWD|SHLVL|_|OLDPWD)' |
		LC_ALL=C sort > "$1.env"; echo "mail sent; $2"`
	t.Setenv("PATH", "/usr/bin:/bin")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "of the store")
	e := failure()
	e.File, e.Expires, e.Since = "/etc/client.crt", e.Time.Add(time.Hour), e.Time.Add(-time.Hour)
	got := deliver(t, notify.Command{Program: "sh", Args: []string{"-c", script, "hook", out, "$()"},
		Env: map[string]string{"TOKEN": "given", "Z": ""}}, nil, e)
	got.want(t, "command sent")
	if !strings.Contains(got.logs, "mail sent; $()") {
		t.Errorf("the output is not logged: %s", got.logs)
	}
	var back notify.Event
	if b, err := os.ReadFile(out + ".json"); err != nil || json.Unmarshal(b, &back) != nil ||
		back.Error != failure().Error {
		t.Errorf("standard input %q, %v", b, err)
	}
	env, err := os.ReadFile(out + ".env")
	if err != nil {
		t.Fatal(err)
	}
	const text = `BACKUPD_EVENT_TEXT=Backup /etc/client.crt of cluster prod in repository main failed: ` +
		`dial "10.0.0.1": <refused> & gone; It has failed since 2026-11-21 11:00:00 UTC.`
	want := `BACKUPD_EVENT_CLUSTER=prod
BACKUPD_EVENT_ERROR=dial "10.0.0.1": <refused> & gone
BACKUPD_EVENT_EXPIRES=2026-11-21T13:00:00Z
BACKUPD_EVENT_FILE=/etc/client.crt
BACKUPD_EVENT_HINT=is etcd up?
BACKUPD_EVENT_JOB=backup
BACKUPD_EVENT_KIND=failure
BACKUPD_EVENT_REPOSITORY=main
BACKUPD_EVENT_REVISION=
BACKUPD_EVENT_SINCE=2026-11-21T11:00:00Z
BACKUPD_EVENT_SNAPSHOT=
` + text + `
BACKUPD_EVENT_TIME=2026-11-21T12:00:00Z
PATH=/usr/bin:/bin
TOKEN=given
Z=
`
	if diff := cmp.Diff(want, string(env)); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestCommandsThatFail(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "tried")
	again := fmt.Sprintf(`test -e %[1]s && exit 0; touch %[1]s; exit 75`, marker)
	deliver(t, notify.Command{Program: "sh", Args: []string{"-c", again}}, nil, failure()).want(t, "command sent")
	got := deliver(t, notify.Command{Program: "sh", Args: []string{"-c", "yes no | head -c 100000 >&2; exit 3"}}, nil,
		failure())
	got.want(t, "command dropped")
	if !strings.Contains(got.logs, "exit status 3") || len(got.logs) > 10000 {
		t.Errorf("%d bytes of log: %.300s", len(got.logs), got.logs)
	}
}

func TestCommandThatHangsIsKilledWithItsChildren(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	one := target(t, notify.Command{Program: "sh", Args: []string{"-c",
		`sleep 1000 & echo $! > "$0.new"; mv "$0.new" "$0"; wait`,
		file}})
	var b []byte
	// A busy machine may need longer until the child lives.
	for life := 500 * time.Millisecond; b == nil; life *= 2 {
		notify.SetCommandTimeout(one, life)
		err := one.Try(t.Context(), slog.New(slog.DiscardHandler), failure())
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("it took longer than %s and was killed", life)) {
			t.Fatalf("got %v", err)
		}
		if b, err = os.ReadFile(file); err != nil && life > time.Minute {
			t.Fatal(err)
		}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); alive(pid); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("the child lives")
		}
	}
}

// alive reports whether a process runs; a zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestTriesAgain(t *testing.T) {
	r := newReceiver(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		switch n {
		case 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 1:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		case 2:
			w.Header().Set("Retry-After", time.Now().Add(time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusRequestTimeout)
		}
	})
	deliver(t, notify.Webhook{URL: r.URL}, nil, failure()).want(t, "webhook sent")
	if n := len(r.requests()); n != 4 {
		t.Errorf("%d requests", n)
	}
}

func TestGivesUp(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"not found": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"the secret echoed": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, "no such path "+r.URL.Path, 404)
		},
		"the token echoed": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, r.Header.Get("Authorization"), http.StatusUnauthorized)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) { answer(w, r) })
			hook := notify.Webhook{URL: r.URL + "/hooks/S3CRET?key=S4CRET", TokenFile: write(t, "T0KEN")}
			got := deliver(t, hook, nil, failure())
			got.want(t, "webhook dropped")
			for _, secret := range []string{"S3CRET", "S4CRET", "T0KEN"} {
				if strings.Contains(got.logs, secret) {
					t.Errorf("a secret is logged: %s", got.logs)
				}
			}
			if !strings.Contains(got.logs, r.URL+"/***") || len(r.requests()) != 1 {
				t.Errorf("%d requests, logs %s", len(r.requests()), got.logs)
			}
		})
	}
}

func TestSaysWhatTheServerSays(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) { http.Error(w, "invalid_payload", 400) })
	if got := deliver(t, notify.Slack{URL: r.URL}, nil, failure()); !strings.Contains(got.logs,
		"400 Bad Request: invalid_payload") {
		t.Error(got.logs)
	}
}

// The target of a redirect must get neither the token nor the URL.
func TestRedirects(t *testing.T) {
	other := newReceiver(t, nil)
	for _, tt := range []struct {
		to   string
		code int
		sent bool
	}{
		{other.URL + "/S4CRET", http.StatusTemporaryRedirect, false},
		{"/there", http.StatusFound, false},
		{"/there", http.StatusPermanentRedirect, true},
	} {
		t.Run(fmt.Sprint(tt.code), func(t *testing.T) {
			r := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/there" {
					http.Redirect(w, r, tt.to, tt.code)
				}
			})
			got := deliver(t, notify.Webhook{URL: r.URL + "/S3CRET"}, nil, failure())
			if tt.sent {
				got.want(t, "webhook sent")
			} else {
				got.want(t, "webhook dropped")
				if !strings.Contains(got.logs, "give the URL it redirects to") {
					t.Error(got.logs)
				}
			}
			if strings.Contains(got.logs, "CRET") {
				t.Errorf("a secret is logged: %s", got.logs)
			}
		})
	}
	if len(other.requests()) > 0 {
		t.Errorf("the other host got %q", other.got)
	}
}

func TestBadReceivers(t *testing.T) {
	for want, r := range map[string]notify.Receiver{
		"want an http or https URL":          notify.Webhook{URL: "hooks.example.com/S3CRET"},
		"slack: want an http or https URL":   notify.Slack{URL: "http://[::1/S3CRET"},
		"healthchecks: want an http":         notify.Healthchecks{},
		"a URL and a file":                   notify.Slack{URL: "https://a/S3CRET", URLFile: "/b"},
		"read url: open /does/not/exist":     notify.Slack{URLFile: "/does/not/exist"},
		"does not hold an http or https URL": notify.Healthchecks{URLFile: write(t, "S3CRET")},
		"read bearer token: open":            notify.Webhook{URL: "https://a", TokenFile: "/does/not/exist"},
		"does not hold a bearer token": notify.Webhook{URL: "https://a",
			TokenFile: write(t, "S3CRET or not")},
		"bad character U+007D":                    notify.Webhook{URL: "https://a", Template: "{{.Kind}"},
		"can't evaluate field Clutser":            notify.Webhook{URL: "https://a", Template: "{{json .Clutser}}"},
		"tried with a failure: the result is not": notify.Webhook{URL: "https://a", Template: `{"text":"{{.Error}}"}`},
		"the program is missing":                  notify.Command{},
		`exec: "/does/not/exist": stat`:           notify.Command{Program: "/does/not/exist"},
	} {
		_, err := notify.NewTarget(r, nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "S3CRET") {
			t.Errorf("%T: got %v, want an error with %q", r, err, want)
		}
	}
	if _, err := notify.NewTarget(notify.Slack{URL: "https://a"}, nil, []notify.Kind{"failures"}); err == nil ||
		!strings.Contains(err.Error(), `unknown kind of event "failures"`) {
		t.Error(err)
	}
}

// In a bubble there is no network but this one, of pipes.
func inBubble(t *testing.T, handler http.Handler) {
	t.Helper()
	before := http.DefaultTransport
	listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: handler}
	go func() { _ = server.Serve(listener) }()
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		if strings.HasPrefix(addr, "down.") {
			return nil, errors.New("connection refused")
		}
		ours, theirs := net.Pipe()
		listener.conns <- theirs
		return ours, nil
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	http.DefaultTransport = transport
	t.Cleanup(func() {
		http.DefaultTransport = before
		_ = server.Close()
		transport.CloseIdleConnections()
	})
}

type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func bubble(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
}

// run starts a notifier with targets of one receiver and returns what ends it.
func run(t *testing.T, results func(string, string), targets ...*notify.Target) (*notify.Notifier, func()) {
	n := notify.New(targets, slog.New(slog.DiscardHandler))
	n.Results = results
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Run(ctx, inTime) }()
	synctest.Wait()
	return n, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func target(t *testing.T, r notify.Receiver, kinds ...notify.Kind) *notify.Target {
	t.Helper()
	out, err := notify.NewTarget(r, nil, kinds)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTime(t *testing.T) {
	bubble(t, "what is down is tried for five minutes", func(t *testing.T) {
		inBubble(t, http.NotFoundHandler())
		start, ended := time.Now(), time.Time{}
		n, stop := run(t, func(_, result string) {
			if ended = time.Now(); result != "dropped" {
				t.Error(result)
			}
		}, target(t, notify.Slack{URL: "http://down.example"}))
		n.Notify(failure())
		time.Sleep(10 * time.Minute)
		stop()
		if d := ended.Sub(start); d < 3*time.Minute || d > 5*time.Minute {
			t.Errorf("given up after %s", d)
		}
	})
	bubble(t, "an answer that never comes is not waited for", func(t *testing.T) {
		n, tries := 0, []time.Duration{}
		start := time.Now()
		inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tries = append(tries, time.Since(start))
			_, _ = io.Copy(io.Discard, r.Body) // only then is it seen that the client goes away
			if n++; n == 1 {
				<-r.Context().Done()
			}
		}))
		var results []string
		notifier, stop := run(t, func(_, result string) {
			results = append(results, result)
		}, target(t, notify.Slack{URL: "http://up.example"}))
		notifier.Notify(failure())
		time.Sleep(time.Minute)
		stop()
		if len(tries) != 2 || tries[1] < 10*time.Second || tries[1] > 12*time.Second ||
			!cmp.Equal(results, []string{"sent"}) {
			t.Errorf("tries after %s, %q", tries, results)
		}
	})
	bubble(t, "the end is bounded", func(t *testing.T) {
		inBubble(t, http.NotFoundHandler())
		results := map[string]int{}
		n, stop := run(t, func(_, result string) { results[result]++ },
			target(t, notify.Slack{URL: "http://down.example"}))
		for range 5 {
			n.Notify(failure())
		}
		start := time.Now()
		stop()
		if d := time.Since(start); d != 10*time.Second || results["dropped"] != 5 {
			t.Errorf("ended after %s with %v", d, results)
		}
		n.Notify(failure())
		if results["dropped"] != 6 {
			t.Error("an event after the end is not counted")
		}
		if err := n.Run(t.Context(), inTime); err == nil {
			t.Error("Run runs twice")
		}
	})
	bubble(t, "a full queue loses what is no failure first", func(t *testing.T) {
		var got []string
		gate := make(chan struct{})
		inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var e notify.Event
			_ = json.NewDecoder(r.Body).Decode(&e)
			got = append(got, string(e.Kind)+e.Snapshot)
			<-gate
		}))
		dropped := 0
		n, stop := run(t, func(_, result string) {
			if result == "dropped" {
				dropped++
			}
		}, target(t, notify.Webhook{URL: "http://up.example"}, notify.Failed, notify.Succeeded))
		n.Notify(notify.Event{Kind: notify.Succeeded, Snapshot: "first"})
		synctest.Wait() // it is on its way
		for i := range 150 {
			e := notify.Event{Kind: notify.Succeeded, Snapshot: fmt.Sprint(i)}
			if i < 10 {
				e.Kind = notify.Failed
			}
			n.Notify(e)
		}
		close(gate)
		stop()
		want := []string{"successfirst"}
		for i := range 150 {
			if i < 10 {
				want = append(want, fmt.Sprintf("failure%d", i))
			} else if i >= 60 {
				want = append(want, fmt.Sprintf("success%d", i))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" || dropped != 50 {
			t.Errorf("%d dropped, (-want +got):\n%s", dropped, diff)
		}
	})
	bubble(t, "a receiver that is down disturbs no other, nor a reload", func(t *testing.T) {
		var got []string
		inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = append(got, r.Host) }))
		down := target(t, notify.Slack{URL: "http://down.example"})
		up := target(t, notify.Slack{URL: "http://up.example"})
		n, stop := run(t, func(string, string) {}, down, up)
		n.Notify(failure())
		synctest.Wait()
		n.Set([]*notify.Target{target(t, notify.Slack{URL: "http://new.example"})})
		n.Notify(failure())
		synctest.Wait()
		if diff := cmp.Diff([]string{"up.example", "new.example"}, got); diff != "" {
			t.Error(diff)
		}
		stop()
	})
	bubble(t, "events before Run are kept", func(t *testing.T) {
		got := 0
		inBubble(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got++ }))
		n := notify.New([]*notify.Target{target(t, notify.Slack{URL: "http://up.example"})},
			slog.New(slog.DiscardHandler))
		n.Notify(failure())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := n.Run(ctx, inTime); err != nil || got != 1 {
			t.Errorf("%d delivered, %v", got, err)
		}
	})
}

func TestFilters(t *testing.T) {
	all := []notify.Event{}
	for _, cluster := range []string{"prod", "test"} {
		for _, kind := range []notify.Kind{notify.Started, notify.Succeeded, notify.Failed, notify.Recovered} {
			all = append(all, notify.Event{Kind: kind, Job: "backup", Cluster: cluster})
		}
	}
	for _, tt := range []struct {
		name     string
		to       func(url string) notify.Receiver
		clusters []string
		kinds    []notify.Kind
		want     int
	}{
		{"people hear of failures and recoveries", func(u string) notify.Receiver {
			return notify.Webhook{URL: u}
		}, nil, nil, 4},
		{"of one cluster", func(u string) notify.Receiver { return notify.Slack{URL: u} }, []string{"prod"}, nil, 2},
		{"a recovery is a success", func(u string) notify.Receiver {
			return notify.Webhook{URL: u}
		}, nil, []notify.Kind{notify.Succeeded}, 4},
		{"starts alone", func(u string) notify.Receiver {
			return notify.Webhook{URL: u}
		}, nil, []notify.Kind{notify.Started}, 2},
		{"checks hear of all", func(u string) notify.Receiver {
			return notify.Healthchecks{URL: u}
		}, []string{"test"}, nil, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReceiver(t, nil)
			one, err := notify.NewTarget(tt.to(r.URL), tt.clusters, tt.kinds)
			if err != nil {
				t.Fatal(err)
			}
			n := notify.New([]*notify.Target{one}, slog.New(slog.DiscardHandler))
			for _, e := range all {
				n.Notify(e)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := n.Run(ctx, inTime); err != nil {
				t.Error(err)
			}
			if got := r.requests(); len(got) != tt.want {
				t.Errorf("got %q, want %d", got, tt.want)
			}
		})
	}
}

// TestOutcome_OfEachRepository: a cluster that one repository keeps does not make
// up for the other one that fails.
func TestOutcome_OfEachRepository(t *testing.T) {
	r := newReceiver(t, nil)
	n := notify.New([]*notify.Target{target(t, notify.Webhook{URL: r.URL,
		Template: `{{json (printf "%s %s" .Repository .Kind)}}`}, notify.Failed, notify.Recovered, notify.Succeeded),
	}, slog.New(slog.DiscardHandler))
	for _, end := range [][2]string{{"main", "down"}, {"far", ""}, {"far", "down"}, {"main", ""}, {"far", ""}} {
		n.Outcome(notify.Event{Job: "backup", Repository: end[0], Cluster: "prod", Time: noon, Error: end[1]})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx, inTime); err != nil {
		t.Error(err)
	}
	want := []string{`POST / "main failure"`, `POST / "far success"`, `POST / "far failure"`, `POST / "main recovery"`,
		`POST / "far recovery"`}
	if diff := cmp.Diff(want, r.requests()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOutcome(t *testing.T) {
	r, checks := newReceiver(t, nil), newReceiver(t, nil)
	template := `{{json (printf "%s %s %s" .Time .Kind .Since)}}`
	n := notify.New([]*notify.Target{
		target(t, notify.Webhook{URL: r.URL, Template: template}, notify.Failed, notify.Recovered, notify.Succeeded),
		target(t, notify.Healthchecks{URL: checks.URL}),
	}, slog.New(slog.DiscardHandler))
	for _, step := range []struct {
		hours int
		err   string
	}{{0, ""}, {1, "down"}, {2, "down"}, {24, "down"}, {26, "down"}, {27, "down"}, {28, ""}, {29, ""}, {30, "down"},
		{-100, "down"}, {-99, ""}} {
		n.Outcome(notify.Event{Job: "backup", Cluster: "prod", Time: noon.Add(time.Duration(step.hours) * time.Hour),
			Error: step.err})
	}
	n.Outcome(notify.Event{Job: "verify", Cluster: "prod", Time: noon, Error: "damaged"})
	n.Outcome(notify.Event{Job: "verify", Cluster: "prod", Time: noon}) // which says nothing about backups
	n.Outcome(notify.Event{Job: "backup", Cluster: "test", Time: noon})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx, inTime); err != nil {
		t.Error(err)
	}
	line := func(hours int, kind string, since int) string {
		at := func(hours int) time.Time { return noon.Add(time.Duration(hours) * time.Hour) }
		s := time.Time{}
		if since != 0 {
			s = at(since)
		}
		return fmt.Sprintf("POST / %q", fmt.Sprintf("%s %s %s", at(hours), kind, s))
	}
	want := []string{
		line(0, "success", 0), line(1, "failure", 1), line(26, "failure", 1), line(28, "recovery", 1),
		line(29, "success", 0),
		line(30, "failure", 30), line(-100, "failure", 30), line(-99, "recovery", 30),
		fmt.Sprintf("POST / %q", fmt.Sprintf("%s failure %s", noon, noon)),
		fmt.Sprintf("POST / %q", fmt.Sprintf("%s recovery %s", noon, noon)), line(0, "success", 0),
	}
	if diff := cmp.Diff(want, r.requests()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := checks.requests(); len(got) != 13 {
		t.Errorf("the check got %d events of 13: %q", len(got), got)
	}
}
