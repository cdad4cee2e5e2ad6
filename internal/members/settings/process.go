package settings

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// flags parses the arguments as etcd does, with Go's flag package. A flag that is given
// again has its last value.
func (h *Host) flags() ([]Setting, error) {
	if len(h.Args) > 0 && slices.Contains([]string{"gateway", "grpc-proxy"}, h.Args[0].Text) {
		return nil, h.Args[0].At.Errorf("etcd %s is no member of a cluster", h.Args[0].Text)
	}
	var out []Setting
	for rest := h.Args; len(rest) > 0; {
		s, used, err := next(rest)
		if err != nil {
			return nil, err
		}
		rest = rest[used:]
		i := slices.IndexFunc(out, func(o Setting) bool { return o.Name == s.Name })
		switch {
		case i < 0:
			out = append(out, s)
		case flags[s.Name].kind == urls && s.Value == "":
			// etcd keeps those that it has.
		default:
			h.note(out[i].At, fmt.Sprintf("%s is given again at %s, which is in force", s.Spelled, s.At))
			out[i] = s
		}
	}
	return out, nil
}

// next takes a flag from the front of args and says how many words it has.
func next(args []members.Word) (s Setting, used int, err error) {
	word := args[0]
	name := strings.TrimPrefix(strings.TrimPrefix(word.Text, "-"), "-")
	name, value, found := strings.Cut(name, "=")
	if len(word.Text) < 2 || word.Text[0] != '-' || name == "" {
		return s, 0, word.At.Errorf("there is a word that is not a flag of etcd, which takes nothing else%s", misquoted(word))
	}
	f, ok := flags[name]
	if !ok {
		return s, 0, word.At.Errorf("etcd has no flag --%s", name)
	}
	if name == "version" {
		return s, 0, word.At.Errorf("etcd with --version does not start")
	}
	s = Setting{Name: name, Value: value, Spelled: "--" + name, At: word.At}
	used = 1
	switch {
	case found:
	case f.bare():
		s.Value = "true"
	case len(args) > 1:
		s.Value, s.At, used = args[1].Text, args[1].At, 2
	default:
		return s, 0, word.At.Errorf("--%s has no value", name)
	}
	return s, used, check(s)
}

func misquoted(word members.Word) string {
	if strings.ContainsAny(word.Text, "\\\"'") {
		return ": are its quotes or its line's end right?"
	}
	return ""
}

func check(s Setting) error {
	if problem := flags[s.Name].check(s.Value); problem != "" {
		return s.At.Errorf("etcd would not take %s %q: %s", s.Spelled, s.Value, problem)
	}
	return nil
}

// fileOf returns the configuration file, which voids all else.
func fileOf(given []Setting, env []members.Variable) (Setting, bool) {
	for _, s := range given {
		if s.Name == "config-file" && s.Value != "" {
			return s, true
		}
	}
	for _, v := range env {
		if v.Name == variable("config-file") && v.Value.Text != "" {
			return Setting{"config-file", v.Value.Text, v.Name, v.Value.At}, true
		}
	}
	return Setting{}, false
}

// fromProcess takes flags and variables: a flag has precedence.
func (h *Host) fromProcess(given []Setting) error {
	h.Settings = given
	for _, s := range given {
		if last := flags[s.Name].last; last < newest {
			h.note(s.At, fmt.Sprintf("etcd 3.%d and newer do not start with the flag %s", last+1, s.Spelled))
		}
	}
	var shadowed []string
	for _, v := range h.Env {
		if name, ok := flagOf(v.Name); ok && slices.ContainsFunc(given, func(s Setting) bool { return s.Name == name }) {
			shadowed = append(shadowed, "-u "+v.Name)
			continue
		}
		if err := h.takeVariable(v); err != nil {
			return err
		}
	}
	if len(shadowed) > 0 {
		h.note(h.Of, fmt.Sprintf("etcd does not start with a variable and a flag of one setting: here the flags are taken, "+
			"and etcd has to be started without the variables, as by `env %s etcd ...`", strings.Join(shadowed, " ")))
	}
	listen, ok := h.Setting("listen-client-urls")
	if _, advertised := h.Setting("advertise-client-urls"); ok && !advertised {
		return listen.At.Errorf("etcd would not start with %s and without --advertise-client-urls", listen.Spelled)
	}
	return nil
}

// checkAbsent refuses a name or a place that a file of variables may change which is not there now.
// Only flags are stronger.
func checkAbsent(h *Host, o Options) error {
	if len(h.Absent) == 0 {
		return nil
	}
	for i, given := range []bool{false, o.DataDir != "", o.WALDir != ""} {
		name := []string{"name", "data-dir", "wal-dir"}[i]
		s, _ := h.Setting(name)
		if given || strings.HasPrefix(s.Spelled, "--") {
			continue
		}
		w := h.Absent[0]
		return backup.WithHint(w.At.Errorf("%s is not there, and may come before etcd is started: it may set %s, and "+
			"no flag is stronger", w.Text, variable(name)),
			"make %s as the start does (ExecStartPre= or another unit), and run this again", w.Text)
	}
	return nil
}

// special are variables of etcd that are no flags.
var special = []string{"ETCD_VERSION", "ETCD_UNSUPPORTED_ARCH"}

func (h *Host) takeVariable(v members.Variable) error {
	if !strings.HasPrefix(v.Name, "ETCD_") || slices.Contains(special, v.Name) {
		return nil
	}
	name, ok := flagOf(v.Name)
	if !ok {
		h.note(v.Value.At, "etcd does not know "+v.Name+" and ignores it")
		return nil
	}
	if v.Value.Text == "" {
		h.note(v.Value.At, v.Name+" is empty: etcd ignores it")
		return nil
	}
	s := Setting{name, v.Value.Text, v.Name, v.Value.At}
	if last := flags[name].last; last < newest {
		h.note(s.At, fmt.Sprintf("etcd 3.%d and newer ignore %s with a warning", last+1, v.Name))
	}
	if name == "version" {
		return s.At.Errorf("etcd with %s does not start", v.Name)
	}
	h.Settings = append(h.Settings, s)
	return check(s)
}

// flagOf returns the flag that a variable sets.
func flagOf(variableName string) (string, bool) {
	for name := range flags {
		if variable(name) == variableName {
			return name, true
		}
	}
	return "", false
}

// fromFile takes the configuration file: etcd looks at nothing else then, but it does
// parse its flags.
func (h *Host) fromFile(file Setting, given []Setting, o Options) error {
	path, err := h.ground().place(theConfiguration, file.Value, file.At)
	if err != nil {
		return err
	}
	for _, s := range given {
		if s.Name != "config-file" {
			h.note(s.At, fmt.Sprintf("%s has no effect: %s is given", s.Spelled, file.Spelled))
		}
	}
	for _, v := range h.Env {
		if _, ok := flagOf(v.Name); ok && v.Name != variable("config-file") {
			h.note(v.Value.At, fmt.Sprintf("%s has no effect: %s is given", v.Name, file.Spelled))
		}
	}
	if o.ReadFile == nil {
		return file.At.Errorf("read %s: it cannot be read from here", path)
	}
	raw, err := o.ReadFile(path)
	if err != nil {
		return file.At.Errorf("read the configuration file: %v", err)
	}
	return h.fromYAML(path, raw)
}
