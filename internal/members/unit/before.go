package unit

import (
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/prepare"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// order takes a setting of the unit that says what is started before it.
func order(u *unit, a assignment) {
	switch a.name {
	case "RequiresMountsFor", "WantsMountsFor", "Requires", "Requisite", "BindsTo", "Wants":
		if a.value.s == "" {
			u.mounts = slices.DeleteFunc(u.mounts, func(o assignment) bool { return o.name == a.name })
			return
		}
		u.mounts = append(u.mounts, a)
	}
}

// findNeeds finds what has to be there before etcd runs.
func findNeeds(u *unit) error {
	for _, a := range u.mounts {
		value := a.value
		if !strings.HasSuffix(a.name, "MountsFor") {
			value = value.literal() // names of units keep their escapes
		}
		list, err := words(value)
		if err != nil {
			return err
		}
		for _, t := range list {
			s, err := u.expand(t)
			w := members.Word{Text: s, At: a.at}
			if need, ok := prepare.Unit(w); ok && err == nil {
				u.Needs = append(u.Needs, need)
			}
			if !strings.HasSuffix(a.name, "MountsFor") {
				continue
			}
			need := members.Need{Path: members.Word{At: a.at}, What: "a mount for " + a.name + "=", Above: true}
			if err == nil {
				need.Path.Text = path.Clean("/" + s)
			}
			u.Needs = append(u.Needs, need)
		}
	}
	made := false
	for _, a := range u.before {
		commands, harmless := evaluate(u, a)
		made = made || !harmless
		for _, c := range commands {
			u.Needs = append(u.Needs, needsOf(u, c)...)
		}
	}
	// What is gone after a boot is made again by something, and what was not copied may be there.
	u.Absent = slices.DeleteFunc(u.Absent, func(w members.Word) bool {
		known := u.copied == nil || u.holds(w.Text)
		return known && !made && !strings.HasPrefix(w.Text, "/run/") && !strings.HasPrefix(w.Text, "/var/run/")
	})
	return nil
}

// needsOf returns what a command of the service makes. Where its paths are on the host is not
// followed if the service has a file system of its own.
func needsOf(u *unit, c shell.Command) []members.Need {
	needs := prepare.Of(c.Words, c.Err, c.Dir.Text, u.options)
	for i := range needs {
		if u.paths.moved {
			needs[i].Path.Text = ""
		}
	}
	return needs
}

// checkAbsent refuses commands with words that a file may change which is not there.
func checkAbsent(u *unit, command []members.Word, commands []shell.Command) error {
	if len(u.Absent) == 0 {
		return nil
	}
	bare, err := shell.Run(command, nil, shell.Options{
		Hostname: u.options.Hostname, Dir: u.Dir, ReadFile: u.options.ReadFile,
	})
	same := slices.EqualFunc(bare, commands, func(a, b shell.Command) bool {
		return (a.Err == nil || b.Err != nil) && slices.Equal(a.Words, b.Words)
	})
	if err == nil && same {
		return nil
	}
	return absentCommand(u)
}

func absentCommand(u *unit) error {
	return u.Absent[0].At.Errorf("%s is not there, and may come before etcd is started: it may set variables of the "+
		"command at %s", u.Absent[0].Text, u.Of)
}

// checkAbsentIn refuses a container that gets a variable which a file may set that is not there.
func checkAbsentIn(u *unit, c shell.Command, s *members.Start) error {
	if len(u.Absent) == 0 {
		return nil
	}
	bare, err := u.options.Container(c.Words, nil, c.Dir.Text, u.options)
	if err != nil || bare == nil || !slices.Equal(bare.Env, s.Env) {
		return absentCommand(u)
	}
	return nil
}

// evaluate returns the commands that a line runs before etcd, and whether these are all and
// none of them writes a file that counts.
func evaluate(u *unit, a assignment) (commands []shell.Command, harmless bool) {
	notes, absent := u.Notes, u.Absent
	u.Absent = nil
	list, err := u.command(a)
	u.Notes, u.Absent = notes, absent
	if err != nil {
		return nil, false
	}
	commands, files, err := shell.RunAll(list, u.env.known(), shell.Options{
		Hostname: u.options.Hostname, Dir: u.Dir, ReadFile: u.options.ReadFile,
	})
	harmless = err == nil && len(files) == 0 && !slices.ContainsFunc(commands, func(c shell.Command) bool {
		return len(c.Words) == 0 || !writesNothing(c.Words)
	})
	return commands, harmless
}

// writesNothing is true for a command that makes no file with settings in it.
func writesNothing(words []members.Word) bool {
	name := path.Base(words[0].Text)
	if name == "docker" || name == "podman" || name == "systemctl" {
		return len(words) > 1 && slices.Contains([]string{"rm", "stop", "kill", "pull", "is-active"}, words[1].Text)
	}
	return slices.Contains(writeNothing, name)
}

var writeNothing = strings.Fields(`mkdir chown chmod chgrp ls stat test [ true sleep rm rmdir touch mount umount
	modprobe sysctl etcdctl etcdutl pkill kill setcap getcap restorecon chattr mountpoint`)
