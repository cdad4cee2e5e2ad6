package script_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/script"
)

// The second deployment: a tutorial's files, as they are written.
const startScript = `#!/bin/sh
./etcd --name etcd-server-80-20 \
       --data-dir /data/etcd/etcd-server \
       --listen-peer-urls https://10.0.80.20:2380 \
       --listen-client-urls https://10.0.80.20:2379,http://127.0.0.1:2379 \
       --quota-backend-bytes 8000000000 \
       --initial-advertise-peer-urls https://10.0.80.20:2380 \
       --advertise-client-urls https://10.0.80.20:2379,http://127.0.0.1:2379 \
       --initial-cluster etcd-server-80-20=https://10.0.80.20:2380,etcd-server-80-21=https://10.0.80.21:2380 \
       --cert-file ./certs/etcd-peer.pem \
       --key-file ./certs/etcd-peer-key.pem \
       --client-cert-auth \
       --trusted-ca-file ./certs/ca.pem \
       --log-output stdout
`

const program = `[program:etcd-server-80-20]
command=/opt/etcd/etcd-server-startup.sh                        ; the program (relative uses PATH, can take args)
numprocs=1                                                      ; number of processes copies to start (def 1)
directory=/opt/etcd                                             ; directory to cwd to before exec (def no cwd)
autostart=true                                                  ; start at supervisord start (default: true)
user=etcd                                                       ; setuid to this UNIX account to run the program
redirect_stderr=true                                            ; redirect proc stderr to stdout (default false)
stdout_logfile=/data/logs/etcd-server/etcd.stdout.log           ; stdout log path, NONE for none; default AUTO
`

func reader(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
}

