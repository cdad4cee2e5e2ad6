// Package unit reads how systemd starts an etcd server: a unit with its drop-ins and its
// environment files, and an environment file that is given alone.
package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// Recognize is true for a unit of a service that starts something.
func Recognize(file string, raw []byte) bool {
	all, err := assignments(file, string(raw))
	if err != nil {
		return strings.Contains(string(raw), "[Service]") && strings.Contains(string(raw), "ExecStart")
	}
	for _, a := range all {
		if a.section == "Service" && strings.HasPrefix(a.name, "ExecStart") {
			return true
		}
	}
	return false
}

// Read returns the start of etcd that the unit describes, with the drop-ins beside it and
// with those of systemd's other folders if it is in one of them.
func Read(file string, raw []byte, o members.ReadOptions) ([]members.Start, error) {
	absolute, err := filepath.Abs(file)
	if err != nil {
		return nil, members.Position{File: file}.Errorf("%v", err)
	}
	id, err := identify(absolute, o)
	if err != nil {
		return nil, err
	}
	if id.path != absolute {
		file = id.path
		if raw, err = o.ReadFile(file); err != nil {
			return nil, members.Position{File: absolute}.Errorf("read the unit that it leads to: %v", err)
		}
	}
	u := newUnit(id, o)
	if err := u.checkName(); err != nil {
		return nil, err
	}
	if err := u.take(file, raw); err != nil {
		return nil, err
	}
	if err := u.takeDropIns(); err != nil {
		return nil, err
	}
	return u.starts()
}

// unit is what is known of a unit so far.
type unit struct {
	members.Start
	specifiers
	options members.ReadOptions
	identity
	*copied  // nil for a unit of this host
	exec     []assignment
	settings []assignment // Environment=, in order
	files    []assignment // EnvironmentFile=, in order
	unset    []assignment
	passed   []assignment
	before   []assignment // ExecStartPre=
	mounts   []assignment // RequiresMountsFor= and mounts in Requires=
	env      environment
	paths    paths
}

func newUnit(id identity, o members.ReadOptions) *unit {
	u := &unit{options: o, identity: id}
	if u.copied = copyOf(id, o); u.copied != nil {
		u.options.ReadFile = u.copied.readFile
		u.options.Hostname = "" // it may be another one there
	}
	u.specifiers = specifiersOf(id.path, u.options.Hostname)
	u.name = id.unit
	u.Start = members.Start{
		Means: members.Systemd, Unit: u.name, Of: members.Position{File: id.path},
		Hostname: members.Word{Text: u.options.Hostname},
	}
	if u.copied != nil {
		u.Copied = []string{u.copied.root, u.copied.dir}
	}
	return u
}

// checkName refuses a drop-in, and a file that another one hides.
func (u *unit) checkName() error {
	dir := filepath.Dir(u.seen)
	whole := members.Position{File: u.path}
	if unit, ok := strings.CutSuffix(dir, ".d"); ok && strings.HasSuffix(unit, ".service") {
		return whole.Errorf("this is an addition to a unit: give the unit %s, wherever it is", filepath.Base(unit))
	}
	for _, d := range u.lookup {
		if d == dir {
			return nil
		}
		hiding := filepath.Join(d, filepath.Base(u.seen))
		_, err := u.options.ReadFile(hiding)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return whole.Errorf("does %s hide it? %v", hiding, err)
		case !sameFolder(d, dir):
			return whole.Errorf("systemd takes %s instead: give that", hiding)
		}
	}
	return nil
}

// take takes the settings of one file.
func (u *unit) take(file string, raw []byte) error {
	if strings.ContainsRune(string(raw), 0) {
		return members.Position{File: file}.Errorf("it is not a text")
	}
	all, err := assignments(file, string(raw))
	if err != nil {
		return err
	}
	for _, a := range all {
		if a.section == "Unit" {
			order(u, a)
		}
		if a.section != "Service" {
			continue
		}
		if err := u.assign(a); err != nil {
			return err
		}
	}
	return nil
}

// assign takes one setting. An empty one resets those before it.
func (u *unit) assign(a assignment) error {
	for name, list := range map[string]*[]assignment{
		"ExecStart": &u.exec, "Environment": &u.settings, "EnvironmentFile": &u.files, "UnsetEnvironment": &u.unset,
		"PassEnvironment": &u.passed, "ExecStartPre": &u.before, "ExecCondition": &u.before,
	} {
		if a.name != name {
			continue
		}
		if a.value.s == "" {
			*list = nil
		} else {
			*list = append(*list, a)
		}
	}
	switch a.name {
	case "User":
		return u.replace(a, &u.User)
	case "Group":
		return u.replace(a, &u.Group)
	case "WorkingDirectory":
		return u.replace(a, &u.Dir)
	}
	return u.paths.assign(a, &u.specifiers)
}

