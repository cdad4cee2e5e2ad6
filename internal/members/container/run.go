package container

import (
	"encoding/csv"
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// IsRun reports whether words are those of docker run or podman run.
func IsRun(words []members.Word) bool {
	_, ok := runWords(words)
	return ok
}

// runWords are what follows run or create.
func runWords(words []members.Word) ([]members.Word, bool) {
	rest, _, ok := runOf(words)
	return rest, ok
}

// runOf returns what follows run or create, and the options before it.
func runOf(words []members.Word) (rest, options []members.Word, ok bool) {
	if len(words) == 0 || !slices.Contains([]string{"docker", "podman", "nerdctl"}, path.Base(words[0].Text)) {
		return nil, nil, false
	}
	for i := 1; i < len(words); i++ {
		switch w := words[i].Text; {
		case w == "run" || w == "create":
			return words[i+1:], words[1:i], true
		case w == "container":
		case slices.Contains([]string{"-H", "--host", "-c", "--context", "--config", "-l", "--log-level", "-n",
			"--namespace", "-a", "--address", "--url", "--connection", "--identity", "--root", "--runroot", "--storage-driver",
			"--tlscacert", "--tlscert", "--tlskey", "--data-root", "--cgroup-manager", "--log-driver"}, w):
			i++
		case !strings.HasPrefix(w, "-"):
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// Run returns the start of etcd that a docker run line makes, and nil if it starts something
// else. env is that of the line, for -e NAME; dir is where it is run, for relative paths. image
// may be nil.
func Run(words []members.Word, env []members.Variable, dir string, o members.ReadOptions, image *Image) (
	*members.Start, error,
) {
	rest, options, ok := runOf(words)
	if !ok {
		return nil, nil
	}
	c := settings{at: words[0].At, of: image}
	r := runFlags{settings: &c, caller: env, here: dir, o: o}
	rest, err := r.flags(rest)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return nil, words[0].At.Errorf("this line names no image")
	}
	c.image, c.args = rest[0], rest[1:]
	own := c.env
	c.env = r.files
	for _, v := range own {
		c.env = set(c.env, v)
	}
	start, err := c.start(o)
	if err := elsewhere(options, env); err != nil && r.fault == nil {
		r.fault = err
	}
	if start != nil && r.fault != nil {
		return nil, r.fault
	}
	return start, err
}

// runFlags are the flags of docker run.
type runFlags struct {
	*settings
	caller []members.Variable
	here   string
	o      members.ReadOptions
	fault  error              // it counts only if the container is etcd's
	files  []members.Variable // of --env-file: --env is stronger, wherever it is written
}

// switches are the flags that have no value of their own.
var switches = strings.Fields(`detach interactive tty rm privileged init read-only publish-all no-healthcheck
	oom-kill-disable sig-proxy disable-content-trust quiet help replace no-hosts rmi tls-verify env-host http-proxy
	passwd no-hostname use-api-socket read-only-tmpfs`)

// short are the flags of one letter.
var short = map[byte]string{
	'd': "detach", 'i': "interactive", 't': "tty", 'P': "publish-all", 'q': "quiet", 'v': "volume", 'e': "env",
	'w': "workdir", 'u': "user", 'h': "hostname", 'p': "publish", 'l': "label", 'm': "memory",
	'c': "cpu-shares", 'a': "attach",
}

// others are the flags with a value that counts for nothing here.
var others = strings.Fields(`publish label label-file memory cpu-shares attach add-host annotation blkio-weight
	blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota
	cpu-rt-period cpu-rt-runtime cpus cpuset-cpus cpuset-mems detach-keys device device-cgroup-rule device-read-bps
	device-read-iops device-write-bps device-write-iops dns dns-opt dns-option dns-search domainname expose gpus
	group-add health-cmd health-interval health-retries health-start-interval health-start-period health-timeout
	io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory link link-local-ip log-driver log-opt mac-address
	memory-reservation memory-swap memory-swappiness net-alias network-alias oom-score-adj pid pids-limit platform
	pull restart runtime security-opt shm-size stop-signal stop-timeout storage-opt sysctl ulimit userns uts
	volume-driver authfile arch os variant pod conmon-pidfile pidfile systemd sdnotify timeout tz umask`)

// flags reads them, and returns the image and what follows.
func (r *runFlags) flags(words []members.Word) ([]members.Word, error) {
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if w.Text == "--" {
			return words, nil
		}
		if len(w.Text) < 2 || w.Text[0] != '-' {
			return append([]members.Word{w}, words...), nil
		}
		name, value, given := strings.Cut(strings.TrimPrefix(w.Text, "--"), "=")
		if !strings.HasPrefix(w.Text, "--") {
			letters := w.Text[1:]
			for len(letters) > 1 && slices.Contains(switches, short[letters[0]]) && letters[1] != '=' {
				letters = letters[1:]
			}
			name, value, given = short[letters[0]], strings.TrimPrefix(letters[1:], "="), len(letters) > 1
		}
		if slices.Contains(switches, name) {
			continue
		}
		flag := w
		if !given {
			if len(words) == 0 {
				return nil, w.At.Errorf("%s has no value", w.Text)
			}
			value, w, words = words[0].Text, words[0], words[1:]
		}
		known, err := r.flag(name, members.Word{Text: value, At: w.At})
		if err != nil {
			r.fault = err
		}
		if !known && !slices.Contains(others, name) {
			return nil, flag.At.Errorf("the flag %s of docker run is not known here", flag.Text)
		}
	}
	return nil, nil
}

// flag takes one with a value.
func (r *runFlags) flag(name string, v members.Word) (known bool, err error) {
	switch name {
	case "name":
		r.name = v.Text
	case "volume":
		var m members.Mount
		if m, err = mount(v, r.here); err == nil {
			r.mounts = append(r.mounts, m)
		}
	case "mount":
		var m members.Mount
		if m, err = longMount(v, r.here); err == nil {
			r.mounts = append(r.mounts, m)
		}
	case "tmpfs":
		inside, _, _ := strings.Cut(v.Text, ":")
		r.mounts = append(r.mounts, members.Mount{Inside: members.Word{Text: inside, At: v.At}, Volume: "tmpfs"})
	case "volumes-from":
		err = v.At.Errorf("the mounts are those of another container, %s", v.Text)
	case "env":
		r.env, err = r.variable(r.env, v)
	case "env-file":
		err = r.envFile(v)
	case "workdir":
		r.dir = v
	case "user":
		r.user = v
	case "hostname":
		r.hostname = v
	case "net", "network":
		r.hostNet = v.Text == "host"
	case "entrypoint":
		r.noEntry, r.entrypoint = true, nil
		if v.Text != "" {
			r.entrypoint = []members.Word{v}
		}
	case "rootfs", "secret":
		err = v.At.Errorf("--%s is not understood", name)
	default:
		return false, nil
	}
	return true, err
}

// variable is NAME=value, or NAME for the value that the caller has.
func (r *runFlags) variable(env []members.Variable, w members.Word) ([]members.Variable, error) {
	name, value, ok := strings.Cut(w.Text, "=")
	if ok {
		return set(env, members.Variable{Name: name, Value: members.Word{Text: value, At: w.At}}), nil
	}
	for _, v := range r.caller {
		if v.Name == name {
			return set(env, v), nil
		}
	}
	if strings.HasPrefix(name, "ETCD_") {
		return nil, w.At.Errorf("the value of %s is that of whoever runs the line", name)
	}
	return env, nil
}

// envFile reads docker's own format: no quotes, no expansion.
func (r *runFlags) envFile(w members.Word) error {
	name := w.Text
	if !path.IsAbs(name) {
		if !path.IsAbs(r.here) {
			return w.At.Errorf("%s is relative to a folder that is not known", name)
		}
		name = path.Join(r.here, name)
	}
	raw, err := readFile(r.o, name, w.At)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		at := members.Position{File: name, Line: i + 1}
		if r.files, err = r.variable(r.files, members.Word{Text: line, At: at}); err != nil {
			return err
		}
	}
	return nil
}

func readFile(o members.ReadOptions, name string, at members.Position) ([]byte, error) {
	if o.ReadFile == nil {
		return nil, at.Errorf("%s is not read", name)
	}
	raw, err := o.ReadFile(name)
	if err != nil {
		return nil, at.Errorf("%v", err)
	}
	return raw, nil
}

// longMount is type=bind,source=…,target=….
func longMount(w members.Word, dir string) (members.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(w.Text)).Read()
	if err != nil {
		return members.Mount{}, w.At.Errorf("--mount %s is not understood: %v", w.Text, err)
	}
	kind, source := "volume", ""
	m := members.Mount{}
	for _, f := range fields {
		key, value, given := strings.Cut(f, "=")
		switch strings.ToLower(key) {
		case "type":
			kind = strings.ToLower(value)
		case "source", "src":
			source = value
		case "target", "dst", "destination":
			m.Inside = members.Word{Text: value, At: w.At}
		case "readonly", "ro":
			m.ReadOnly = !given || value == "true" || value == "1"
		case "volume-subpath", "volume-opt", "subpath", "image-subpath":
			return m, w.At.Errorf("--mount with %s is not understood", key)
		}
	}
	return typed(m, kind, members.Word{Text: source, At: w.At}, dir)
}

// typed completes a mount of which the type is given.
func typed(m members.Mount, kind string, source members.Word, dir string) (members.Mount, error) {
	if !path.IsAbs(m.Inside.Text) {
		return m, source.At.Errorf("a mount without an absolute target is not understood")
	}
	var err error
	switch kind {
	case "bind":
		var volume string
		if m.Host, volume, err = hostSide(source, dir); err == nil && volume != "" {
			m.Host, _, err = hostSide(members.Word{Text: "./" + volume, At: source.At}, dir)
		}
	case "volume":
		m.Volume = source.Text
	case "tmpfs":
		m.Volume = "tmpfs"
	default:
		err = source.At.Errorf("a mount of the type %q is not understood", kind)
	}
	return m, err
}
