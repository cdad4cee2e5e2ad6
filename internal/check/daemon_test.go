package check_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// little is the smallest configuration.
const little = `
repositories: {main: {url: 'file://%'}}
clusters: [{name: prod, endpoints: ['127.0.0.1:1'], snapshot: {schedule: '@daily'}}]
`

func TestSpool(t *testing.T) {
	conf := load(t, little)
	conf.Clusters = nil
	dir := t.TempDir()
	for name, test := range map[string]struct {
		folder func() string
		level  backup.Level
		want   string
	}{
		"Missing": {func() string { return filepath.Join(dir, "missing") }, failure, "there is no such folder"},
		"File":    {func() string { return writeFile(t, "x") }, failure, "this is no folder"},
		"Open": {func() string {
			open := filepath.Join(dir, "open")
			if err := errors.Join(os.Mkdir(open, 0o777), os.Chmod(open, 0o777)); err != nil {
				t.Fatal(err)
			}
			return open
		}, warning, "can replace files"},
		"NotWritable": {func() string { return "/proc" }, failure, "it cannot be written"}, // not even by root
		"Default":     {func() string { return "" }, ok, "can be written"},
	} {
		t.Run(name, func(t *testing.T) {
			conf.Daemon.Spool.Folder = test.folder()
			want(t, run(t, conf), check.SectionSpool, test.level, test.want)
		})
	}
}

func TestServer(t *testing.T) {
	ca := testserver.NewAuthority(t)
	cert, key := ca.Issue(t, "server")
	tokens := writeFile(t, "0123456789abcdef0123456789abcdef\n")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, test := range map[string]struct {
		server config.Server
		level  backup.Level
		want   string
	}{
		"Loopback":   {config.Server{Listen: "127.0.0.1:0"}, ok, "the server can start"},
		"Off":        {config.Server{}, ok, "there is no server"},
		"Everywhere": {config.Server{Listen: "0.0.0.0:0"}, failure, "needs TLS"},
		"TLSAlone": {
			config.Server{Listen: "0.0.0.0:0", CertFile: cert, KeyFile: key}, failure, "tokens or client certificates",
		},
		"TLSAndTokens": {
			config.Server{Listen: "0.0.0.0:0", CertFile: cert, KeyFile: key, ReadTokensFile: tokens}, ok,
			"the server can start",
		},
		"NotOurs": {
			config.Server{Listen: "192.0.2.1:9387", CertFile: cert, KeyFile: key, ReadTokensFile: tokens}, failure,
			"cannot assign requested address",
		},
		"Taken": {config.Server{Listen: taken.Addr().String()}, ok, "something listens there"},
		"OtherName": {
			config.Server{Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key,
				AllowedHosts: []string{"backupd.example"}},
			warning, "and not for backupd.example",
		},
		"TokensTooShort": {
			config.Server{Listen: "127.0.0.1:0", OperateTokensFile: writeFile(t, "short")}, failure, "want at least 16",
		},
	} {
		t.Run(name, func(t *testing.T) {
			conf := load(t, little)
			conf.Clusters, conf.Daemon.Server = nil, test.server
			got := run(t, conf)
			want(t, got, check.SectionServer, test.level, test.want)
			if test.level == ok {
				wantNone(t, got, check.SectionServer, ok)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	password := writeFile(t, "x")
	conf := forCluster(t, []string{"127.0.0.1:1"}, "user: root\npassword-file: "+password+"\n")
	for mode, text := range map[os.FileMode]string{
		0o644: "every user of this machine can read this secret",
		0o602: "can change this secret",
	} {
		if err := os.Chmod(password, mode); err != nil {
			t.Fatal(err)
		}
		want(t, run(t, conf), check.SectionConfiguration, warning, text)
	}
}

func TestNotifications(t *testing.T) {
	hook := &receiver{}
	srv := httptest.NewServer(hook)
	defer srv.Close()
	conf := load(t, little)
	conf.Clusters = nil
	want(t, run(t, conf), check.SectionNotifications, warning, "nobody is notified")

	conf.Daemon.Notifications = []config.Notification{
		{
			Healthchecks: &config.Healthchecks{URL: config.Secret(srv.URL + "/ping/secret")},
			On:           []string{"failure", "recovery", "success", "start"},
		},
		{Command: &config.Command{Program: "false"}, On: []string{"failure"}},
		{Slack: &config.Slack{URLFile: "/does/not/exist"}, On: []string{"success"}},
	}
	got := run(t, conf)
	if len(hook.bodies) > 0 {
		t.Errorf("without --notify something was sent: %q", hook.bodies)
	}
	want(t, got, check.SectionNotifications, ok, "--notify sends a test")
	want(t, got, check.SectionNotifications, failure, "/does/not/exist")
	want(t, got, check.SectionNotifications, warning, "it is not notified of failures")

	got = check.Run(t.Context(), conf, check.Options{Notify: true})
	want(t, got, check.SectionNotifications, ok, "the test event start was delivered")
	want(t, got, check.SectionNotifications, failure, "the test event failure was not delivered")
	if len(hook.bodies) != 1 || !strings.Contains(hook.bodies[0], "/ping/secret/start") {
		t.Errorf("the ping was called with %q", hook.bodies)
	}

	hook.status = http.StatusForbidden
	got = check.Run(t.Context(), conf, check.Options{Notify: true})
	want(t, got, check.SectionNotifications, failure, "the test event start was not delivered")
	if strings.Contains(spell(got), "ping/secret") {
		t.Errorf("the URL is shown:\n%s", spell(got))
	}
}
