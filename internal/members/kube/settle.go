package kube

import (
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// decisive are the settings of etcd that say who a member is and where its data is, and
// those that make a server something else than a member.
var decisive = []string{
	"name", "data-dir", "wal-dir", "initial-advertise-peer-urls", "config-file", "proxy", "force-new-cluster",
	"discovery-fallback",
}

// places are the settings that have to be known of every start that a script may make.
var places = []string{"data-dir", "wal-dir", "config-file"}

func variable(setting string) string {
	return "ETCD_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// found is one start of etcd in a container.
type found struct {
	args             []members.Word
	env              []members.Variable
	at               members.Position
	dir, user, group members.Word
	err              error // why something of it is not known
}

// setting is a flag and the words that it has.
type setting struct {
	name  string // "" for a word that is no flag
	value members.Word
	words []members.Word
}

// split takes the flags apart. What follows a flag without a value in it is either its
// value or the next flag; a value may begin with a dash, but no one of those matters here.
func split(args []members.Word) []setting {
	var out []setting
	for i := 0; i < len(args); i++ {
		w := args[i]
		name, value, has := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(w.Text, "-"), "-"), "=")
		s := setting{name, members.Word{Text: value, At: w.At}, []members.Word{w}}
		switch {
		case !strings.HasPrefix(w.Text, "-"):
			s.name, s.value = "", w
		case !has && i+1 < len(args) && !strings.HasPrefix(args[i+1].Text, "-"):
			i++
			s.value, s.words = args[i], append(s.words, args[i])
		}
		out = append(out, s)
	}
	return out
}

// get returns the last value of a setting, from a flag or else from its variable.
func (f found) get(name string) (members.Word, bool) {
	flags := split(f.args)
	for _, s := range slices.Backward(flags) {
		if s.name == name {
			return s.value, true
		}
	}
	for _, v := range f.env {
		if v.Name == variable(name) && v.Value.Text != "" {
			return v.Value, true
		}
	}
	return members.Word{}, false
}

// open reports whether a shell leaves text unknown: it is as it is written then.
func (f found) open(text string) bool { return f.err != nil && strings.ContainsAny(text, "$`") }

// settle makes the start of what was found, and refuses what is not known of it and
// decides.
func (c *command) settle(f found) {
	if c.err != nil {
		return
	}
	c.start.Args, c.start.Env = nil, nil
	for _, s := range split(f.args) {
		if !c.known(f, s) {
			continue
		}
		c.start.Args = append(c.start.Args, s.words...)
	}
	for _, v := range f.env {
		what, unknown := c.env.unknowns.in(v.Value.Text)
		name := settingOf(v.Name)
		switch {
		case !unknown:
			c.start.Env = append(c.start.Env, v)
		case slices.Contains(decisive, name) && !flagged(f.args, name):
			c.keep(v.Value.At.Errorf("%s is not known here: $(%s): %s", v.Name, what.name, what.why))
		case strings.HasPrefix(v.Name, "ETCD_"):
			c.note(v.Value.At, fmt.Sprintf("%s is not known here, and left out: %s", v.Name, what.why))
		}
	}
	c.sources(f)
	if f.dir.Text != "" {
		c.start.Dir = f.dir
	}
	if f.user.Text != "" {
		c.start.User, c.start.Group = f.user, f.group
	}
}

// known reports whether a flag is. It refuses one that decides and is not, and notes others.
func (c *command) known(f found, s setting) bool {
	why := ""
	for _, w := range s.words {
		if what, unknown := c.env.unknowns.in(w.Text); unknown {
			why = fmt.Sprintf("$(%s): %s", what.name, what.why)
		} else if f.open(w.Text) && why == "" {
			why = f.err.Error()
		}
	}
	if why == "" {
		return true
	}
	at, text := s.words[0].At, c.env.unknowns.show(s.words[0].Text)
	name, _, _ := strings.Cut(text, "=")
	if _, odd := c.env.unknowns.in(s.name); odd || s.name == "" || f.open(s.name) {
		c.keep(at.Errorf("%s may be any flag of etcd: %s", text, why))
		return false
	}
	if slices.Contains(decisive, s.name) {
		c.keep(s.value.At.Errorf("%s is not known here: %s", name, why))
		return false
	}
	c.note(at, fmt.Sprintf("%s is not known here, and left out: %s", name, why))
	return false
}

