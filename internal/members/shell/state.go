package shell

import (
	"maps"
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/etcd-backupd/backupd/internal/members"
)

// value is that of a variable.
type value struct {
	text     string
	list     []string // of an array
	array    bool
	set      bool // false: it is known to be unset
	exported bool
	at       members.Position
	err      error // why it cannot be known
	open     bool  // err is that nothing sets it: a default is taken for it
}

func (v value) same(o value) bool {
	return v.err == nil && o.err == nil && v.text == o.text && v.set == o.set && v.array == o.array &&
		v.exported == o.exported && slices.Equal(v.list, o.list)
}

// runFunction is the body of one, and where it is written.
type function struct {
	body *syntax.Stmt
	src  source
	err  error // why it cannot be known
}

// state is what a shell knows at one moment.
type state struct {
	vars  map[string]value
	funcs map[string]function
	dir   members.Word // no text: not known, for the reason in dirErr
	// dirErr may be nil: nobody has said where the script is run.
	dirErr  error
	args    []members.Word // $0 and the arguments; nil: not known
	argsErr error
	export  bool  // set -a
	all     error // why nothing is known any more
	cond    error // why it is not known whether this is run
	user    members.Word
	group   members.Word
	// replaced is true if what this shell runs by exec takes the place of the first one.
	replaced bool
	ended    bool // by exit, return or exec
	// returned is true if it is only the function or the sourced file that ended.
	returned bool
	within   bool  // a function or a sourced file
	input    *call // the here-document that comes through a pipe
}

func begin(s *shell, env []members.Variable) *state {
	st := &state{vars: map[string]value{}, funcs: map[string]function{}, replaced: true}
	for _, v := range env {
		st.vars[v.Name] = value{text: v.Value.Text, set: true, exported: true, at: v.Value.At}
	}
	return st
}

// subshell is the state of a shell beside this one.
func (st *state) subshell() *state {
	c := st.clone()
	c.replaced = false
	return c
}

func (st *state) clone() *state {
	c := *st
	c.vars, c.funcs = maps.Clone(st.vars), maps.Clone(st.funcs)
	return &c
}

// merge is the state after one of several ways was taken: what differs is not known. Ways
// that ended are not those on which anything follows.
func (st *state) merge(why error, ways ...*state) {
	cond := st.cond
	returned := slices.ContainsFunc(ways, func(w *state) bool { return w.returned })
	ways = slices.DeleteFunc(ways, func(w *state) bool { return w.ended })
	if len(ways) == 0 {
		st.ended, st.returned = true, returned
		if returned {
			st.all = why
		}
		return
	}
	names := map[string]bool{}
	for _, w := range ways {
		for name := range w.vars {
			names[name] = true
		}
	}
	first := *ways[0]
	out := first.clone()
	for name := range names {
		v, ok := first.vars[name]
		for _, w := range ways[1:] {
			o, there := w.vars[name]
			if ok != there || !v.same(o) && (v.err == nil || v.err != o.err) {
				v = value{err: why, exported: v.exported || o.exported, at: v.at}
				ok, there = true, true
			}
		}
		out.vars[name] = v
	}
	for _, w := range ways {
		for name, f := range w.funcs {
			if first.funcs[name].body != f.body {
				out.funcs[name] = function{err: why}
			}
		}
		for name := range first.funcs {
			if _, ok := w.funcs[name]; !ok {
				out.funcs[name] = function{err: why}
			}
		}
		if w.dir.Text != first.dir.Text {
			out.dir, out.dirErr = members.Word{}, why
		}
		if !sameWords(w.args, first.args) {
			out.args, out.argsErr = nil, why
		}
		if w.export != first.export {
			out.all = why
		}
		if w.all != nil {
			out.all = w.all
		}
	}
	if returned {
		out.all = why
	}
	*st = *out
	st.cond = cond
}

func sameWords(a, b []members.Word) bool {
	return (a == nil) == (b == nil) && slices.EqualFunc(a, b, func(x, y members.Word) bool { return x.Text == y.Text })
}

