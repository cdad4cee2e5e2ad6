//go:build machine

package unit_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/members/unit"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// manager is systemd itself, which reads units and does not start them.
type manager struct {
	t        *testing.T
	home     string // of its units
	bin, dir string // etcd, and where that runs
}

func newManager(t *testing.T) *manager {
	t.Helper()
	// Not t.TempDir: another user reads in it.
	home, err := os.MkdirTemp("", "systemd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	m := &manager{t: t, home: home, bin: testserver.Binary(t, "3.7", "etcd"), dir: filepath.Join(home, "data")}
	for _, dir := range []string{"units", "run", "config/environment.d", "data"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"", "run"} {
		if err := os.Chmod(filepath.Join(home, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	m.write("units/default.target", "[Unit]\nWants=etcd.service\n")
	return m
}

func (m *manager) write(name, content string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.home, name), []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// run runs a program of systemd as nobody, for as root it wants to be the first process.
func (m *manager) run(program string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + m.home, "XDG_RUNTIME_DIR=" + m.home + "/run", "XDG_CONFIG_HOME=" + m.home + "/config",
		"SYSTEMD_UNIT_PATH=" + m.home + "/units", "SYSTEMD_LOG_TARGET=console",
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("%s %v: %v: %s", program, args, err, said.Bytes())
	}
	return string(out)
}

// started is what systemd would start.
type started struct {
	args, env []string
	dir       string
}

// load reads etcd.service: systemd prints what it understood.
func (m *manager) load() started {
	m.t.Helper()
	out := m.run("/lib/systemd/systemd", "--test", "--user", "--unit=default.target")
	_, of, found := strings.Cut(out, "-> Unit etcd.service:\n")
	if !found {
		m.t.Fatalf("systemd does not know the unit: %s", out)
	}
	of, _, _ = strings.Cut(of, "-> Unit ")
	s := started{dir: "/"}
	var file, optional string
	commands := 0
	for line := range strings.Lines(of) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "Command Line":
			args, err := shellquote.Split(value)
			if err != nil {
				m.t.Fatalf("%q: %v", value, err)
			}
			s.args = args
			commands++
		case "Environment":
			s.env = append(s.env, value)
		case "EnvironmentFile":
			file, optional = strings.TrimPrefix(value, "-"), value
		case "WorkingDirectory":
			s.dir = value
		}
	}
	if commands != 1 {
		return started{} // which it does not start
	}
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil && !strings.HasPrefix(optional, "-") {
			return started{}
		}
		s.env = append(append(s.env, m.variables(string(raw))...), emptied(string(raw))...)
	}
	s.args = replaced(s.args, s.env)
	return s
}