func (u *unit) replace(a assignment, to *members.Word) error {
	s, err := u.expand(a.value)
	if err != nil {
		return err
	}
	if strings.ContainsAny(s, "\"'#;") {
		return a.at.Errorf("%s=%s: systemd takes all of it, without quotes or a comment at its end", a.name, s)
	}
	*to = members.Word{Text: s, At: a.at}
	return nil
}

// starts returns the one start.
func (u *unit) starts() ([]members.Start, error) {
	switch len(u.exec) {
	case 0:
		return nil, u.Of.Errorf("it has no ExecStart=, neither here nor in its additions")
	case 1:
	default:
		return nil, u.exec[1].at.Errorf("a second ExecStart= after the one at %s: systemd takes one only, and an empty "+
			"ExecStart= resets it", u.exec[0].at)
	}
	u.Of = u.exec[0].at
	if err := u.decideDir(); err != nil {
		return nil, err
	}
	if err := u.decideEnvironment(); err != nil {
		return nil, err
	}
	if err := findNeeds(u); err != nil {
		return nil, err
	}
	command, err := u.command(u.exec[0])
	if err != nil {
		return nil, err
	}
	commands, err := shell.Run(command, u.env.known(), shell.Options{
		Hostname: u.options.Hostname, Dir: u.Dir, ReadFile: u.options.ReadFile,
	})
	if err != nil {
		return nil, err
	}
	if err := checkAbsent(u, command, commands); err != nil {
		return nil, err
	}
	return u.etcds(commands)
}

// etcds makes starts of those commands that start etcd.
func (u *unit) etcds(commands []shell.Command) ([]members.Start, error) {
	var out []members.Start
	for _, c := range commands {
		u.Needs = append(slices.Clip(u.Needs), needsOf(u, c)...)
		if !c.IsEtcd() {
			s, err := u.container(c)
			if err != nil {
				return nil, err
			}
			if s != nil {
				out = append(out, *s)
			}
			continue
		}
		if c.Err != nil {
			return nil, c.Err
		}
		s := u.Start
		s.Args, s.Dir = c.Words[1:], c.Dir
		if c.User.Text != "" {
			s.User, s.Group = c.User, c.Group
		}
		s.Contained, s.Mounts = u.paths.mounts()
		env, err := u.env.of(c.Env)
		if err != nil {
			return nil, err
		}
		s.Env = env
		if err := ownConfiguration(u, &s); err != nil {
			return nil, err
		}
		s.Notes = append(append([]members.Note(nil), u.Notes...), c.Notes...)
		out = append(out, s)
	}
	switch len(out) {
	case 0:
		if u.copied != nil && u.refused != nil {
			return nil, u.refused
		}
		return nil, u.Of.Errorf("ExecStart= does not start etcd as far as this is understood")
	case 1:
		return out, nil
	}
	return nil, u.Of.Errorf("ExecStart= starts etcd %d times", len(out))
}

// container returns the start of etcd in a container that the unit runs, or nil. User= is that of
// the program that asks for it.
func (u *unit) container(c shell.Command) (*members.Start, error) {
	if u.options.Container == nil {
		return nil, nil
	}
	s, err := u.options.Container(c.Words, c.Env, c.Dir.Text, u.options)
	if s == nil || err != nil {
		return nil, err
	}
	if c.Err != nil {
		return nil, c.Err
	}
	if err := checkAbsentIn(u, c, s); err != nil {
		return nil, err
	}
	if inside, mounts := u.paths.mounts(); inside && len(mounts) > 0 {
		return nil, u.Of.Errorf("the unit has mounts of its own, and runs a container")
	}
	s.Means, s.Unit, s.Of, s.Needs = members.Systemd, u.Unit, u.Of, u.Needs
	s.Notes = append(append([]members.Note(nil), u.Notes...), s.Notes...)
	return s, nil
}

// decideDir finds the working directory: / for a service of the system.
func (u *unit) decideDir() error {
	text, optional := strings.CutPrefix(u.Dir.Text, "-")
	u.Dir.Text = text
	if u.Dir.Text == "" {
		u.Dir = members.Word{Text: "/", At: u.Of}
		if u.ofUser {
			u.Dir.Text = ""
		}
	}
	switch {
	case u.Dir.Text == "~":
		u.Notes = append(u.Notes, members.Note{At: u.Dir.At, Text: "the working directory is the user's home, which is " +
			"not looked up"})
		u.Dir.Text = ""
	case u.Dir.Text != "" && !filepath.IsAbs(u.Dir.Text):
		return u.Dir.At.Errorf("WorkingDirectory=%s is not an absolute path", u.Dir.Text)
	}
	if optional {
		u.Notes = append(u.Notes, members.Note{At: u.Dir.At, Text: fmt.Sprintf(
			"if %s is not there, systemd starts etcd in another folder", u.Dir.Text)})
	}
	return nil
}