// surroundings are the variables that shells, systemd and logins set, and nobody else.
var surroundings = strings.Fields(`
	HOME PATH USER LOGNAME SHELL LANG TERM PWD OLDPWD HOSTNAME HOSTTYPE OSTYPE MACHTYPE UID EUID GROUPS PPID
	RANDOM SRANDOM SECONDS EPOCHSECONDS EPOCHREALTIME LINENO OPTARG OPTIND SHLVL MAIL MAILNAME TMPDIR DISPLAY
	DIRSTACK FUNCNAME PIPESTATUS REPLY INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET MAINPID MANAGERPID
	STATE_DIRECTORY RUNTIME_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY CREDENTIALS_DIRECTORY
	SYSTEMD_EXEC_PID LISTEN_FDS SUDO_USER SUDO_UID SUDO_GID SUDO_COMMAND SUPERVISOR_PROCESS_NAME
	SUPERVISOR_GROUP_NAME SUPERVISOR_ENABLED SUPERVISOR_SERVER_URL ? ! - _ $ BASH BASHPID BASH_SOURCE BASH_VERSION
	BASH_LINENO BASH_COMMAND BASH_ARGV BASH_ARGC BASH_SUBSHELL BASHOPTS SHELLOPTS`)

// lookup is the value of a variable or of a parameter.
func (s *shell) lookup(st *state, name string, src source, at members.Position) value {
	if name == "@" || name == "*" || name == "#" || len(name) > 0 && name[0] >= '0' && name[0] <= '9' {
		return st.parameter(name, at)
	}
	if v, ok := st.vars[name]; ok {
		if v.err == nil && st.all != nil {
			v.err = st.all
		}
		return v
	}
	switch {
	case name == "IFS":
		return value{}
	case st.all != nil:
		return value{err: st.all}
	case name == "HOSTNAME" && src.bash && s.o.Hostname != "":
		return value{text: s.o.Hostname, set: true, at: at}
	case name == "PWD" && st.dir.Text != "":
		return value{text: st.dir.Text, set: true, at: at}
	case slices.Contains(surroundings, name) || strings.HasPrefix(name, "HOME "):
		return value{err: at.Errorf("$%s is known only where the script is run", name)}
	case s.o.Whole:
		return value{}
	}
	return value{open: true,
		err: at.Errorf("$%s is set nowhere in this file: its value is that of whoever runs it", name)}
}

func (st *state) parameter(name string, at members.Position) value {
	if st.args == nil {
		why := st.argsErr
		if why == nil {
			why = at.Errorf("$%s: the arguments of the script are not known", name)
		}
		return value{err: why}
	}
	list := []string{}
	for _, w := range st.args {
		list = append(list, w.Text)
	}
	switch name {
	case "@", "*":
		return value{list: list[min(1, len(list)):], array: true, set: true, at: at}
	case "#":
		return value{text: itoa(max(len(list)-1, 0)), set: true, at: at}
	}
	n := atoi(name)
	if n == 0 && (len(list) == 0 || list[0] == "") {
		return value{err: at.Errorf("$0: the name of the script is not known")}
	}
	if n < 0 || n >= len(list) {
		return value{}
	}
	return value{text: list[n], set: true, at: at}
}

// set is an assignment.
func (st *state) set(name string, v value) {
	old := st.vars[name]
	v.exported = v.exported || old.exported || st.export
	st.vars[name] = v
}

// environ is what a command gets; err says why a variable of etcd's in it cannot be known.
func (st *state) environ() (env []members.Variable, err error) {
	for _, name := range slices.Sorted(maps.Keys(st.vars)) {
		v := st.vars[name]
		switch {
		case !v.exported || v.array || v.open:
		case v.err != nil && strings.HasPrefix(name, "ETCD_"):
			err = v.err
		case v.err != nil || !v.set:
		default:
			env = append(env, members.Variable{Name: name, Value: members.Word{Text: v.text, At: v.at}})
		}
	}
	return env, err
}

// chdir changes the working directory.
func (st *state) chdir(to members.Word) {
	switch {
	case path.IsAbs(to.Text):
		st.dir, st.dirErr = members.Word{Text: path.Clean(to.Text), At: to.At}, nil
	case st.dir.Text != "":
		st.dir = members.Word{Text: path.Join(st.dir.Text, to.Text), At: to.At}
	case st.dirErr == nil:
		st.dirErr = to.At.Errorf("cd %s begins where the script is run, which is not known", to.Text)
	}
}

// file returns the absolute path of a file if it can be known, and the path otherwise.
func (st *state) file(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(st.dir.Text, name)
}
