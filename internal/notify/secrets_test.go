package notify_test

import (
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func read(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestCommandSecrets: arguments and variables may hold secrets, and stand in no log.
func TestCommandSecrets(t *testing.T) {
	const secret = "hunter2-hunter2"
	long := strings.Repeat("x", 4096-len("hunter2")) // of the output that is kept, secret is cut in two
	for name, c := range map[string]notify.Command{
		"echoed":   {Program: "sh", Args: []string{"-cx", `echo "$0 $TOKEN"; exit 3`, secret}},
		"variable": {Program: "sh", Args: []string{"-c", `echo "$TOKEN"; exit 3`}, Env: map[string]string{"TOKEN": secret}},
		"cut":      {Program: "sh", Args: []string{"-c", `printf %s "$1$0"; exit 3`, secret, long}},
		"part": {Program: "sh", Args: []string{"-c", `echo "POST /services/hunter2-path"; exit 3`,
			"http://host.example/services/hunter2-path"}},
		"value of a flag": {Program: "sh", Args: []string{"-c", `echo "bad: ${0#--token=}"; exit 3`, "--token=hunter2"}},
		"line":            {Program: "sh", Args: []string{"-c", "set -x\ntrue hunter2\nexit 3"}},
		"block": {Program: "sh", Args: []string{"-c", `echo "no post with $(echo $TOKEN), sorry"; exit 3`},
			Env: map[string]string{"TOKEN": "hunter2\n"}},
		"too large": {Program: "true", Args: []string{secret + strings.Repeat("x", 1<<20)}},
	} {
		got := deliver(t, c, nil, failure())
		got.want(t, "command dropped")
		if strings.Contains(got.logs, "hunter2") || !strings.Contains(got.logs, c.Program+": ") {
			t.Errorf("%s: %.2000s", name, got.logs)
		}
	}
	for name, c := range map[string]notify.Command{
		"missing":      {Program: "/no/such/program", Args: []string{secret}},
		"command line": {Program: "curl -H Authorization:" + secret},
		"variable":     {Program: "true", Env: map[string]string{"A=B": secret}},
	} {
		if _, err := notify.NewTarget(c, nil, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCommandOutput: an output that was not cut off keeps its end.
func TestCommandOutput(t *testing.T) {
	got := deliver(t, notify.Command{Program: "sh", Args: []string{"-c", "echo done; exit 3", "experiment"}}, nil,
		failure())
	if !strings.Contains(got.logs, "output=done\n") {
		t.Errorf("%s", got.logs)
	}
}

// TestCA: a receiver whose certificate is of an authority of its own is trusted by its
// file, which is read again.
func TestCA(t *testing.T) {
	authority, other := testserver.NewAuthority(t), testserver.NewAuthority(t)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	cert, key := authority.Issue(t, "localhost")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	u := strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)
	for _, to := range []func(file string) notify.Receiver{
		func(file string) notify.Receiver { return notify.Webhook{URL: u, CAFile: file} },
		func(file string) notify.Receiver { return notify.Slack{URL: u, CAFile: file} },
		func(file string) notify.Receiver { return notify.Healthchecks{URL: u, CAFile: file} },
	} {
		file := write(t, string(read(t, other.File)))
		one := target(t, to(file))
		send := func() error { return one.Try(t.Context(), slog.New(slog.DiscardHandler), failure()) }
		if err := send(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("another authority: %v", err)
		}
		if err := os.WriteFile(file, read(t, authority.File), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := send(); err != nil {
			t.Errorf("its authority, written later: %v", err)
		}
		if err := target(t, to("")).Try(t.Context(), slog.New(slog.DiscardHandler), failure()); err == nil {
			t.Error("the system trusts a test's authority")
		}
		if _, err := notify.NewTarget(to(file+".missing"), nil, nil); err == nil {
			t.Error("a missing file is accepted")
		}
	}
}
