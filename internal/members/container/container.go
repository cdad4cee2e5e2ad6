// Package container reads how containers of docker, podman and compose start etcd: the words
// of docker run, a Dockerfile, a compose file. Paths are those of the container, and mounts
// say where they are on the host.
package container

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// Image is what an image says about its containers.
type Image struct {
	Entrypoint, Cmd []members.Word
	Env             []members.Variable
	Dir             members.Word
	User            members.Word
	At              members.Position
	// Shell is true if the entrypoint is text for a shell: arguments are not added to it.
	Shell bool
	// BaseUnknown is true if the image is made of another one, which may have an
	// entrypoint and variables of its own.
	BaseUnknown bool
}

// settings are those of one container, in whatever way they are written.
type settings struct {
	name       string
	service    string // of a compose file, unless the container has a name
	at         members.Position
	image      members.Word
	entrypoint []members.Word
	noEntry    bool // the image's entrypoint is taken away or replaced
	args       []members.Word
	env        []members.Variable
	dir        members.Word
	user       members.Word
	hostname   members.Word
	hostNet    bool
	mounts     []members.Mount
	notes      []members.Note
	of         *Image // nil: nothing is known about the image
}

// set adds a variable. The last one of a name counts.
func set(env []members.Variable, v members.Variable) []members.Variable {
	env = slices.DeleteFunc(slices.Clone(env), func(o members.Variable) bool { return o.Name == v.Name })
	return append(env, v)
}

// start returns the start of etcd in a container, and nil if it starts something else.
func (c settings) start(o members.ReadOptions) (*members.Start, error) {
	if err := c.takeDockerfile(o.Dockerfile); err != nil {
		return nil, err
	}
	words, err := c.words()
	if err != nil || len(words) == 0 {
		return nil, err
	}
	env := c.env
	dir, user := c.dir, c.user
	if c.of != nil {
		env = nil
		for _, v := range append(slices.Clone(c.of.Env), c.env...) {
			env = set(env, v)
		}
		if dir.Text == "" {
			dir = c.of.Dir
		}
		if user.Text == "" {
			user = c.of.User
		}
	}
	hostname := c.hostname
	if hostname.Text == "" && c.hostNet && o.Hostname != "" {
		hostname = members.Word{Text: o.Hostname, At: c.at}
	}
	commands, err := shell.Run(words, env, shell.Options{Hostname: hostname.Text, Dir: dir})
	if err != nil {
		return nil, err
	}
	command, err := c.etcd(commands)
	if command == nil || err != nil {
		return nil, err
	}
	s := &members.Start{
		Means: members.Container, Unit: c.name, Service: c.service, Of: c.at,
		Args: command.Words[1:], Env: command.Env, Dir: command.Dir,
		Contained: true, Mounts: c.mounts, Hostname: hostname, Notes: append(slices.Clone(c.notes), command.Notes...),
	}
	if command.User.Text != "" {
		user = command.User
	}
	owner(s, user, command.Group)
	known := user.Text != "" || c.of != nil && !c.of.BaseUnknown
	s.UserOfImage = s.User.Text == "" && !(known && strings.Trim(user.Text, "0") == "" || user.Text == "root")
	if c.of == nil || c.of.BaseUnknown {
		s.Notes = append(s.Notes, members.Note{At: c.image.At,
			Text: "variables that the image " + c.image.Text + " sets itself are not known here"})
	}
	return s, nil
}

// takeDockerfile takes the image of a Dockerfile that was given beside the file for that of a
// container, if what it starts depends on it.
func (c *settings) takeDockerfile(d members.Word) error {
	told := c.noEntry || len(c.args) > 0 && !strings.HasPrefix(c.args[0].Text, "-")
	if d.Text == "" || c.of != nil || told {
		return nil
	}
	var err error
	if c.of, err = Dockerfile(d.At.File, []byte(d.Text)); err == nil {
		c.notes = append(c.notes, members.Note{At: c.image.At,
			Text: "the image " + c.image.Text + " is taken for that of " + d.At.File})
	}
	return err
}

// etcd is the one command that starts etcd.
func (c settings) etcd(commands []shell.Command) (found *shell.Command, err error) {
	for i, command := range commands {
		switch {
		case command.Err != nil && (command.IsEtcd() || command.Hides()):
			return nil, command.Err
		case !command.IsEtcd():
			if slices.ContainsFunc(command.Words, func(w members.Word) bool { return path.Base(w.Text) == "etcd" }) {
				return nil, command.Words[0].At.Errorf("%s is a program of the image: what it gives to etcd is not known",
					command.Words[0].Text)
			}
		case found != nil:
			return nil, command.Words[0].At.Errorf("this starts a second etcd in the container; the first is at %s",
				found.Words[0].At)
		default:
			found = &commands[i]
		}
	}
	return found, nil
}

