package script_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/script"
)

// variables is a start script of another style.
const variables = `#!/bin/bash
set -e
# settings
NAME=etcd-1
export ETCD_DATA_DIR="/data/$NAME"
THIS_IP=10.0.0.1; TOKEN='k8s cluster'
CLUSTER="etcd-1=http://${THIS_IP}:2380"
CLUSTER="$CLUSTER,etcd-2=http://10.0.0.2:2380"
ARGS="--initial-cluster-token x"
cd work
start() {
  exec ../etcd --name "$1" \
    --initial-advertise-peer-urls "http://${THIS_IP}:2380" \
    --initial-cluster "$CLUSTER" $ARGS \
    --wal-dir=${WAL:-/wal}
}
if [ "$NAME" = etcd-1 ]; then
  start $NAME
fi
`

// written is a script that a script writes and runs.
const written = `#!/bin/sh
NAME=etcd-1
cat > run.sh <<EOF
#!/bin/sh
export ETCD_NAME=$NAME
cd work
../etcd --data-dir data \
  --initial-cluster $NAME=http://10.0.0.1:2380
EOF
sh run.sh
`

// mutations returns the text with one line changed, in many ways.
func mutations(text string) (out []string) {
	lines := strings.SplitAfter(text, "\n")
	with := func(i int, line ...string) {
		out = append(out, strings.Join(slices.Concat(lines[:i], line, lines[i+1:]), ""))
	}
	for i, l := range lines {
		end := strings.TrimSuffix(l, "\n")
		with(i)                                     // the line is lost
		with(i, l, l)                               // it is there twice
		with(i, end+"\r\n")                         // its end is Windows'
		with(i, "#"+l)                              // it is a comment
		with(i, end+" \n")                          // a blank after a continuation
		with(i, strings.TrimSuffix(end, "\\")+"\n") // the continuation is lost
		with(i, end+"\\\n")                         // there is one too many
		with(i, end)                                // the end of the line is lost
		with(i, "false && "+l)
		with(i, "if true; then "+end+"; fi\n")
		for _, r := range [][2]string{
			{`"`, ""}, {`"`, "'"}, {"'", `"`}, {"$", ""}, {"$", `\$`}, {"{", ""}, {"}", ""}, {"etcd-1", "etcd-2"},
			{"NAME", "NMAE"}, {"=", " "}, {"=", " ="}, {" ", ""}, {"--", "-"}, {"/", "//"}, {"exec ", ""}, {":-", "-"},
			{"EOF", "'EOF'"}, {"export ", ""}, {"http", "\thttp"}, {"data", "da ta"}, {"--name", "--name=x --name"},
		} {
			for from := 0; ; {
				j := strings.Index(l[from:], r[0])
				if j < 0 {
					break
				}
				with(i, l[:from+j]+r[1]+l[from+j+len(r[0]):])
				from += j + len(r[0])
			}
			if strings.Count(l, r[0]) > 1 {
				with(i, strings.ReplaceAll(l, r[0], r[1]))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const fakeEtcd = `#!/bin/sh
{ printf '%s\n' "$PWD"; env | grep '^ETCD_' | sort; for a in "$@"; do printf '<%s>\n' "$a"; done
printf '\0'; } >>"$LOG"
`

// runs is what an etcd gets from a shell: the folder, ETCD_ variables, the words.
func runs(t *testing.T, dir, text string) []string {
	t.Helper()
	log := filepath.Join(dir, "log")
	if err := os.Remove(log); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "start.sh")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	interpreter := "sh"
	if strings.HasPrefix(text, "#!/bin/bash") {
		interpreter = "bash"
	}
	cmd := exec.Command(interpreter, path)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LOG=" + log}
	said, _ := cmd.CombinedOutput() // many of these fail
	if strings.Contains(string(said), "cd: ") {
		return nil // that a folder is there is taken for granted
	}
	raw, err := os.ReadFile(log)
	if err != nil {
		return nil
	}
	out := strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
	for i := range out { // //tmp is /tmp
		out[i] = "/" + strings.TrimLeft(out[i], "/")
	}
	return out
}

// TestRead_Mutated: whatever happens to a line of a script, nothing is taken from it that a
// shell would not give to etcd.
func TestRead_Mutated(t *testing.T) { mutate(t, 40) }

func mutate(t *testing.T, every int) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "etcd"), []byte(fakeEtcd), 0o755); err != nil {
		t.Fatal(err)
	}
	said, all, n := 0, 0, 0
	for _, text := range []string{startScript, variables, written} {
		// Where the script is run is known only if it says so itself.
		text = strings.Replace(text, "\n", "\ncd "+dir+"\n", 1)
		for i, m := range append([]string{text}, mutations(text)...) {
			if n++; every > 1 && i > 0 && n%every != 1 {
				continue
			}
			all++
			starts, err := script.Read("start.sh", []byte(m), script.Options{})
			if err != nil {
				if i == 0 {
					t.Errorf("%s\n%v", m, err)
				}
				continue
			}
			if want := runs(t, dir, m); len(want) > 0 { // else it starts nothing, whatever it says
				said++
				compare(t, m, starts, want)
			}
		}
	}
	if said < all/5 {
		t.Errorf("%d of %d scripts are understood: this compares too little", said, all)
	}
	t.Logf("%d of %d scripts are understood", said, all)
}

func compare(t *testing.T, text string, starts []members.Start, want []string) {
	t.Helper()
	for _, s := range starts {
		got := s.Dir.Text + "\n"
		for _, v := range s.Env {
			if strings.HasPrefix(v.Name, "ETCD_") {
				got += v.Name + "=" + v.Value.Text + "\n"
			}
		}
		for _, w := range s.Args {
			got += fmt.Sprintf("<%s>\n", w.Text)
		}
		if s.Dir.Text == "" { // a relative place is refused then
			for i, w := range want {
				_, rest, _ := strings.Cut(w, "\n")
				want[i] = "\n" + rest
			}
		}
		if !slices.Contains(want, got) {
			t.Errorf("%s\n--- bash gives to etcd\n%s\n--- we say\n%s", text, strings.Join(want, "\n"), got)
		}
	}
}
