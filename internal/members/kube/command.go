package kube

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// likely is whether a container runs etcd, as far as a look at it tells.
type likely int

const (
	no    likely = iota
	maybe        // a shell or a program of the image may start it
	yes
)

var (
	etcdWord = regexp.MustCompile(`(^|[\s/;&|("'` + "`" + `])etcd(["'\s;&|)\\]|$)`)
	// ownMembers is a script that changes the cluster's members.
	ownMembers = regexp.MustCompile(`\bmember\s+(add|remove)\b`)
)

// likeEtcd looks at the command, never at the name of the container.
func likeEtcd(container value) likely {
	command, args := container.get("command").items(), container.get("args").items()
	words := append(append([]value{}, command...), args...)
	image := path.Base(strings.SplitN(container.get("image").text(), ":", 2)[0])
	image, _, _ = strings.Cut(image, "@")
	switch {
	case len(words) > 0 && members.IsProgram(words[0].text()):
		return yes
	case len(command) == 0 && image == "etcd":
		return yes
	case image == "etcd":
		return maybe
	}
	for _, w := range words {
		if etcdWord.MatchString(w.text()) {
			return maybe
		}
	}
	return no
}

// looksLikeEtcd returns the container of a pod that seems to run etcd.
func (f *manifest) looksLikeEtcd(spec value) (container value, runs bool) {
	for _, c := range spec.get("containers").items() {
		switch likeEtcd(c) {
		case yes:
			return c, true
		case maybe:
			container, runs = c, true
		}
	}
	return container, runs
}

// command is what a container runs.
type command struct {
	*pod
	container value
	env       *environment
	start     *members.Start
	// image is true if the image says which program runs.
	image bool
	// scripts are where the text of scripts begins that were read, by their path in the
	// container.
	scripts scripts
	// texts are the words of the command, and the scripts.
	texts []members.Word
}

// read fills what the start has of the command.
func (c *command) read() {
	var words []members.Word
	given := c.container.get("command").items()
	for _, list := range [][]value{given, c.container.get("args").items()} {
		for _, v := range list {
			w := v.word()
			w.Text = expand(w.Text, c.env.lookup)
			if v.absent() {
				w.At = v.at()
			}
			words = append(words, w)
		}
	}
	if at := c.container.get("command"); len(given) > 0 {
		c.start.Of = at.at()
	}
	if c.err != nil {
		return
	}
	c.texts = words
	c.noteOwnMembers(words)
	c.noteLiteral(words)
	if len(given) == 0 && (len(words) == 0 || strings.HasPrefix(words[0].Text, "-")) {
		c.image = true
		c.settle(found{args: words, env: c.env.vars, at: c.container.at()})
		return
	}
	if members.IsProgram(words[0].Text) {
		c.settle(found{args: words[1:], env: c.env.vars, at: words[0].At})
		return
	}
	c.shell(words)
}

// shell finds etcd among the commands of a shell.
func (c *command) shell(words []members.Word) {
	commands, err := shell.Run(words, c.environ(words), shell.Options{
		Hostname: c.start.Hostname.Text, Dir: c.start.Dir, ReadFile: c.readFile,
	})
	if err != nil {
		c.keep(c.scripts.error(err))
		return
	}
	var all []found
	for _, cmd := range commands {
		if cmd.IsEtcd() {
			all = append(all, c.found(cmd))
		}
	}
	if len(all) == 0 {
		c.keep(words[0].At.Errorf("no start of etcd is found in what %s runs: give the settings with the flags of the "+
			"restore", words[0].Text))
		return
	}
	c.settle(c.choose(all))
}

// found takes a command of a shell, with the positions of this file.
func (c *command) found(cmd shell.Command) found {
	f := found{
		env: slices.Clone(cmd.Env), err: c.scripts.error(cmd.Err), at: c.scripts.place(cmd.Words[0].At),
		dir: c.scripts.word(cmd.Dir), user: c.scripts.word(cmd.User), group: c.scripts.word(cmd.Group),
	}
	for _, w := range cmd.Words[1:] {
		f.args = append(f.args, c.scripts.word(w))
	}
	for i := range f.env {
		f.env[i].Value = c.scripts.word(f.env[i].Value)
	}
	for _, n := range cmd.Notes {
		c.note(c.scripts.place(n.At), n.Text)
	}
	return f
}