// sources refuses variables that may come from where nobody knows, and settings that the
// image may have.
func (c *command) sources(f found) {
	for _, name := range decisive {
		if _, given := f.get(name); given {
			continue
		}
		if from, may := c.env.mayGive(variable(name)); may {
			c.keep(from.at.Errorf("%s may be what %s: it is not known here", variable(name), from.what))
		}
		if c.image && (name == "name" || name == "data-dir") {
			c.keep(f.at.Errorf("the image says what runs in this container, and with which %s: neither --%s nor %s is in "+
				"the file", name, name, variable(name)))
		}
	}
}

// choice is one of all starts of etcd that a script may come to.
type choice struct {
	*command
	best found
}

// choose takes the most complete one: the first start of a new member, as a rule. It
// refuses those that contradict each other.
func (c *command) choose(all []found) found {
	best := all[0]
	for _, f := range all[1:] {
		if f.score() >= best.score() {
			best = f
		}
	}
	by := &choice{c, best}
	for _, f := range all {
		for _, name := range decisive {
			by.compare(name, f)
		}
		if f.dir.Text != best.dir.Text {
			c.keep(f.at.Errorf("etcd is started in %q here, and in %q at %s", f.dir.Text, best.dir.Text, best.at))
		}
	}
	if best.err != nil {
		by.checkVariables()
	}
	if len(all) > 1 {
		by.leaveOutList()
	}
	return by.best
}

// leaveOutList takes --initial-cluster away if it has not this member: the start that was
// taken is that of the first members, and a script adds the others in another one.
func (c *choice) leaveOutList() {
	list, given := c.best.get("initial-cluster")
	name, _ := c.best.get("name")
	if !given || c.best.open(list.Text) || strings.Contains(","+list.Text, ","+name.Text+"=") {
		return
	}
	var args []members.Word
	for _, s := range split(c.best.args) {
		if s.name != "initial-cluster" {
			args = append(args, s.words...)
		}
	}
	if len(args) < len(c.best.args) {
		c.note(list.At, fmt.Sprintf("--initial-cluster has not %s, and is left out: the script adds this member later",
			name.Text))
		c.best.args = args
	}
}

// score counts what is known of a start.
func (f found) score() int {
	n := 0
	for _, name := range decisive {
		if v, ok := f.get(name); ok && !f.open(v.Text) {
			n++
		}
	}
	return n
}

// compare looks at a setting of another start of the same script.
func (c *choice) compare(name string, f found) {
	want, wanted := c.best.get(name)
	got, given := f.get(name)
	place := slices.Contains(places, name)
	switch {
	case given && f.open(got.Text) && (place || !wanted):
		c.keep(got.At.Errorf("--%s is not known here: %v", name, f.err))
	case given && f.open(got.Text):
		if f.at != c.best.at {
			c.note(got.At, fmt.Sprintf("--%s of this start is not known (%v): taken is the start at %s", name, f.err,
				c.best.at))
		}
	case given && wanted && got.Text != want.Text && !c.best.open(want.Text):
		c.keep(got.At.Errorf("--%s is %s here, and %s at %s: which one etcd gets cannot be known", name, got.Text,
			want.Text, want.At))
	case given != wanted && (place || name == "name"):
		c.keep(f.at.Errorf("--%s is given for one start of etcd and not for another, at %s", name, c.best.at))
	}
}

// checkVariables refuses a start whose variables are not known, if the script has some that
// decide.
func (c *choice) checkVariables() {
	for _, name := range decisive {
		_, given := c.best.get(name)
		if !given && slices.ContainsFunc(c.texts, func(w members.Word) bool {
			return strings.Contains(w.Text, variable(name))
		}) {
			c.keep(c.best.err)
		}
	}
}

func settingOf(variableName string) string {
	name, ok := strings.CutPrefix(variableName, "ETCD_")
	if !ok {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}

func flagged(args []members.Word, name string) bool {
	return slices.ContainsFunc(split(args), func(s setting) bool { return s.name == name })
}

// peerURLs are those that a start gives to the other members.
func peerURLs(s members.Start) []members.Word {
	v, ok := found{args: s.Args, env: s.Env}.get("initial-advertise-peer-urls")
	if !ok {
		return nil
	}
	var out []members.Word
	for u := range strings.SplitSeq(v.Text, ",") {
		out = append(out, members.Word{Text: u, At: v.At})
	}
	return out
}
