package unit_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/members/unit"
)

// host are the files of a host, by absolute path.
type host map[string]string

func (h host) options() members.ReadOptions {
	files := fstest.MapFS{}
	for name, content := range h {
		files[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(content)}
	}
	return members.ReadOptions{
		Hostname: "node1.example",
		ReadFile: func(p string) ([]byte, error) { return fs.ReadFile(files, strings.TrimPrefix(p, "/")) },
		ReadDir:  func(p string) ([]fs.DirEntry, error) { return fs.ReadDir(files, strings.TrimPrefix(p, "/")) },
	}
}

// read returns the one start of a unit.
func (h host) read(file string) (members.Start, error) {
	starts, err := unit.Read(file, []byte(h[file]), h.options())
	if err != nil {
		return members.Start{}, err
	}
	if len(starts) != 1 {
		return members.Start{}, fmt.Errorf("%d starts", len(starts))
	}
	return starts[0], nil
}

// resolve returns the member of a unit.
func (h host) resolve(file string) (*settings.Host, error) {
	s, err := h.read(file)
	if err != nil {
		return nil, err
	}
	return settings.Resolve(s, settings.Options{ReadOptions: h.options()})
}

// args are the arguments, each with its position.
func args(s members.Start) string {
	var out []string
	for _, a := range s.Args {
		out = append(out, a.Text+"@"+path.Base(a.At.File)+fmt.Sprint(":", a.At.Line))
	}
	return strings.Join(out, " ")
}

const etcdConf = `#[Member]
[Member]
ETCD_NAME="m1"
ETCD_DATA_DIR='/data/etcd'
# ETCD_WAL_DIR=""
export ETCD_WAL_DIR=/ignored
ETCD_INITIAL_CLUSTER=m1=http://10.0.0.1:2380,\
m2=http://10.0.0.2:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS="http://10.0.0.1:2380"  
OPTS=--auto-compaction-retention=1 "--quota-backend-bytes" 17179869184
`

const file = "/etc/systemd/system/etcd.service"

// service is a unit with these lines in its section.
func service(lines ...string) string { return "[Service]\n" + strings.Join(lines, "\n") + "\n" }

