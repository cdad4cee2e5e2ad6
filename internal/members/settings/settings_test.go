package settings_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// start is a start whose arguments and variables are each on a line of their own.
func start(args, env []string) members.Start {
	s := members.Start{Means: members.Systemd, Of: members.Position{File: "u", Line: 1}}
	s.Dir = members.Word{Text: "/srv/etcd", At: members.Position{File: "u", Line: 2}}
	for i, a := range args {
		s.Args = append(s.Args, members.Word{Text: a, At: members.Position{File: "u", Line: 10 + i}})
	}
	for i, e := range env {
		name, value, _ := strings.Cut(e, "=")
		s.Env = append(s.Env, members.Variable{
			Name: name, Value: members.Word{Text: value, At: members.Position{File: "e", Line: 1 + i}},
		})
	}
	return s
}

// files are those that a test's starts refer to.
var files = map[string]string{
	"/etc/etcd.yml": "name: f1\ndata-dir: /f/data\ninitial-advertise-peer-urls: http://10.0.0.9:2380\n",
	"/srv/etcd/rel": "name: f2\n",
}

func options() settings.Options {
	return settings.Options{ReadOptions: members.ReadOptions{ReadFile: func(path string) ([]byte, error) {
		content, ok := files[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(content), nil
	}}}
}

// show is a host in one line.
func show(h *settings.Host) string {
	return fmt.Sprintf("%s %s %s %s %s", h.Name.Text, h.DataDir.Text, or(h.WALDir.Text), or(strings.Join(h.PeerURLs, ",")),
		or(members.Format(h.InitialCluster)))
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func words(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, " ")
}

func TestResolve(t *testing.T) {
	const local = "http://localhost:2380"
	for _, c := range []struct{ args, env, want string }{
		{"", "", "default /srv/etcd/default.etcd - " + local + " -"},
		{"--name m1", "", "m1 /srv/etcd/m1.etcd - " + local + " -"},
		{"-name=m1 -data-dir d", "", "m1 /srv/etcd/d - " + local + " -"},
		{"--name m1 --name=m2 --data-dir=/d/../e/", "", "m2 /e - " + local + " -"},
		{"--name m1", "ETCD_NAME=m2 ETCD_DATA_DIR=/d", "m1 /d - " + local + " -"},
		{"", "ETCD_NAME= ETCD_DATA_DIR=/d", "default /d - " + local + " -"},
		{"--data-dir /d --wal-dir w", "", "default /d /srv/etcd/w " + local + " -"},
		{"--data-dir /d --wal-dir /d/member/wal", "", "default /d - " + local + " -"},
		{"--initial-advertise-peer-urls http://10.0.0.2:1,http://10.0.0.1:1,http://10.0.0.2:1", "",
			"default /srv/etcd/default.etcd - http://10.0.0.1:1,http://10.0.0.2:1 -"},
		{"--initial-advertise-peer-urls http://10.0.0.2:1 --initial-advertise-peer-urls=", "",
			"default /srv/etcd/default.etcd - http://10.0.0.2:1 -"},
		{"--listen-peer-urls http://0.0.0.0:2380", "", "default /srv/etcd/default.etcd - - -"},
		{"--listen-peer-urls http://10.0.0.1:2380", "", "default /srv/etcd/default.etcd - " + local + " -"},
		{"--name a --initial-cluster b=http://b:1,a=http://a:1 --initial-advertise-peer-urls http://a:1", "",
			"a /srv/etcd/a.etcd - http://a:1 a=http://a:1,b=http://b:1"},
		{"--name a --initial-cluster default=" + local, "", "a /srv/etcd/a.etcd - " + local + " -"},
		{"--auto-tls --pre-vote=false --v --quota-backend-bytes 0x10 --name -x", "",
			"-x /srv/etcd/-x.etcd - " + local + " -"},
		{"--config-file /etc/etcd.yml --name m1 --data-dir d", "ETCD_WAL_DIR=/w", "f1 /f/data - http://10.0.0.9:2380 -"},
		{"", "ETCD_CONFIG_FILE=rel ETCD_DATA_DIR=/d", "f2 /srv/etcd/f2.etcd - " + local + " -"},
	} {
		h, err := settings.Resolve(start(words(c.args), words(c.env)), options())
		if err != nil {
			t.Errorf("%s %s: %v", c.env, c.args, err)
			continue
		}
		if got := show(h); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.env, c.args, got, c.want)
		}
	}
}

