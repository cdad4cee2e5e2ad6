package shell_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// show writes the commands that start etcd: [USER@]DIR: ETCD_X=y word:line word:line, and
// what is wrong with them.
func show(commands []shell.Command) string {
	var out []string
	for _, c := range commands {
		if !c.IsEtcd() {
			continue
		}
		line := ""
		if c.User.Text != "" {
			line += c.User.Text + "@"
		}
		line += c.Dir.Text + ":"
		for _, v := range c.Env {
			if strings.HasPrefix(v.Name, "ETCD_") {
				line += " " + v.Name + "=" + v.Value.Text
			}
		}
		for _, w := range c.Words {
			line += fmt.Sprintf(" %s:%d", w.Text, w.At.Line)
		}
		if c.Exec {
			line += " exec"
		}
		if c.Err != nil {
			line = c.Err.Error()
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

var files = map[string]string{
	"/etc/etcd.env":       "ETCD_NAME=m1\nDATA=/data\n",
	"/opt/start.sh":       "#!/bin/sh\nexec ./etcd --name $1 --data-dir data\n",
	"/opt/python.py":      "#!/usr/bin/python3\netcd\n",
	"/usr/local/bin/etcd": "\x7fELF\x00etcd --name wrong",
}

func readFile(path string) ([]byte, error) {
	if text, ok := files[path]; ok {
		return []byte(text), nil
	}
	return nil, fs.ErrNotExist
}

func TestCommands(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"words", "./etcd --name a \\\n  --data-dir /d", ": ./etcd:1 --name:1 a:1 --data-dir:2 /d:2"},
		{
			"variables", "N=a\nD=\"/d/$N\"\netcd --name=\"$N\" --data-dir ${D}/x",
			": etcd:3 --name=a:3 --data-dir:3 /d/a/x:3",
		},
		{
			"a variable of nobody", "etcd --name $N",
			"f:1: $N is set nowhere in this file: its value is that of whoever runs it",
		},
		{"a default", "etcd --name ${N:-x}", ": etcd:1 --name:1 x:1"},
		{"a default beside", "etcd --name ${N:-x}$N",
			"f:1: $N is set nowhere in this file: its value is that of whoever runs it"},
		{"a home", "etcd --data-dir ~/x", "f:1: $HOME is known only where the script is run"},
		{"a default of a login", "etcd --name ${USER:-x}", "f:1: $USER is known only where the script is run"},
		{
			"the host", "etcd --name $(hostname) --data-dir=/d/`hostname -s`",
			": etcd:1 --name:1 h1.example:1 --data-dir=/d/h1:1",
		},
		{
			"a sequence", "P=; for i in $(seq 0 $((3 - 1))) $(seq 1); do P=$P${P:+,}m$i; done\netcd --name=$P",
			": etcd:2 --name=m0,m1,m2,m1:2",
		},
		{
			"a sequence that has no number", "P=; for i in $(seq a); do P=$P${P:+,}m$i; done\netcd --name=$P",
			"f:1: what $(seq …) gives cannot be known from the text",
		},
		{
			"arithmetic in a loop", "N=a\nfor i in $(x $((1 + 2 <= 3))); do echo; done\netcd --name=$N",
			": etcd:3 --name=a:3",
		},
		{
			"arithmetic that counts in a loop", "N=1\nfor i in $(x); do etcd --name=$N; echo $((N += 1)); done",
			"f:2: what $(x) gives cannot be known from the text",
		},
		{"another command", "N=$(cat /etc/name)\necho $N\netcd --name $N",
			"f:1: what $(cat …) gives cannot be known from the text"},
		{"unrelated", "X=$(date)\necho $X\netcd --name a", ": etcd:3 --name:3 a:3"},
		{
			"prefixed and exported", "A=1\nexport ETCD_NAME=b ETCD_X=$A\nETCD_Y=2 etcd",
			": ETCD_NAME=b ETCD_X=1 ETCD_Y=2 etcd:3",
		},
		{"exported later", "ETCD_NAME=b\netcd\nexport ETCD_NAME\netcd", ": etcd:2\n: ETCD_NAME=b etcd:4"},
		{
			"an exported one that is not known", "export ETCD_NAME=$(id)\netcd",
			"f:1: what $(id) gives cannot be known from the text",
		},
		{
			"set -a", "set -a\n. /etc/etcd.env\nset +a\nX=1\netcd --data-dir $DATA",
			": ETCD_NAME=m1 etcd:5 --data-dir:5 /data:5",
		},
		{"a sourced file that is not there", ". /etc/x\netcd --name a", "f:1: file does not exist"},
		{"cd", "cd /opt/etcd\ncd bin\n./etcd --name a", "/opt/etcd/bin: ./etcd:3 --name:3 a:3"},
		{"cd and", "mkdir -p /d && cd /opt && nohup ./etcd --name a > log 2>&1 &", "/opt: ./etcd:1 --name:1 a:1"},
		{"cd or", "cd /opt || exit 1\nexec ./etcd --name a", "/opt: ./etcd:2 --name:2 a:2 exec"},
		{"cd or another", "cd /opt || cd /srv\n./etcd --name a", ": ./etcd:2 --name:2 a:2"},
		{
			"a subshell", "(cd /opt; N=b; ./etcd --name $N)\nN=a\n./etcd --name $N",
			"/opt: ./etcd:1 --name:1 b:1\n: ./etcd:3 --name:3 a:3",
		},
		{"if", "if [ -d /data ]; then N=a; else N=b; fi\netcd --name $N",
			"f:1: what the condition of this line gives cannot be known from the text"},
		{
			"if that is known", "N=a\nif [ \"$N\" = a ]; then D=/x; else D=/y; fi\netcd --data-dir $D",
			": etcd:3 --data-dir:3 /x:3",
		},
		{"if that ends", "if [ -f /x ]; then N=b; exit 1; fi\netcd --name a$N",
			"f:2: $N is set nowhere in this file: its value is that of whoever runs it"},
		{"if about something else", "if [ -f /x ]; then rm /x; fi\netcd --name a", ": etcd:2 --name:2 a:2"},
		{
			"within if", "if [ -f /x ]; then etcd --name a; fi",
			"f:1: what the condition of this line gives cannot be known from the text",
		},
		{"either or", "[ -f /x ] && etcd --name a || etcd --name b",
			"f:1: whether it is run depends on whether the command before && succeeds\n" +
				"f:1: whether it is run depends on whether the command before || succeeds"},
		{"for", "for i in 1 2; do etcd --name m$i; done", ": etcd:1 --name:1 m1:1\n: etcd:1 --name:1 m2:1"},
		{"while", "while true; do etcd --name a; sleep 1; done", ": etcd:1 --name:1 a:1"},
		{"while that counts", "i=1\nwhile true; do etcd --name m$i; i=$((i+1)); done",
			"f:2: how often the loop of this line is run cannot be known from the text"},
		{"case", "case $(hostname) in h1*) N=m1;; h2*) N=m2;; esac\netcd --name $N", ": etcd:2 --name:2 m1:2"},
		{
			"case of an argument", "case $1 in start) etcd --name m1;; esac",
			"f:1: $1: the arguments of the script are not known",
		},
		{
			"a function", "start() {\n  etcd --name $1 --data-dir /d/$1\n}\nstart m1",
			": etcd:2 --name:2 m1:2 --data-dir:2 /d/m1:2",
		},
		{
			"an array", "#!/bin/bash\nA=(--name a)\nA+=(--data-dir '/d d')\netcd \"${A[@]}\"",
			": etcd:4 --name:4 a:4 --data-dir:4 /d d:4",
		},
		{
			"sudo", "sudo -u etcd ETCD_NAME=a /usr/bin/etcd --data-dir /d",
			"etcd@: ETCD_NAME=a /usr/bin/etcd:1 --data-dir:1 /d:1",
		},
		{"sudo of an exported one", "export ETCD_NAME=a\nsudo -u etcd etcd",
			"f:2: sudo passes $ETCD_NAME on or not, as its own settings say"},
		{"su", "su etcd -c 'cd /opt; ./etcd --name a'", "etcd@/opt: ./etcd:1 --name:1 a:1"},
		{
			"su -", "export ETCD_NAME=a\nsu - etcd -s /bin/bash -c \"/opt/etcd --name b\"",
			"etcd@: /opt/etcd:2 --name:2 b:2",
		},
		{"env", "X=1 env -u X ETCD_NAME=a etcd", ": ETCD_NAME=a etcd:1"},
		{"a script that is written and run",
			"cat > /tmp/s.sh <<'EOF'\n#!/bin/sh\nN=$1\n./etcd --name $N \\\n  --data-dir /d\nEOF\n" +
				"chmod +x /tmp/s.sh\nN=x\ncd /opt; /tmp/s.sh m1", "/opt: ./etcd:4 --name:4 m1:4 --data-dir:5 /d:5"},
		{"a script that is written with values",
			"N=a\ncat <<EOF | sudo tee s.sh >/dev/null\n./etcd --name $N \\\n --data-dir \\$D\n" +
				"echo\n./etcd --name b\nEOF\nexport D=/d\nsh s.sh",
			": ./etcd:3 --name:3 a:3 --data-dir:3 /d:3\n: ./etcd:6 --name:6 b:6"},
		{"a script that is changed", "cat > s.sh <<'EOF'\n./etcd --name a\nEOF\nsed -i s/a/b/ s.sh\nsh s.sh", ""},
		{
			"a shell's input", "sudo -u etcd bash <<'EOF'\ncd /opt\n./etcd --name a\nEOF",
			"etcd@/opt: ./etcd:3 --name:3 a:3",
		},
		{
			"a script that is followed", "cd /opt\n/opt/start.sh m1",
			"/opt: ./etcd:2 --name:2 m1:2 --data-dir:2 data:2",
		},
		{"a program of the name", "/usr/local/bin/etcd --name a", ": /usr/local/bin/etcd:1 --name:1 a:1"},
		{"a script of another language", "/opt/python.py", ""},
		{"a glob", "etcd --name a --data-dir /d/*", "f:1: /d/* depends on the files that are there"},
		{
			"no glob", "etcd --cors=* --listen-peer-urls http://[::1]:2380",
			": etcd:1 --cors=*:1 --listen-peer-urls:1 http://[::1]:2380:1",
		},
		{"braces", "etcd --name {a,b}", "f:1: {a… is not the same in sh and in bash"},
		{
			"an unknown program", "$BIN --name a --listen-peer-urls x",
			"f:1: $BIN is set nowhere in this file: its value is that of whoever runs it",
		},
		{"an alias", "alias etcd='etcd --name b'\netcd --name a", "f:1: alias … is not understood"},
		{"recursion", "f() { f; }\nf\netcd --name a", "f:1: the script repeats too much to be followed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			commands, err := shell.Commands(members.Word{Text: c.text, At: members.Position{File: "f", Line: 1}}, nil,
				shell.Options{Hostname: "h1.example", ReadFile: readFile})
			if err != nil {
				t.Fatal(err)
			}
			if got := show(commands); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestCommands_Syntax(t *testing.T) {
	_, err := shell.Commands(members.Word{Text: "x\nif", At: members.Position{File: "f", Line: 7}}, nil,
		shell.Options{})
	var at *members.FileError
	if !errors.As(err, &at) || at.At.Line != 8 {
		t.Errorf("got %v", err)
	}
}

// TestCommands_Comment: a comment ends a command, with a backslash or without.
func TestCommands_Comment(t *testing.T) {
	for text, line := range map[string]int{
		"etcd --name a \\\n# --x \\\n--y": 2, "etcd --name a # \\\n--y": 1, "etcd --name a # b\n--y": 0,
		"# x \\\n# y \\\netcd":            0,
		"x\n  # etcd \\\n#  --y \\\netcd": 0, "etcd \\\n# a\n# b \\\n--y": 0,
		"if x; then\n etcd \\\n # a \\\n --y\nfi": 3,
	} {
		_, err := shell.Commands(members.Word{Text: text, At: members.Position{File: "f", Line: 1}}, nil, shell.Options{})
		var at *members.FileError
		if errors.As(err, &at) != (line > 0) || line > 0 && at.At.Line != line {
			t.Errorf("%q: got %v, want line %d", text, err, line)
		}
	}
}

func TestCommands_CarriageReturn(t *testing.T) {
	_, err := shell.Commands(members.Word{Text: "N=a\nM=b\r\netcd", At: members.Position{File: "f", Line: 7}}, nil,
		shell.Options{})
	var at *members.FileError
	if !errors.As(err, &at) || at.At.Line != 8 {
		t.Errorf("got %v", err)
	}
}

func TestRun(t *testing.T) {
	word := func(line int, text string) members.Word {
		return members.Word{Text: text, At: members.Position{File: "f", Line: line}}
	}
	env := []members.Variable{{Name: "ETCD_NAME", Value: word(9, "m1")}}
	for _, c := range []struct {
		words []members.Word
		want  string
	}{
		{[]members.Word{word(1, "etcd"), word(2, "--name"), word(3, "$x")}, "/w: ETCD_NAME=m1 etcd:1 --name:2 $x:3 exec"},
		{
			[]members.Word{word(1, "/bin/sh"), word(2, "-ec"), word(3, "x=1\nexec etcd --name ${ETCD_NAME} --y=$0\n")},
			"/w: ETCD_NAME=m1 etcd:4 --name:4 m1:4 --y=/bin/sh:4 exec",
		},
		{
			[]members.Word{word(1, "bash"), word(2, "-c"), word(3, "etcd --name $1 $0 $#"), word(4, "a"), word(5, "b")},
			"/w: ETCD_NAME=m1 etcd:3 --name:3 b:3 a:3 1:3",
		},
		{[]members.Word{word(1, "/opt/start.sh"), word(2, "m7")},
			"/w: ETCD_NAME=m1 ./etcd:2 --name:2 m7:2 --data-dir:2 data:2 exec"},
		{[]members.Word{word(1, "sh"), word(2, "-c"), word(3, "etcd --name x$NO")},
			"/w: ETCD_NAME=m1 etcd:3 --name:3 x:3"},
	} {
		commands, err := shell.Run(c.words, env, shell.Options{Dir: word(8, "/w"), Whole: true, ReadFile: readFile})
		if err != nil {
			t.Fatal(err)
		}
		if got := show(commands); got != c.want {
			t.Errorf("%v\ngot  %s\nwant %s", c.words, got, c.want)
		}
	}
}

func FuzzCommands(f *testing.F) {
	for _, seed := range []string{
		"./etcd --name a \\\n --data-dir /d", "cat >x <<EOF\n$A\nEOF\nsh x", "a() { b \"$@\"; }; a 1 && cd / || exit 1",
		"for i in 1 2; do etcd $i; done", "case $1 in a) etcd;; esac", "while true; do N=$((N+1)); done",
		"su - x -c 'etcd'",
		"A=(1 2); etcd ${A[@]} ${A:1:2} ${A/x/y} ${#A} ${!A}", "x | y 2>&1 & ((i++)); [[ a == b ]] && etcd",
		"if a; then b; elif c; then d; else e; fi >f", "eval etcd $X; set -- a b; shift; etcd $1",
		"select x in a; do etcd; done",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		commands, _ := shell.Commands(members.Word{Text: text, At: members.Position{File: "f", Line: 1}}, nil,
			shell.Options{Hostname: "h"})
		for _, c := range commands {
			if c.Err == nil && (len(c.Words) == 0 || c.Dir.Text != "" && c.Dir.Text[0] != '/') {
				t.Fatalf("%q: %+v", text, c)
			}
		}
	})
}