func TestRead_Args(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		more  host
		want  string
	}{
		"plain": {[]string{"ExecStart=/usr/bin/etcd --name m1"}, nil, "--name@etcd.service:2 m1@etcd.service:2"},
		"continued": {[]string{`ExecStart=/usr/bin/etcd --name m1 \`, "# a comment", `  --data-dir=/d`}, nil,
			"--name@etcd.service:2 m1@etcd.service:2 --data-dir=/d@etcd.service:4"},
		"reset": {[]string{"ExecStart=/bin/false", "ExecStart=", "ExecStart=-/usr/bin/etcd a"}, nil, "a@etcd.service:4"},
		"argv0": {[]string{"ExecStart=@/usr/bin/etcd etcd a"}, nil, "a@etcd.service:2"},
		"quotes": {[]string{`ExecStart=/usr/bin/etcd "a b" 'c d' e\x20f g\"h "" i"j k"`}, nil,
			`a b@etcd.service:2 c d@etcd.service:2 e f@etcd.service:2 g"h@etcd.service:2 @etcd.service:2 ij k@etcd.service:2`},
		"unknown escape": {[]string{`ExecStart=/usr/bin/etcd \q`}, nil, `\q@etcd.service:2`},
		"semicolon":      {[]string{`ExecStart=/usr/bin/etcd \; ";"x`}, nil, ";@etcd.service:2 ;x@etcd.service:2"},
		"specifiers": {[]string{`ExecStart=/usr/bin/etcd %n %p %% %H %l %S`}, nil,
			"etcd.service@etcd.service:2 etcd@etcd.service:2 %@etcd.service:2 node1.example@etcd.service:2 " +
				"node1@etcd.service:2 /var/lib@etcd.service:2"},
		"variables": {[]string{`Environment=A=1 "B=2 3" 'C=4' D=x=y`,
			"ExecStart=/usr/bin/etcd ${A} a$A $B ${B} $$A ${C}${D} $Z"}, nil,
			"1@etcd.service:3 a$A@etcd.service:3 2@etcd.service:2 3@etcd.service:2 2 3@etcd.service:3 $A@etcd.service:3 " +
				"4x=y@etcd.service:3"},
		"no variables": {[]string{"Environment=A=1", "ExecStart=:/usr/bin/etcd ${A}"}, nil, "${A}@etcd.service:3"},
		"file over variable": {
			[]string{"EnvironmentFile=/e1", "EnvironmentFile=-/e2", "EnvironmentFile=-/e3", "Environment=A=0",
				"ExecStart=/usr/bin/etcd ${A}${B}"},
			host{"/e1": "A=1\nB=1\n", "/e2": "A=2\n"}, "21@etcd.service:6",
		},
		"files reset": {[]string{"EnvironmentFile=/none", "EnvironmentFile=", "ExecStart=/usr/bin/etcd a"}, nil,
			"a@etcd.service:4"},
		"unset": {[]string{"Environment=A=1 B=2 C=3", "UnsetEnvironment=A B=2 C=4", "ExecStart=/usr/bin/etcd $A $B $C"}, nil,
			"3@etcd.service:2"},
		"additions": {
			[]string{"ExecStart=/usr/bin/etcd a"},
			host{
				"/etc/systemd/system/etcd.service.d/20.conf":     service("ExecStart=", "ExecStart=/usr/bin/etcd b ${A}"),
				"/etc/systemd/system/etcd.service.d/10.conf":     "[Service]\nExecStart=/usr/bin/etcd c\n",
				"/usr/lib/systemd/system/etcd.service.d/30.conf": "[Service]\nEnvironment=A=5\n",
				"/usr/lib/systemd/system/etcd.service.d/20.conf": "[Service]\nExecStart=/hidden\n",
				"/run/systemd/system/service.d/40.conf":          "[Unit]\nEnvironment=A=6\n",
				"/etc/systemd/system/etcd.service.d/50.txt":      "[Service]\nEnvironment=A=7\n",
			}, "b@20.conf:3 5@20.conf:3",
		},
		"words of a shell": {
			[]string{"EnvironmentFile=/etc/etcd/etcd.conf",
				`ExecStart=/bin/bash -c "GOMAXPROCS=$(nproc) /usr/bin/etcd --name=\"${ETCD_NAME}\" \`,
				`--data-dir=\"${ETCD_DATA_DIR}\""`},
			host{"/etc/etcd/etcd.conf": etcdConf},
			"--name=m1@etcd.service:3 --data-dir=/data/etcd@etcd.service:3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := host{file: service(c.lines...)}
			for k, v := range c.more {
				h[k] = v
			}
			for _, ending := range []string{"\n", "\r\n"} {
				h[file] = strings.ReplaceAll(h[file], "\n", ending)
				s, err := h.read(file)
				if err != nil {
					t.Fatal(err)
				}
				if got := args(s); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
			}
		})
	}
}

func TestRead_Refused(t *testing.T) {
	const start = "ExecStart=/usr/bin/etcd"
	for name, c := range map[string]struct {
		lines   []string
		more    host
		at, why string
	}{
		"nothing":            {[]string{"Type=notify"}, nil, file, "no ExecStart"},
		"another program":    {[]string{"ExecStart=/usr/bin/redis"}, nil, file + ":2", "does not start etcd"},
		"two":                {[]string{start, start}, nil, file + ":3", "a second ExecStart"},
		"two in one":         {[]string{start + " ; /bin/true"}, nil, file + ":2", "second command"},
		"lost continuation":  {[]string{start + " --name m1", "  --data-dir=/d"}, nil, file + ":3", "end of the line"},
		"quote":              {[]string{start + ` --name "m1`}, nil, file + ":2", "no end"},
		"no file":            {[]string{"EnvironmentFile=/none", start}, nil, file + ":2", "none"},
		"relative file":      {[]string{"EnvironmentFile=none", start}, nil, file + ":2", "not an absolute"},
		"pattern":            {[]string{"EnvironmentFile=/etc/*.conf", start}, nil, file + ":2", "pattern"},
		"no variable":        {[]string{start + " --name ${X}"}, nil, file + ":2", "nothing sets ${X}"},
		"systemd's variable": {[]string{start + " $STATE_DIRECTORY"}, nil, file + ":2", "systemd sets it"},
		"passed on":          {[]string{"PassEnvironment=X", start + " ${X}"}, nil, file + ":2", "passed on"},
		"passed on to etcd":  {[]string{"PassEnvironment=ETCD_NAME", start}, nil, file + ":2", "passed on"},
		"no variable's name": {[]string{start + " $X/y"}, nil, file + ":2", "no variable"},
		"specifier":          {[]string{start + " --name %b"}, nil, file + ":2", "%b cannot be known"},
		"unknown variable":   {[]string{"Environment=ETCD_NAME=%b", start}, nil, file + ":2", "%b cannot be known"},
		"working directory":  {[]string{"WorkingDirectory=data", start}, nil, file + ":2", "not an absolute"},
		"comment at an end":  {[]string{"WorkingDirectory=/d # was: /e", start}, nil, file + ":2", "without quotes"},
		"escape":             {[]string{`Environment=A=\/x`, start}, nil, file + ":2", "does not know"},
		"relative program":   {[]string{"ExecStart=bin/etcd"}, nil, file + ":2", "neither a name nor"},
		"images":             {[]string{"ExtensionImages=/x", start}, nil, file + ":2", "not understood"},
		"head":               {[]string{"[Install", start}, nil, file + ":2", "head of a section"},
		"variable's quote":   {[]string{"EnvironmentFile=/e", start + " $A"}, host{"/e": "A='\"'\n"}, "/e:1", "no end"},
		"file of variables":  {[]string{"EnvironmentFile=/e", start}, host{"/e": "A=1\nB='a\\b'\n"}, "/e:2", "versions"},
		"shell's variable":   {[]string{`ExecStart=/bin/sh -c "etcd --name $$X"`}, nil, file + ":2", "X"},
		"addition":           {[]string{start}, host{file + ".d/a.conf": "x\n"}, file + ".d/a.conf:1", "no setting"},
		"hidden": {[]string{start},
			host{"/run/systemd/transient/etcd.service": "x\n"}, file, "systemd takes /run/systemd/transient"},
		"empty after a mount": {[]string{"BindPaths=/a:/b", "BindPaths=", start}, nil, file + ":3", "not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			h := host{file: service(c.lines...)}
			for k, v := range c.more {
				h[k] = v
			}
			_, err := h.read(file)
			var line *members.FileError
			if !errors.As(err, &line) || line.At.String() != c.at || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v, want %q at %s", err, c.why, c.at)
			}
		})
	}
}

