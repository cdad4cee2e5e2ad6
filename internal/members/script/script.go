// Package script reads how shell scripts and programs of supervisord start etcd, themselves or
// in containers.
package script

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/container"
	"github.com/etcd-backupd/backupd/internal/members/kube"
	"github.com/etcd-backupd/backupd/internal/members/prepare"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// Options are those of all readers.
type Options = members.ReadOptions

// Recognize reports whether a file is a program of supervisord, or a shell script that has to
// do with etcd.
func Recognize(_ string, raw []byte) bool {
	if isSupervisor(raw) {
		return true
	}
	if bytes.IndexByte(raw, 0) >= 0 || !bytes.Contains(raw, []byte("etcd")) || container.Recognize("", raw) ||
		kube.Recognize("", raw) && kube.Whole(raw) {
		return false
	}
	commands, files, err := shell.Evaluate(members.Word{Text: string(raw), At: members.Position{Line: 1}}, nil,
		shell.Options{})
	if err != nil {
		return bytes.HasPrefix(raw, []byte("#!"))
	}
	for _, c := range commands {
		if c.IsEtcd() || container.IsRun(c.Words) || len(c.Words) > 0 && (c.Hides() || passes(c.Words[1:])) {
			return true
		}
	}
	return len(files) > 0
}

// Read returns the starts of etcd that a script or a program of supervisord makes.
func Read(file string, raw []byte, o Options) ([]members.Start, error) {
	if isSupervisor(raw) {
		return supervisor(members.Word{Text: string(raw), At: members.Position{File: file, Line: 1}}, file, o)
	}
	if bytes.IndexByte(raw, 0) >= 0 {
		return nil, members.Position{File: file}.Errorf("it is not a text")
	}
	return read(members.Word{Text: string(raw), At: members.Position{File: file, Line: 1}}, o)
}

// read evaluates a script. With which arguments it is called is not known.
func read(text members.Word, o Options) ([]members.Start, error) {
	commands, files, err := shell.Evaluate(text, nil, shell.Options{Hostname: o.Hostname, ReadFile: o.ReadFile})
	if err != nil {
		return nil, err
	}
	starts, err := fromCommands(commands, members.Script, o)
	if err != nil || len(starts) > 0 {
		return starts, err
	}
	starts, err = fromFiles(files, o)
	if err != nil || len(starts) > 0 {
		return starts, err
	}
	for _, c := range commands {
		if c.Hides() {
			return nil, backup.WithHint(c.Err, "if it does not start etcd, give the file that does")
		}
	}
	return nil, text.At.Errorf("no command that starts etcd was found in this file")
}

// fromFiles reads what a script writes: other scripts, and programs of supervisord that run
// them.
func fromFiles(files []shell.File, o Options) ([]members.Start, error) {
	beside := o
	beside.ReadFile = func(name string) ([]byte, error) {
		for _, f := range files {
			if f.Path == name {
				return []byte(f.Text.Text), f.Err
			}
		}
		if o.ReadFile == nil {
			return nil, fs.ErrNotExist
		}
		return o.ReadFile(name)
	}
	var starts []members.Start
	for _, f := range files {
		if f.Err != nil || !isSupervisor([]byte(f.Text.Text)) {
			continue
		}
		more, err := supervisor(f.Text, f.Path, beside)
		if err != nil {
			return nil, err
		}
		starts = append(starts, moved(more, files)...)
	}
	if len(starts) > 0 {
		return starts, nil
	}
	for _, f := range files {
		if !strings.Contains(f.Text.Text, "etcd") || isSupervisor([]byte(f.Text.Text)) {
			continue
		}
		if f.Err != nil {
			return nil, f.Err
		}
		commands, err := shell.Commands(f.Text, nil, shell.Options{Hostname: o.Hostname, ReadFile: beside.ReadFile})
		if err != nil {
			continue // it is no script
		}
		more, err := fromCommands(commands, members.Script, o)
		if err != nil {
			return nil, err
		}
		starts = append(starts, more...)
	}
	return starts, nil
}

