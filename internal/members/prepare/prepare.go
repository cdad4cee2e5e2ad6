// Package prepare knows the commands and the settings that change where the path of etcd's data
// leads before etcd runs: mounts and links. A restore beneath a mount that comes later is not seen
// by etcd, which begins an empty cluster then.
package prepare

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// Of returns what a command makes that is run in dir. Words that are not known, for which err is
// the reason, are there as they are written.
func Of(words []members.Word, err error, dir string, o members.ReadOptions) []members.Need {
	if len(words) == 0 {
		return nil
	}
	c := command{words: words[1:], at: words[0].At, guess: err != nil, dir: dir, o: o}
	switch name := path.Base(words[0].Text); {
	case name == "mount" || strings.HasPrefix(name, "mount."):
		return c.mount()
	case slices.Contains([]string{"sshfs", "bindfs", "s3fs", "ceph-fuse", "glusterfs", "zfs"}, name):
		return c.last("a mount by " + name)
	case name == "ln":
		return c.link()
	case name == "systemctl":
		return c.units()
	}
	return nil
}

type command struct {
	words []members.Word
	at    members.Position
	guess bool
	dir   string
	o     members.ReadOptions
}

// need is what is made at a path. A path that is not known is empty.
func (c command) need(w members.Word, what string) members.Need {
	switch {
	case c.guess && strings.ContainsAny(w.Text, "$`*?{"), !path.IsAbs(w.Text) && !path.IsAbs(c.dir):
		w.Text = ""
	case !path.IsAbs(w.Text):
		w.Text = path.Join(c.dir, w.Text)
	default:
		w.Text = path.Clean(w.Text)
	}
	return members.Need{Path: w, What: what}
}

// operands are the words that are no options. withValue are the options whose value is a word.
func (c command) operands(withValue ...string) (out []members.Word) {
	for i := 0; i < len(c.words); i++ {
		switch w := c.words[i]; {
		case slices.Contains(withValue, w.Text):
			i++
		case w.Text == "--":
			return append(out, c.words[i+1:]...)
		case len(w.Text) < 2 || w.Text[0] != '-':
			out = append(out, w)
		}
	}
	return out
}

func (c command) has(test func(word string) bool) bool {
	return slices.ContainsFunc(c.words, func(w members.Word) bool { return test(w.Text) })
}

func (c command) mount() (out []members.Need) {
	if c.has(func(w string) bool { return strings.HasPrefix(w, "--make-") || strings.Contains(w, "remount") }) {
		return nil // of what is mounted
	}
	what := "a mount"
	for i, w := range c.words {
		if target, ok := strings.CutPrefix(w.Text, "--target="); ok {
			return []members.Need{c.need(members.Word{Text: target, At: w.At}, what)}
		}
		if w.Text == "--target" && i+1 < len(c.words) {
			return []members.Need{c.need(c.words[i+1], what)}
		}
	}
	operands := c.operands("-t", "--types", "-o", "--options", "-O", "-T", "--fstab", "-N", "--source", "-L", "--label",
		"-U", "--uuid")
	all := c.has(func(w string) bool {
		return w == "--all" || len(w) > 1 && w[0] == '-' && w[1] != '-' && strings.Contains(w, "a")
	})
	named := c.has(func(w string) bool {
		return slices.Contains([]string{"-L", "--label", "-U", "--uuid", "--source"}, w) || strings.HasPrefix(w, "--source=")
	})
	switch {
	case all:
		return c.table(func(string) bool { return true })
	case len(operands) == 1 && !named:
		// It is a device or a path, and the table of the host has the other one.
		return append(c.table(func(device string) bool { return device == operands[0].Text }), c.need(operands[0], what))
	case len(operands) == 1 && named && c.has(func(w string) bool { return strings.HasPrefix(w, "--source") }),
		len(operands) > 0:
		return []members.Need{c.need(operands[len(operands)-1], what)}
	}
	return nil
}

// table returns the mounts of the host's table whose device is wanted.
func (c command) table(wanted func(device string) bool) (out []members.Need) {
	const file = "/etc/fstab"
	if c.o.ReadFile == nil {
		return nil
	}
	raw, err := c.o.ReadFile(file)
	if err != nil {
		return nil
	}
	for i, line := range strings.Split(string(raw), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || !path.IsAbs(fields[1]) || !wanted(fields[0]) ||
			slices.Contains(strings.Split(fields[3], ","), "noauto") {
			continue
		}
		at := members.Word{Text: unescape(fields[1], 8, 3), At: c.at}
		out = append(out, members.Need{Path: at, What: "a mount, as " + file + ":" + strconv.Itoa(i+1) + " has it"})
	}
	return out
}

func (c command) last(what string) []members.Need {
	if operands := c.operands("-o", "-p", "-F"); len(operands) > 1 {
		return []members.Need{c.need(operands[len(operands)-1], what)}
	}
	return nil
}

func (c command) link() []members.Need {
	symbolic := c.has(func(w string) bool {
		return w == "--symbolic" || len(w) > 1 && w[0] == '-' && w[1] != '-' && strings.Contains(w, "s")
	})
	operands := c.operands("-t", "-S")
	if !symbolic || len(operands) == 0 {
		return nil
	}
	to := operands[0]
	at := operands[len(operands)-1]
	if len(operands) == 1 {
		at.Text = path.Base(to.Text)
	}
	n := c.need(at, "a link to "+to.Text)
	n.Link = to.Text
	return []members.Need{n}
}

// units are mounts that systemd is asked for.
func (c command) units() (out []members.Need) {
	operands := c.operands()
	if len(operands) == 0 || !slices.Contains([]string{"start", "restart", "reload-or-restart"}, operands[0].Text) {
		return nil
	}
	for _, w := range operands[1:] {
		if n, ok := Unit(w); ok {
			out = append(out, n)
		}
	}
	return out
}

// Unit returns the mount that a unit of systemd makes, if it is one of a mount.
func Unit(w members.Word) (members.Need, bool) {
	name, ok := strings.CutSuffix(w.Text, ".mount")
	if !ok || name == "-" {
		return members.Need{}, false
	}
	at := "/" + unescape(strings.ReplaceAll(name, "-", "/"), 16, 2)
	return members.Need{Path: members.Word{Text: path.Clean(at), At: w.At}, What: "the mount " + w.Text}, true
}

// unescape replaces bytes that are written as a backslash and a number, with an x before one of base 16.
func unescape(s string, base, digits int) string {
	mark := `\`
	if base == 16 {
		mark = `\x`
	}
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, mark)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		s = after
		if n, err := strconv.ParseUint(after[:min(digits, len(after))], base, 8); err == nil {
			out.WriteByte(byte(n))
			s = after[digits:]
			continue
		}
		out.WriteString(mark)
	}
}