// scripts are where scripts begin that are in this file, by their path in the container.
type scripts map[string]members.Position

// place is the position in this file of one in a script.
func (s scripts) place(at members.Position) members.Position {
	begin, ok := s[at.File]
	if !ok {
		return at
	}
	begin.Line += max(at.Line-1, 0)
	return begin
}

func (s scripts) word(w members.Word) members.Word {
	return members.Word{Text: w.Text, At: s.place(w.At)}
}

func (s scripts) error(err error) error {
	var at *members.FileError
	if !errors.As(err, &at) {
		return err
	}
	return &members.FileError{At: s.place(at.At), Problem: at.Problem}
}

// keep is failf for an error that has a line already.
func (c *command) keep(err error) {
	if c.err == nil {
		c.err = err
	}
}

var variableName = regexp.MustCompile(`\$\{?#?([A-Za-z_][A-Za-z0-9_]*)`)

// environ is what a shell gets: what is not known of it has marks.
func (c *command) environ(words []members.Word) []members.Variable {
	env := append([]members.Variable{}, c.env.vars...)
	has := map[string]bool{}
	for _, v := range env {
		has[v.Name] = true
	}
	add := func(name, text string, at members.Position) {
		if !has[name] {
			env = append(env, members.Variable{Name: name, Value: members.Word{Text: text, At: at}})
			has[name] = true
		}
	}
	// The runtime gives it to every container.
	host := c.start.Hostname
	if host.Text == "" {
		host.Text = c.env.unknowns.add("HOSTNAME", "it is the name of the host or the pod, which the file does not say",
			host.At)
	}
	add("HOSTNAME", host.Text, host.At)
	for _, w := range words {
		for _, m := range variableName.FindAllStringSubmatch(w.Text, -1) {
			if text, ok := c.env.lookup(m[1]); ok {
				add(m[1], text, w.At)
			}
		}
	}
	return env
}

// readFile returns a script of a ConfigMap that is in the same file and mounted.
func (c *command) readFile(name string) ([]byte, error) {
	for _, m := range c.container.get("volumeMounts").items() {
		if path.Dir(name) != path.Clean(m.get("mountPath").text()) {
			continue
		}
		for _, v := range c.spec.get("volumes").items() {
			configMap := v.get("configMap")
			if v.get("name").text() != m.get("name").text() || !configMap.get("items").absent() {
				continue
			}
			data := c.configMaps[configMap.get("name").text()].get("data").get(path.Base(name))
			if !data.absent() {
				text := data.word()
				c.scripts[name] = text.At
				c.texts = append(c.texts, text)
				c.noteOwnMembers([]members.Word{text})
				return []byte(text.Text), nil
			}
		}
	}
	return nil, fmt.Errorf("%s is not in the file", name)
}

func (c *command) noteOwnMembers(words []members.Word) {
	for _, w := range words {
		if at := ownMembers.FindStringIndex(w.Text); at != nil {
			w.At.Line += strings.Count(w.Text[:at[0]], "\n")
			c.note(w.At, "this script adds and removes members by itself, as a rule the ordinals above its initial size: "+
				"let no more pods start than members were restored, and scale up afterwards")
			return
		}
	}
	if image := c.container.get("image").word(); strings.Contains(image.Text, "bitnami") {
		c.note(image.At, "the scripts of this image add and remove members by themselves, as a rule the ordinals above "+
			"their initial size: let no more pods start than members were restored, and scale up afterwards")
	}
}

// noteLiteral tells of references that the kubelet leaves as they are.
func (c *command) noteLiteral(words []members.Word) {
	for _, w := range words {
		if i := strings.Index(w.Text, "$("); i >= 0 && strings.HasPrefix(w.Text, "-") {
			c.note(w.At, fmt.Sprintf("the container has no variable for %s, and the kubelet leaves it as it is",
				c.env.unknowns.show(w.Text[i:])))
		}
	}
}

func (c *command) note(at members.Position, text string) {
	c.start.Notes = append(c.start.Notes, members.Note{At: at, Text: text})
}