// variables asks the program of systemd that reads files of the same form.
func (m *manager) variables(raw string) []string {
	m.t.Helper()
	m.write("config/environment.d/10.conf", raw)
	var out []string
	const program = "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
	for line := range strings.Lines(m.run(program)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if len(value) > 1 && value[0] == '"' {
			value = escaped.ReplaceAllStringFunc(value[1:len(value)-1], func(s string) string {
				return strings.NewReplacer(`\n`, "\n", `\r`, "\r", `\t`, "\t", `\\`, `\`, `\`, "").Replace(s)
			})
		}
		if name != "QT_ACCESSIBILITY" { // of another package
			out = append(out, name+"="+value)
		}
	}
	return out
}

// emptied returns the variables that a file sets to nothing at last, which the program that
// is asked for the others leaves out.
func emptied(raw string) []string {
	var out []string
	for line := range strings.Lines(raw) {
		name, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if !found {
			continue
		}
		empty := strings.TrimSpace(name) + "="
		out = slices.DeleteFunc(out, func(e string) bool { return e == empty })
		if value == "" {
			out = append(out, empty)
		}
	}
	return out
}

var (
	escaped   = regexp.MustCompile(`\\.`)
	reference = regexp.MustCompile(`\$\$|\$\{[A-Za-z0-9_]*\}`)
)

// replaced does what systemd does when it starts the program, as systemd.service(5) says it.
func replaced(args, env []string) []string {
	get := func(name string) string {
		for _, e := range slices.Backward(env) {
			if value, ok := strings.CutPrefix(e, name+"="); ok {
				return value
			}
		}
		return ""
	}
	var out []string
	for i, a := range args {
		switch {
		case i > 0 && len(a) > 1 && a[0] == '$' && a[1] != '{' && a[1] != '$':
			out = append(out, strings.Fields(get(a[1:]))...)
		case i > 0:
			out = append(out, reference.ReplaceAllStringFunc(a, func(s string) string {
				if s == "$$" {
					return "$"
				}
				return get(s[2 : len(s)-1])
			}))
		default:
			out = append(out, a)
		}
	}
	return out
}

// TestMachineVariables compares the reading of environment files with systemd's.
func TestMachineVariables(t *testing.T) {
	m := newManager(t)
	for _, raw := range []string{
		etcdConf, strings.ReplaceAll(etcdConf, "\\\n", "\n"),
		strings.ReplaceAll(strings.ReplaceAll(etcdConf, "\\\n", ""), "\n", "\r\n"),
		"A=\"a\"b \nB=a\"b\"\nC= x\\\n  y\nexport D=1\n[Member]\nG=\"a\" # c\nH=a\\ \nJ='it'\"s\"\r\nK=1",
		"A=1\nA=2\n A =3\n=x\nB\n;c\nD=a\\\\\nE=\\\nF=2\n", "A=a \\\n\nB=2\n", "A=\n\nB=\"\"\nC=''x\n", "A=\"x\ny\"\nB=1\n",
		"A='x\ny' z \nB=\\\"x\\\"\nC=\"a\\\"b\"\n", "\ufeffA=1\nB=2\n", "A=1 \\", "A=x#y ;z\n", "A==b=c\nB = \n",
		"A='1' '2'\n", "A=1\t\nB=\t2\n", "A.B=1\nC-D=2\n1E=3\n_F=4\n",
	} {
		starts, err := unit.ReadVariables("f", []byte(raw), host{}.options())
		if err != nil {
			t.Errorf("%q: %v", raw, err)
			continue
		}
		var ours []string
		for _, v := range starts[0].Env {
			if v.Value.Text != "" { // which the program leaves out
				ours = append(ours, v.Name+"="+v.Value.Text)
			}
		}
		theirs := m.variables(raw)
		slices.Sort(ours)
		slices.Sort(theirs)
		if !slices.Equal(ours, theirs) {
			t.Errorf("%q:\nours    %q\nsystemd %q", raw, ours, theirs)
		}
	}
}

// lineMutations are what happens to a line that is copied or edited by hand.
var lineMutations = map[string]func(string) string{
	"gone":         func(string) string { return "" },
	"comment":      func(l string) string { return "# " + l },
	"twice":        func(l string) string { return l + "\n" + l },
	"windows":      func(l string) string { return l + "\r" },
	"indented":     func(l string) string { return "   " + l },
	"space":        func(l string) string { return l + " " },
	"ended":        func(l string) string { return strings.TrimSuffix(l, `\`) },
	"goes on":      func(l string) string { return l + `\` },
	"goes on 2":    func(l string) string { return l + ` \` },
	"name":         func(l string) string { return "X" + l },
	"name 2":       func(l string) string { return strings.Replace(l, "=", "X=", 1) },
	"small":        func(l string) string { return strings.ToLower(l) },
	"spaces":       func(l string) string { return strings.Replace(l, "=", " = ", 1) },
	"no equals":    func(l string) string { return strings.Replace(l, "=", " ", 1) },
	"empty":        func(l string) string { name, _, _ := strings.Cut(l, "="); return name + "=" },
	"reset":        func(l string) string { name, _, _ := strings.Cut(l, "="); return l + "\n" + name + "=" },
	"export":       func(l string) string { return "export " + l },
	"quotes":       func(l string) string { return strings.Replace(l, "=", `="`, 1) + `"` },
	"one quote":    func(l string) string { return strings.Replace(l, "=", `="`, 1) },
	"last quote":   func(l string) string { return l + `"` },
	"no quotes":    func(l string) string { return strings.NewReplacer(`\"`, "", `"`, "", "'", "").Replace(l) },
	"other quotes": func(l string) string { return strings.ReplaceAll(l, `"`, "'") },
	"brace":        func(l string) string { return strings.Replace(l, "}", "", 1) },
	"no braces":    func(l string) string { return strings.NewReplacer("{", "", "}", "").Replace(l) },
	"two dollars":  func(l string) string { return strings.ReplaceAll(l, "$", "$$") },
	"backslash":    func(l string) string { return strings.Replace(l, "/", `\/`, 1) },
	"escape":       func(l string) string { return strings.Replace(l, "m1", `\x6d1`, 1) },
	"percent":      func(l string) string { return strings.Replace(l, "m1", `%p`, 1) },
	"percents":     func(l string) string { return strings.Replace(l, "m1", `m%%1`, 1) },
	"hash":         func(l string) string { return l + " # was: x" },
	"semicolon":    func(l string) string { return l + " ; x" },
	"section":      func(l string) string { return "[Install]\n" + l },
	"relative":     func(l string) string { return strings.Replace(l, "=/", "=", 1) },
	"bom":          func(l string) string { return "\ufeff" + l },
}

// TestMachineMutations changes each line of three deployments in each way. What comes of it here
// is what etcd takes that is started as systemd would do it, or nothing.
func TestMachineMutations(t *testing.T) {
	m := newManager(t)
	const listen = "--listen-peer-urls http://127.0.0.1:0 --listen-client-urls http://127.0.0.1:0 " +
		"--advertise-client-urls http://127.0.0.1:1"
	for name, files := range map[string]struct{ unit, env string }{
		"through bash": {
			"[Service]\nType=notify\nWorkingDirectory=PLACE\nEnvironmentFile=-CONF\n" +
				`ExecStart=/bin/bash -c "exec env -i ETCD --name=\"${ETCD_NAME}\" \` + "\n" +
				`  --data-dir=\"${ETCD_DATA_DIR}\" --initial-advertise-peer-urls=\"${ETCD_PEERS}\" \` + "\n" +
				listen + `"` + "\n",
			"#[Member]\n[Member]\nETCD_NAME=\"m1\"\nETCD_DATA_DIR=\"PLACE/m1.etcd\"\nETCD_PEERS=http://10.0.0.1:2380,\\\n" +
				"http://10.0.0.2:2380\n",
		},
		"all flags": {
			"[Service]\nWorkingDirectory=PLACE\nExecStart=ETCD --name m1 \\\n  --data-dir data.etcd \\\n  --wal-dir=w \\\n" +
				"  --initial-advertise-peer-urls http://10.0.0.1:2380 \\\n  " + listen + "\n",
			"",
		},
		"all variables": {
			"[Service]\nEnvironment=ETCD_NAME=m0 ETCD_WAL_DIR=PLACE/wal\nEnvironmentFile=CONF\n" +
				"WorkingDirectory=PLACE\nExecStart=ETCD $OPTIONS\n",
			"ETCD_NAME=m1\nETCD_DATA_DIR='PLACE/m1'\nETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://10.0.0.1:2380\"\n" +
				"OPTIONS=" + listen + "\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.t = t
			place := strings.NewReplacer("PLACE", m.dir, "ETCD ", m.bin+" ", "CONF", m.home+"/etcd.conf")
			unitLines := strings.Split(place.Replace(files.unit), "\n")
			envLines := strings.Split(place.Replace(files.env), "\n")
			if problem := m.compare(strings.Join(unitLines, "\n"), strings.Join(envLines, "\n")); problem != "" {
				t.Fatalf("as it is: %s", problem)
			}
			var same, refused int
			for i := range len(unitLines) + len(envLines) {
				for what, mutate := range lineMutations {
					u, e := slices.Clone(unitLines), slices.Clone(envLines)
					list, j := u, i
					if i >= len(u) {
						list, j = e, i-len(u)
					}
					if list[j] == "" {
						continue
					}
					before := list[j]
					if list[j] = mutate(before); list[j] == before {
						continue
					}
					switch problem := m.compare(strings.Join(u, "\n"), strings.Join(e, "\n")); {
					case problem == "":
						same++
					case strings.HasPrefix(problem, "we refuse"):
						refused++
					default:
						t.Errorf("%s: %q: %s", what, list[j], problem)
					}
				}
			}
			t.Logf("%d as etcd takes it, %d refused", same, refused)
			if same == 0 || refused == 0 {
				t.Error("nothing was compared")
			}
		})
	}
}

// compare says in what the member that a unit describes differs from what etcd takes.
func (m *manager) compare(unitFile, envFile string) string {
	m.t.Helper()
	m.write("units/etcd.service", unitFile)
	m.write("etcd.conf", envFile)
	h := host{file: unitFile, m.home + "/etcd.conf": envFile}
	ours, err := h.resolve(file)
	if err != nil {
		return "we refuse: " + err.Error()
	}
	s := m.load()
	if len(s.args) == 0 {
		return "nothing starts, for systemd"
	}
	if err := os.RemoveAll(m.dir); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); err != nil {
		return "nothing starts: " + err.Error()
	}
	taken, output, ok := testserver.Take(m.t, s.dir, s.args, s.env)
	if !ok {
		return "nothing starts: " + output
	}
	if s.dir == m.home {
		// Where nothing is said a user's manager starts it there, and the system's in /.
		for _, place := range []*string{&taken.DataDir, &taken.WALDir} {
			if !strings.HasPrefix(*place, m.dir+"/") {
				*place = strings.TrimPrefix(*place, m.home)
			}
		}
	}
	return differs(ours, taken)
}

func differs(h *settings.Host, taken testserver.Taken) string {
	if taken.WALDir != "" {
		taken.WALDir = filepath.Clean(taken.WALDir)
	}
	got := fmt.Sprint(h.Name.Text, " ", h.DataDir.Text, " ", h.WALDir.Text, " ", strings.Join(h.PeerURLs, ","))
	want := fmt.Sprint(taken.Name, " ", filepath.Clean(taken.DataDir), " ", taken.WALDir, " ", taken.PeerURLs)
	if got != want {
		return "ours " + got + ", etcd's " + want
	}
	return ""
}