func show(starts []members.Start) string {
	var out []string
	for _, s := range starts {
		line := fmt.Sprintf("%s %s %s %s:", s.Means, s.Unit, s.Dir.Text, s.User.Text)
		for _, v := range s.Env {
			line += fmt.Sprintf(" %s=%s@%s", v.Name, v.Value.Text, v.Value.At)
		}
		for _, w := range s.Args {
			line += fmt.Sprintf(" %s@%s", w.Text, w.At)
		}
		for _, m := range s.Mounts {
			line += fmt.Sprintf(" | %s%s -> %s", m.Host.Text, m.Volume, m.Inside.Text)
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func read(t *testing.T, file, text string, files map[string]string) string {
	t.Helper()
	if !script.Recognize(file, []byte(text)) {
		t.Errorf("%q is not recognised", text)
	}
	starts, err := script.Read(file, []byte(text), script.Options{Hostname: "h1", ReadFile: reader(files)})
	if err != nil {
		return err.Error()
	}
	return show(starts)
}

func TestRead_Script(t *testing.T) {
	got := read(t, "/tmp/s.sh", startScript, nil)
	if !strings.HasPrefix(got, "script   : --name@/tmp/s.sh:2 etcd-server-80-20@/tmp/s.sh:2 --data-dir@/tmp/s.sh:3 ") ||
		!strings.HasSuffix(got, " stdout@/tmp/s.sh:14") {
		t.Errorf("got %s", got)
	}
	for _, c := range []struct{ text, want string }{
		{"cat >/opt/etcd/s.sh <<'EOF'\n#!/bin/sh\n./etcd --name a \\\n  --data-dir d\nEOF\nchmod +x /opt/etcd/s.sh\n",
			"script   : --name@f:3 a@f:3 --data-dir@f:4 d@f:4"},
		{"cat >/opt/etcd/s.sh <<'EOF'\n#!/bin/sh\n./etcd --name a \\\n  --data-dir d\nEOF\n" +
			"cat >/etc/supervisord.d/e.ini <<'EOF'\n[program:e]\ncommand=/opt/etcd/s.sh\ndirectory=/opt/etcd\nuser=etcd\nEOF",
			"supervisord e /opt/etcd etcd: --name@f:3 a@f:3 --data-dir@f:4 d@f:4"},
		{"for i in 0 1; do\n  docker run -d --name e$i -p 238$i:2380 -v /srv/e$i:/data \\\n    etcd:1 etcd --name m$i\ndone",
			"container e0  : --name@f:3 m0@f:3 | /srv/e0 -> /data\ncontainer e1  : --name@f:3 m1@f:3 | /srv/e1 -> /data"},
		{"etcd --version\n/usr/bin/etcd --name $(hostname)", "script   : --name@f:2 h1@f:2"},
		{"start-stop-daemon --start --exec /usr/bin/etcd -- --name a",
			"f:1: start-stop-daemon seems to start etcd, and how it does " +
				"so is not known here"},
		{"mkdir /etcd\nX=$(cat /etcd/x)\nsh $X",
			"f:2: what $(cat …) gives cannot be known from the text"},
		{"docker run -v $X:/data etcd:1 etcd",
			"f:1: $X is set nowhere in this file: its value is that of whoever runs it"},
		{"docker run -v $X:/data nginx\netcd --name a", "script   : --name@f:2 a@f:2"},
	} {
		if got := read(t, "f", c.text, nil); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, got, c.want)
		}
	}
}

// TestRead_SupervisordInclude: the main file of supervisord includes the programs.
func TestRead_SupervisordInclude(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"etcd.conf": "[program:etcd]\ncommand=/opt/etcd-v3.5.1 --name a\ndirectory=%(here)s\nuser=etcd\n",
		"web.conf":  "[program:web]\ncommand=/opt/web\n", "etcd.off": "[program:old]\ncommand=/opt/etcd --name b\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, "conf.d", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const main = "[unix_http_server]\nfile=/run/s.sock\n[supervisord]\nlogfile=/l\n[include]\n" +
		"files = conf.d/*.conf none/*\n"
	o := script.Options{ReadFile: os.ReadFile, ReadDir: os.ReadDir}
	file := filepath.Join(dir, "supervisord.conf")
	starts, err := script.Read(file, []byte(main), o)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("supervisord etcd %[1]s etcd: --name@%[1]s/etcd.conf:2 a@%[1]s/etcd.conf:2", filepath.Join(dir,
		"conf.d"))
	if got := show(starts); got != want || !script.Recognize(file, []byte(main)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	_, err = script.Read(file, []byte(strings.Replace(main, "conf.d/*", "c*/*", 1)), o)
	if err == nil || !strings.Contains(err.Error(), "supervisord.conf:6: which files") {
		t.Errorf("a folder that is a pattern: %v", err)
	}
}

func TestRead_Supervisord(t *testing.T) {
	files := map[string]string{
		"/opt/etcd/etcd-server-startup.sh": startScript,
		"/opt/etcd/args.sh":                "#!/bin/bash\ncd /srv\nexec ./etcd --name \"$1\" --data-dir $D\n",
	}
	got := read(t, "/etc/e.ini", program, files)
	if !strings.HasPrefix(got, "supervisord etcd-server-80-20 /opt/etcd etcd: --name@/opt/etcd/etcd-server-startup.sh:2") {
		t.Errorf("got %s", got)
	}
	starts, err := script.Read("/etc/e.ini", []byte(program), script.Options{ReadFile: reader(files)})
	if err != nil || len(starts[0].Notes) != 1 || !strings.Contains(starts[0].Notes[0].Text, "ends the shell only") {
		t.Errorf("got %+v, %v", starts, err)
	}
	for _, c := range []struct{ text, want string }{
		{"[program:e]\ncommand=/opt/etcd/etcd\n  --name a ; no\n  ; none\n\n  --data-dir \"/d d\"\ndirectory = /opt",
			"supervisord e /opt : --name@f:3 a@f:3 --data-dir@f:6 /d d@f:6"},
		{"[supervisord]\nenvironment=A=1,B=2\n[program:e]\ncommand=etcd\nenvironment=ETCD_NAME=\"x,y\",\n  B='3'",
			"supervisord e  : A=1@f:2 B=3@f:6 ETCD_NAME=x,y@f:5"},
		{"[program:e]\ncommand=/opt/etcd/args.sh %(program_name)s-%(host_node_name)s\nenvironment=D=\"/data/%%\"\nUser: 1000",
			"supervisord e /srv 1000: D=/data/%@f:3 --name@/opt/etcd/args.sh:3 e-h1@/opt/etcd/args.sh:3 " +
				"--data-dir@/opt/etcd/args.sh:3 /data/%@/opt/etcd/args.sh:3"},
		{"[program:e]\ncommand=bash -c \"cd /w && exec etcd --name 'a b'\"", "supervisord e /w : --name@f:2 a b@f:2"},
		{"[program:e]\ncommand=etcd --name %(ENV_N)s",
			"f:2: command=etcd --name %(ENV_N)s: the value of %(ENV_N)s is not known here"},
		{"[program:e]\ncommand=etcd --name a # b",
			"f:2: what follows # is a comment in some versions of supervisord only"},
		{"[program:e]\ncommand=etcd --name a\ndirectory=data",
			"f:3: directory=data is relative to the folder in which supervisord " +
				"was started"},
		{"[program:e]\ncommand=etcd\nnumprocs=2",
			"f:3: numprocs=2: several processes of one program are not understood"},
		{"[program:etcd]\ncommand=/opt/x.sh",
			"f:2: the program etcd is named after etcd, and what /opt/x.sh does is not known here: it " +
				"cannot be read as a script"},
		{"[program:a]\ncommand=%(x)s\n[program:e]\ncommand=etcd --name a\n[program:e]\ncommand=etcd --name b",
			"supervisord e  : --name@f:6 b@f:6"},
	} {
		if got := read(t, "f", c.text, files); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestRecognize(t *testing.T) {
	for _, text := range []string{
		"ETCD_NAME=a\nETCD_DATA_DIR=/d\n", "[Unit]\nDescription=etcd\n[Service]\nExecStart=/usr/bin/etcd --name a\n",
		"name: a\ndata-dir: /etcd\n", "FROM etcd\nCMD etcd --name a\n", "services:\n  a:\n    image: etcd\n",
		"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - command: [etcd]\n", "#[Member]\nETCD_NAME=\"a b\"\n",
	} {
		if script.Recognize("x", []byte(text)) {
			t.Errorf("%q is taken for a script", text)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(startScript)
	f.Add(program)
	f.Add("docker run -v /a:/b etcd etcd --name a")
	f.Fuzz(func(t *testing.T, text string) {
		starts, err := script.Read("/f", []byte(text), script.Options{Hostname: "h", ReadFile: reader(nil)})
		for _, s := range starts {
			if s.Dir.Text != "" && s.Dir.Text[0] != '/' {
				t.Errorf("%q: the folder %q is relative", text, s.Dir.Text)
			}
		}
		if err == nil && len(starts) > 0 && !script.Recognize("/f", []byte(text)) {
			t.Errorf("%q is read and not recognised", text)
		}
	})
}