// moved gives the lines of the file at hand to what was read from a text within it.
func moved(starts []members.Start, files []shell.File) []members.Start {
	at := func(p *members.Position) {
		for _, f := range files {
			if p.File == f.Path && p.Line > 0 {
				p.File, p.Line = f.Text.At.File, f.Text.At.Line+p.Line-1
			}
		}
	}
	for i := range starts {
		s := &starts[i]
		for j := range s.Args {
			at(&s.Args[j].At)
		}
		for j := range s.Env {
			at(&s.Env[j].Value.At)
		}
		for j := range s.Notes {
			at(&s.Notes[j].At)
		}
		for _, w := range []*members.Position{&s.Of, &s.Dir.At, &s.User.At, &s.Group.At} {
			at(w)
		}
	}
	return starts
}

// harmless are programs that may have etcd among their arguments without starting it.
var harmless = strings.Fields(`mkdir chown chmod chgrp ls cat cp mv ln rm touch tar unzip curl wget install stat du df
	systemctl service supervisorctl pkill killall kill pgrep pidof id getent useradd adduser groupadd usermod echo printf
	test [ which type command grep sed awk yum dnf apt apt-get apk rpm dpkg update-rc.d chkconfig setcap tee head tail find
	export cd read journalctl tput sleep date git make go docker podman nerdctl kubectl crictl ctr etcdctl etcdutl ssh scp
	rsync firewall-cmd iptables ufw restorecon semanage setfacl trap exit unset set`)

// fromCommands makes starts of the commands that start etcd.
func fromCommands(commands []shell.Command, means members.Means, o Options) ([]members.Start, error) {
	var starts []members.Start
	var needs []members.Need
	for _, c := range commands {
		needs = append(needs, prepare.Of(c.Words, c.Err, c.Dir.Text, o)...)
		switch {
		case c.IsEtcd() && c.Err != nil:
			return nil, c.Err
		case c.IsEtcd():
			if informs(c) {
				continue
			}
			starts = append(starts, members.Start{
				Means: means, Of: c.Words[0].At, Args: c.Words[1:], Env: c.Env, Dir: c.Dir, User: c.User, Group: c.Group,
				Hostname: members.Word{Text: o.Hostname, At: c.Words[0].At}, Notes: c.Notes,
				Needs: slices.Clone(needs),
			})
		case container.IsRun(c.Words):
			if c.Err != nil {
				if !slices.ContainsFunc(c.Words, func(w members.Word) bool { return strings.Contains(w.Text, "etcd") }) {
					continue
				}
				return nil, c.Err
			}
			s, err := container.Run(c.Words, c.Env, c.Dir.Text, o, nil)
			if err != nil {
				return nil, err
			}
			if s != nil {
				s.Notes = append(s.Notes, c.Notes...)
				s.Needs = slices.Clone(needs)
				starts = append(starts, *s)
			}
		case len(c.Words) > 0 && !slices.Contains(harmless, path.Base(c.Words[0].Text)) && passes(c.Words[1:]):
			return nil, c.Words[0].At.Errorf("%s seems to start etcd, and how it does so is not known here",
				c.Words[0].Text)
		}
	}
	return starts, nil
}

// informs reports whether etcd only says something and ends.
func informs(c shell.Command) bool {
	return slices.ContainsFunc(c.Words[1:], func(w members.Word) bool {
		return slices.Contains([]string{"--version", "-version", "--help", "-help", "-h"}, w.Text)
	})
}

// passes reports whether a program's arguments have etcd and flags of its.
func passes(words []members.Word) bool {
	program := slices.IndexFunc(words, func(w members.Word) bool {
		return !strings.HasPrefix(w.Text, "-") && path.Base(w.Text) == "etcd"
	})
	return program >= 0 && slices.ContainsFunc(words[program:], func(w members.Word) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(w.Text, "-"), "=")
		return strings.HasPrefix(w.Text, "-") && slices.Contains([]string{
			"name", "data-dir", "listen-peer-urls", "listen-client-urls", "initial-cluster", "config-file",
		}, name)
	})
}