func TestResolve_Refused(t *testing.T) {
	for _, c := range []struct{ args, env, at, why string }{
		{"--nam m1", "", "u:10", "no flag --nam"},
		{"--name", "", "u:10", "no value"},
		{"--auto-tls true --name m1", "", "u:11", "a word that is not a flag"},
		{"--name m1 \\", "", "u:12", "line's end"},
		{"--name m1 --", "", "u:12", "not a flag"},
		{"--name m1 -- --data-dir /d", "", "u:12", "not a flag"},
		{"---name m1", "", "u:10", "no flag"},
		{"grpc-proxy start", "", "u:10", "no member"},
		{"--version", "", "u:10", "does not start"},
		{"--name=", "", "u:10", "needs a name"},
		{"--name m1,m2", "", "u:11", "list of members"},
		{"--listen-client-urls http://127.0.0.1:1", "", "u:11", "without --advertise-client-urls"},
		{"--auto-compaction-retention 1x", "", "u:11", "would not take"},
		{"--name m$1", "", "u:11", "$"},
		{"--quota-backend-bytes 8G", "", "u:11", "would not take"},
		{"", "ETCD_PRE_VOTE=maybe", "e:1", "would not take"},
		{"--initial-cluster-state old", "", "u:11", "none of new, existing"},
		{"--initial-advertise-peer-urls 10.0.0.1:2380", "", "u:11", "would not take"},
		{"", "ETCD_DATA_DIR=~/etcd", "e:1", "~"},
		{"", "ETCD_DATA_DIR=/", "e:1", "root"},
		{"--name a --initial-cluster b=http://b:1", "", "u:13", "not this one"},
		{"--initial-cluster b=b:1", "", "u:11", "--initial-cluster"},
		{"--initial-cluster default=http://b:1 --discovery-srv x", "", "u:13", "one of them only"},
		{"--config-file /none", "", "u:11", "does not exist"},
		{"--config-file /etc/etcd.yml --nam m1", "", "u:12", "no flag"},
		{"--force-new-cluster", "", "u:10", "forget"},
		{"--proxy on", "", "u:11", "proxy"},
	} {
		h, err := settings.Resolve(start(words(c.args), words(c.env)), options())
		var line *members.FileError
		if !errors.As(err, &line) || line.At.String() != c.at || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s %s: got %v, %v, want %s at %s", c.env, c.args, h, err, c.why, c.at)
		}
	}
}

func TestResolve_NoWorkingDirectory(t *testing.T) {
	s := start(words("--name m1"), nil)
	s.Dir = members.Word{}
	_, err := settings.Resolve(s, options())
	if err == nil || !strings.Contains(err.Error(), "u:11: etcd's default data directory is \"m1.etcd\"") {
		t.Errorf("got %v", err)
	}
	o := options()
	o.DataDir = "/d"
	if h, err := settings.Resolve(s, o); err != nil || h.DataDir.Text != "/d" {
		t.Errorf("with a place that is given: %v, %v", h, err)
	}
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fromDisk reads what starts refer to from the disk.
func fromDisk() settings.Options {
	return settings.Options{ReadOptions: members.ReadOptions{ReadFile: os.ReadFile, ReadDir: os.ReadDir}}
}

// TestResolve_Shadowed: one note has the whole command that takes the variables away that flags
// stand beside.
func TestResolve_Shadowed(t *testing.T) {
	word := func(text string) members.Word {
		return members.Word{Text: text, At: members.Position{File: "u", Line: 3}}
	}
	h, err := settings.Resolve(members.Start{
		Of: members.Position{File: "u", Line: 3}, Args: []members.Word{word("--name=a"), word("--data-dir=/a")},
		Env: []members.Variable{{Name: "ETCD_NAME", Value: word("b")}, {Name: "ETCD_DATA_DIR", Value: word("/b")},
			{Name: "ETCD_WAL_DIR", Value: word("/w")}},
	}, settings.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if h.Name.Text != "a" || h.DataDir.Text != "/a" || h.WALDir.Text != "/w" || len(h.Notes) != 1 ||
		!strings.HasPrefix(h.Notes[0].String(), "u:3: etcd does not start with a variable and a flag of one setting") ||
		!strings.Contains(h.Notes[0].Text, "`env -u ETCD_NAME -u ETCD_DATA_DIR etcd ...`") {
		t.Errorf("got %s in %s, %s: %v", h.Name.Text, h.DataDir.Text, h.WALDir.Text, h.Notes)
	}
}