// TestRead_Member is the whole way from a unit to a member.
func TestRead_Member(t *testing.T) {
	h := host{
		"/etc/etcd/etcd.conf": strings.ReplaceAll(etcdConf, "\n", "\r\n"),
		file: service("EnvironmentFile=-/etc/etcd/etcd.conf", "WorkingDirectory=/data/etcd", "User=etcd", "Group=ops",
			"ExecStart=/usr/bin/etcd $OPTS"),
	}
	// With the line ends of Windows systemd takes the continued line for an end.
	if _, err := h.resolve(file); err == nil || !strings.HasPrefix(err.Error(), "/etc/etcd/etcd.conf:7: ") {
		t.Errorf("a continuation with the line end of Windows: %v", err)
	}
	h["/etc/etcd/etcd.conf"] = etcdConf
	m, err := h.resolve(file)
	if err != nil {
		t.Fatal(err)
	}
	quota, _ := m.Setting("quota-backend-bytes")
	got := strings.TrimSpace(fmt.Sprintln(m.Name, m.DataDir, m.WALDir.Text, m.PeerURLs, m.PeerURLsAt,
		members.Format(m.InitialCluster), m.InitialClusterAt, m.User, m.Group, m.Unit, m.Means, quota))
	want := "{m1 /etc/etcd/etcd.conf:3} {/data/etcd /etc/etcd/etcd.conf:4}  [http://10.0.0.1:2380] " +
		"/etc/etcd/etcd.conf:9 m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380 /etc/etcd/etcd.conf:7 " +
		"{etcd " + file + ":4} {ops " + file + ":5} etcd.service systemd " +
		"{quota-backend-bytes 17179869184 --quota-backend-bytes /etc/etcd/etcd.conf:10}"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if notes := fmt.Sprint(m.Notes); !strings.Contains(notes, `etcd.conf:6: "export ETCD_WAL_DIR" is not the name`) {
		t.Errorf("notes %s", notes)
	}
}
