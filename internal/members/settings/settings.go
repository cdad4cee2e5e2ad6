// Package settings turns the start of an etcd server, as files describe it, into the settings
// that etcd would take from it, by etcd's own precedence, and into places of this host.
package settings

import (
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// Setting is one setting of etcd that is in force.
type Setting struct {
	Name    string // the flag without dashes: data-dir
	Value   string
	Spelled string // as it is written: --data-dir, ETCD_DATA_DIR, data-dir:
	At      members.Position
}

// Host is one member on one host, as files say it.
type Host struct {
	members.Start
	// Settings are all that are in force and not a default.
	Settings []Setting
	// Name is etcd's name of the member.
	Name members.Word
	// DataDir and WALDir are absolute paths of this host. WALDir is empty if the WAL is in
	// the data directory.
	DataDir, WALDir members.Word
	// PeerURLs are those that the member advertises. They are nil if etcd would make
	// them of the host's address. PeerURLsAt has no file if they are etcd's default.
	PeerURLs   []string
	PeerURLsAt members.Position
	// InitialCluster is nil if it is not given.
	InitialCluster   []backup.Member
	InitialClusterAt members.Position
	// Token is empty if it is not given.
	Token members.Word
}

// Options are what a resolution depends on besides the start.
type Options struct {
	members.ReadOptions
	// DataDir and WALDir are absolute places that the operator gives. The files' own
	// are not looked at then.
	DataDir, WALDir string
}

// Setting returns a setting that is in force, by etcd's name of the flag without dashes.
func (h *Host) Setting(name string) (Setting, bool) {
	for _, s := range h.Settings {
		if s.Name == name {
			return s, true
		}
	}
	return Setting{}, false
}

// Resolve returns the member that s starts. Its errors are [*members.FileError]: a flag that
// etcd does not know, a value that etcd would not take, a place that is not on this host or
// that the files do not say.
func Resolve(s members.Start, o Options) (*Host, error) {
	h := &Host{Start: s}
	h.Notes = append([]members.Note(nil), s.Notes...)
	flags, err := h.flags()
	if err != nil {
		return nil, err
	}
	file, given := fileOf(flags, s.Env)
	if given {
		err = h.fromFile(file, flags, o)
	} else {
		if err = h.fromProcess(flags); err == nil {
			err = checkAbsent(h, o)
		}
	}
	if err != nil {
		return nil, err
	}
	return h.decide(o)
}

func (h *Host) note(at members.Position, text string) {
	h.Notes = append(h.Notes, members.Note{At: at, Text: text})
}

// decide fills the fields from the settings.
func (h *Host) decide(o Options) (*Host, error) {
	for _, step := range []func() error{
		func() error { return checkRole(h) }, h.decideName, func() error { return h.decidePlaces(o) }, h.decidePeers,
		h.decideCluster, func() error { return checkBootstrap(h) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// checkRole refuses what is no member.
func checkRole(h *Host) error {
	if s, ok := h.Setting("proxy"); ok && s.Value != "off" && s.Value != "" {
		return s.At.Errorf("%s %s: a proxy is no member", s.Spelled, s.Value)
	}
	if s, ok := h.Setting("force-new-cluster"); ok && s.Value != "false" {
		return s.At.Errorf("%s makes etcd forget its cluster at every start: take it away first", s.Spelled)
	}
	return nil
}

func (h *Host) decideName() error {
	h.Name = members.Word{Text: "default", At: h.Of}
	if s, ok := h.Setting("name"); ok {
		if s.Value == "" {
			return s.At.Errorf("%s is empty: etcd needs a name", s.Spelled)
		}
		if strings.ContainsAny(s.Value, "=,") {
			return s.At.Errorf("%s %q cannot be written in a list of members", s.Spelled, s.Value)
		}
		h.Name = members.Word{Text: s.Value, At: s.At}
	}
	if s, ok := h.Setting("initial-cluster-token"); ok && s.Value != "" {
		if err := checkText(s); err != nil {
			return err
		}
		h.Token = members.Word{Text: s.Value, At: s.At}
	}
	if s, ok := h.Setting("name"); ok {
		return checkText(s)
	}
	return nil
}

// checkText refuses a value that was plainly meant otherwise than etcd would take it.
func checkText(s Setting) error {
	for _, r := range s.Value {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return s.At.Errorf("%s %q has a character in it that is not text: are these the line ends of Windows?",
				s.Spelled, s.Value)
		}
	}
	if strings.Contains(s.Value, "$") {
		return s.At.Errorf("%s %q: nothing replaces what follows the $", s.Spelled, s.Value)
	}
	return nil
}
