package unit

import (
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// specifiers are what %-signs stand for.
type specifiers struct {
	name     string // of the unit; empty if the file's name is not that of one
	hostname string
	ofUser   bool // a unit of a user's manager
}

func specifiersOf(path, hostname string) specifiers {
	s := specifiers{hostname: hostname, ofUser: strings.Contains(path, "/systemd/user")}
	if name := filepath.Base(path); strings.HasSuffix(name, ".service") {
		s.name = name
	}
	return s
}

// prefix and instance are the parts of NAME@INSTANCE.service.
func (s specifiers) parts() (prefix, instance string, template bool) {
	prefix, instance, template = strings.Cut(strings.TrimSuffix(s.name, ".service"), "@")
	return prefix, instance, template
}

// expand replaces the specifiers of a value.
func (s specifiers) expand(t text) (string, error) {
	var out strings.Builder
	for i := 0; i < len(t.s); i++ {
		if t.s[i] != '%' {
			out.WriteByte(t.s[i])
			continue
		}
		if i++; i == len(t.s) {
			return "", t.atByte(i - 1).Errorf("a single %% at the end: write %%%%")
		}
		value, problem := s.value(t.s[i])
		if problem != "" {
			return "", t.atByte(i).Errorf("%%%c cannot be known from here: %s", t.s[i], problem)
		}
		out.WriteString(value)
	}
	return out.String(), nil
}

// value is what one specifier stands for.
func (s specifiers) value(c byte) (value, problem string) {
	prefix, instance, template := s.parts()
	switch c {
	case '%':
		return "%", ""
	case 'H', 'l':
		if s.hostname == "" {
			return "", "the name of its host is not known: give the unit on that host"
		}
		short, _, _ := strings.Cut(s.hostname, ".")
		return map[byte]string{'H': s.hostname, 'l': short}[c], ""
	case 'n', 'N', 'p', 'P', 'i', 'I', 'j':
		return s.ofName(c, prefix, instance, template)
	}
	if root, ok := roots[c]; ok && !s.ofUser {
		return root, ""
	}
	return "", "it depends on the host"
}

// roots are the specifiers whose value is the same in each system.
var roots = map[byte]string{
	'h': "/root", 'u': "root", 'U': "0", 'g': "root", 'G': "0", 'E': "/etc", 'S': "/var/lib", 'C': "/var/cache",
	'L': "/var/log", 't': "/run",
}

// ofName is a specifier made of the unit's name.
func (s specifiers) ofName(c byte, prefix, instance string, template bool) (value, problem string) {
	switch {
	case s.name == "":
		return "", "the file does not have the name of a unit"
	case template && instance == "":
		return "", "the unit is a template, and its instance is not in the file's name"
	case strings.ContainsRune("PI", rune(c)) && strings.ContainsAny(prefix+instance, `\-`):
		return "", "the unit's name is escaped"
	}
	switch c {
	case 'n':
		return s.name, ""
	case 'N':
		return strings.TrimSuffix(s.name, ".service"), ""
	case 'p', 'P':
		return prefix, ""
	case 'j':
		return prefix[strings.LastIndexByte(prefix, '-')+1:], ""
	}
	return instance, ""
}

// paths are the settings that move the file system of a service.
type paths struct {
	extra []members.Mount
	moved bool
}

// assign takes a setting that gives a service another view of the file system.
func (p *paths) assign(a assignment, s *specifiers) error {
	switch a.name {
	case "RootDirectory", "RootImage", "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "PrivateTmp":
	case "RootDirectoryStartOnly", "RootHash", "MountImages", "ExtensionImages", "ExtensionDirectories":
		return a.at.Errorf("%s= is not understood here: give etcd's places by hand", a.name)
	default:
		return nil
	}
	value, err := s.expand(a.value)
	if err != nil {
		return err
	}
	if value == "" {
		return p.reset(a)
	}
	return p.add(a, value)
}

// reset forgets mounts of one setting. What else was there stays, and that is unlikely
// enough to be refused.
func (p *paths) reset(a assignment) error {
	if len(p.extra) > 0 {
		return a.at.Errorf("an empty %s= after other mounts is not understood here", a.name)
	}
	return nil
}

func (p *paths) add(a assignment, value string) error {
	word := func(s string) members.Word { return members.Word{Text: s, At: a.at} }
	if a.name == "PrivateTmp" {
		if value != "no" && value != "false" && value != "0" && value != "off" {
			for _, dir := range []string{"/tmp", "/var/tmp"} {
				p.extra = append(p.extra, members.Mount{Inside: word(dir), Volume: "systemd's private " + dir})
			}
		}
		return nil
	}
	p.moved = true
	switch a.name {
	case "RootDirectory":
		p.extra = append(p.extra, members.Mount{Inside: word("/"), Host: word(value)})
		return nil
	case "RootImage":
		p.extra = append(p.extra, members.Mount{Inside: word("/"), Volume: value})
		return nil
	}
	for field := range strings.FieldsSeq(value) {
		if strings.ContainsAny(field, `"'\`) {
			return a.at.Errorf("%s=%s is not understood here", a.name, value)
		}
		parts := strings.Split(strings.TrimPrefix(field, "-"), ":")
		m := members.Mount{Inside: word(parts[0]), Host: word(parts[0]), ReadOnly: a.name == "BindReadOnlyPaths"}
		switch {
		case a.name == "TemporaryFileSystem":
			m.Host, m.Volume = members.Word{}, "a file system in memory"
		case len(parts) > 1 && parts[1] != "":
			m.Inside = word(parts[1])
		}
		p.extra = append(p.extra, m)
	}
	return nil
}

// mounts says where the paths of the service are: on the host itself, but for some.
func (p *paths) mounts() (contained bool, out []members.Mount) {
	if len(p.extra) == 0 {
		return false, nil
	}
	out = p.extra
	for _, m := range out {
		if m.Inside.Text == "/" {
			return true, out
		}
	}
	root := members.Word{Text: "/", At: out[0].Inside.At}
	return true, append([]members.Mount{{Inside: root, Host: root}}, out...)
}