// words are the entrypoint and its arguments. None: it is another program's container.
func (c settings) words() ([]members.Word, error) {
	entrypoint, args := c.entrypoint, c.args
	if !c.noEntry && c.of != nil {
		entrypoint = c.of.Entrypoint
		if len(args) == 0 {
			args = c.of.Cmd
		}
		if c.of.Shell && len(entrypoint) > 0 {
			args = nil
		}
	}
	known := c.noEntry || c.of != nil && (len(c.of.Entrypoint) > 0 || !c.of.BaseUnknown)
	words := append(slices.Clone(entrypoint), args...)
	switch {
	case known:
		return words, nil
	case len(args) > 0 && !strings.HasPrefix(args[0].Text, "-"):
		return words, nil // images of etcd's project have no entrypoint that would change it
	case !strings.Contains(path.Base(c.image.Text), "etcd") && !serverFlags(args):
		return nil, nil
	}
	return nil, backup.WithHint(c.image.At.Errorf("the ENTRYPOINT of the image %s is not known, and with it the flags "+
		"that it gives to etcd", c.image.Text), "if you have its Dockerfile, give that with --from as well; else see it "+
		"with `docker image inspect %s`, and give --name, --data-dir and --initial-cluster", c.image.Text)
}

func serverFlags(args []members.Word) bool {
	return slices.ContainsFunc(args, func(w members.Word) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(w.Text, "-"), "=")
		return strings.HasPrefix(w.Text, "-") && slices.Contains([]string{
			"listen-peer-urls", "listen-client-urls", "advertise-client-urls", "initial-cluster", "initial-cluster-state",
		}, name)
	})
}

// owner takes the user of a container over to the host: numbers are the same there, names
// are those of the container's own list.
func owner(s *members.Start, user, group members.Word) {
	name, second, ok := strings.Cut(user.Text, ":")
	if ok {
		group = members.Word{Text: second, At: user.At}
	}
	for _, w := range []struct {
		to   *members.Word
		from members.Word
	}{{&s.User, members.Word{Text: name, At: user.At}}, {&s.Group, group}} {
		if w.from.Text == "" || w.from.Text == "root" {
			continue
		}
		if _, err := strconv.ParseUint(w.from.Text, 10, 32); err == nil {
			*w.to = w.from
			continue
		}
		s.Notes = append(s.Notes, members.Note{At: w.from.At,
			Text: "the user " + w.from.Text + " is one of the container's: its number on this host is not known here"})
	}
}

// mount adds one mount of HOST:INSIDE[:OPTIONS], NAME:INSIDE or INSIDE. dir is where relative
// paths begin.
func mount(w members.Word, dir string) (members.Mount, error) {
	parts := strings.Split(w.Text, ":")
	m := members.Mount{}
	switch {
	case len(parts) == 1:
		m.Inside = w
	case len(parts) > 3 || parts[0] == "" || parts[1] == "":
		return m, w.At.Errorf("the volume %q is not understood", w.Text)
	default:
		m.Inside = members.Word{Text: parts[1], At: w.At}
		if len(parts) == 3 {
			m.ReadOnly = slices.Contains(strings.Split(parts[2], ","), "ro")
		}
		var err error
		if m.Host, m.Volume, err = hostSide(members.Word{Text: parts[0], At: w.At}, dir); err != nil {
			return m, err
		}
	}
	if !path.IsAbs(m.Inside.Text) {
		return m, w.At.Errorf("the volume %q is not understood: its place in the container is not absolute", w.Text)
	}
	return m, nil
}

// hostSide tells a path of the host from the name of a volume.
func hostSide(w members.Word, dir string) (host members.Word, volume string, err error) {
	switch {
	case path.IsAbs(w.Text):
		return members.Word{Text: path.Clean(w.Text), At: w.At}, "", nil
	case strings.HasPrefix(w.Text, "~"):
		return host, "", w.At.Errorf("%s depends on who runs it: ~ is a home directory", w.Text)
	case strings.HasPrefix(w.Text, "."):
		if !path.IsAbs(dir) {
			return host, "", w.At.Errorf("%s is relative to a folder that is not known", w.Text)
		}
		return members.Word{Text: path.Join(dir, w.Text), At: w.At}, "", nil
	case strings.ContainsAny(w.Text, `/\`):
		return host, "", w.At.Errorf("%s is neither an absolute path nor the name of a volume", w.Text)
	}
	return host, w.Text, nil
}
