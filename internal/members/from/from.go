// Package from reads from the operator's own files which member a host has, where its data
// is, and who else is in the cluster. It knows the kinds of files, and guesses nothing: a
// file that could be read in two ways is refused.
package from

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/container"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/members/srv"
)

// Found is what files say.
type Found struct {
	// Host is the member that was asked for. It is nil where all members are wanted.
	Host *settings.Host
	// All are all members that the files describe, where all are wanted.
	All []Located
	// Claims are the members of the cluster as each file has them.
	Claims []Claim
	// Files are those that were named, by absolute path.
	Files []string

	of map[string][]string // the files that describe a member, by its name
}

// FilesOf returns the files that describe a member on its host: those that name it or, if all
// are of one other member, these, which may be at the same paths there. Else there are none.
func (f *Found) FilesOf(member string) []string {
	if of := f.of[member]; len(of) > 0 {
		return of
	}
	if len(f.of) > 1 {
		return nil
	}
	return f.Files
}

// Describes reports whether a file names that member.
func (f *Found) Describes(member string) bool { return len(f.of[member]) > 0 }

// Claim is what one line says of the members.
type Claim struct {
	At      members.Position
	Members []backup.Member
	// Whole is true if these are all members, and false if they are some.
	Whole bool
	// Unnamed is true if only the URLs are those of the members: DNS knows no names.
	Unnamed bool
}

// Options say which member is wanted.
type Options struct {
	// Name is that of the member; empty means that the files name only one.
	Name string
	// All wants all members, and who is in the cluster. Places on other hosts are only read.
	All bool
	// Pod is true if this process runs in a pod: volumes that are mounted here where the pod
	// of the member has them are its volumes.
	Pod bool
	// DataDir and WALDir, if set, are the places, whatever the files say. They are those of
	// this host.
	DataDir, WALDir string
	// Source has the files, if they are not those of this host.
	Source *Source
}

// Source has the files of a host.
type Source struct {
	Hostname string
	ReadFile func(path string) ([]byte, error)
	ReadDir  func(path string) ([]fs.DirEntry, error)
}

// Read reads files. An error of their content is a [*members.FileError]; where a choice
// is missing it is a [*backup.RefusedError].
func Read(files []string, o Options) (*Found, error) {
	var follow func(path string) (string, error) // links of this host mean nothing in a snapshot
	if o.Source == nil {
		hostname, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name of this host: %w", err)
		}
		o.Source, follow = &Source{hostname, readFile, os.ReadDir}, filepath.EvalSymlinks
	}
	f := &Found{of: map[string][]string{}}
	read := members.ReadOptions{
		Name: o.Name, Hostname: o.Source.Hostname, ReadFile: o.Source.ReadFile, ReadDir: o.Source.ReadDir, Follow: follow,
		Copies: true,
	}
	if o.Pod {
		read.Name = cmp.Or(o.Name, o.Source.Hostname)
	}
	read.Container = func(words []members.Word, env []members.Variable, dir string, o members.ReadOptions) (
		*members.Start, error,
	) {
		return container.Run(words, env, dir, o, nil)
	}
	var texts []members.Word
	for _, file := range files {
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		f.Files = append(f.Files, abs)
		raw, err := read.ReadFile(abs)
		if errors.Is(err, disk.ErrUnfit) {
			return nil, members.Position{File: abs}.Errorf("%v", err)
		}
		if err != nil {
			return nil, fmt.Errorf("read the file of --from: %w", err)
		}
		texts = append(texts, members.Word{Text: string(raw), At: members.Position{File: abs}})
	}
	texts, read.Dockerfile = takeDockerfile(texts)
	var all []members.Start
	var origin []string
	for _, text := range texts {
		starts, err := parse(text.At.File, []byte(text.Text), read)
		if err != nil {
			return nil, err
		}
		all = append(all, starts...)
		origin = append(origin, slices.Repeat([]string{text.At.File}, len(starts))...)
	}
	if o.Pod {
		if err := mountedHere(all); err != nil {
			return nil, err
		}
	}
	hosts, err := f.resolve(all, read, o)
	if err != nil {
		return nil, err
	}
	for i, h := range hosts {
		name := h.Name.Text
		if !slices.Contains(f.of[name], origin[i]) {
			f.of[name] = append(f.of[name], origin[i])
		}
		if d := read.Dockerfile.At.File; d != "" && !slices.Contains(f.of[name], d) {
			f.of[name] = append(f.of[name], d)
		}
	}
	f.claim(hosts)
	return f, nil
}

// readFile reads a file of the operator, or one that it names.
func readFile(path string) ([]byte, error) {
	raw, err := disk.ReadSmall(path, members.MaxFileBytes)
	if err == nil && bytes.Count(raw, []byte("\n")) > members.MaxFileLines {
		return nil, fmt.Errorf("%s has more than %d lines (%w)", path, members.MaxFileLines, disk.ErrUnfit)
	}
	return raw, err
}

// takeDockerfile takes the Dockerfile from among other files: it says what the image of their
// containers starts.
func takeDockerfile(texts []members.Word) (others []members.Word, dockerfile members.Word) {
	var found []members.Word
	for _, text := range texts {
		if container.IsDockerfile([]byte(text.Text)) {
			found = append(found, text)
		} else {
			others = append(others, text)
		}
	}
	if len(found) != 1 || len(others) == 0 {
		return texts, dockerfile
	}
	return others, found[0]
}

// mountedHere gives the volumes of pods a place, if this pod has one at the same path.
func mountedHere(all []members.Start) error {
	mounts, err := disk.Mounts()
	if err != nil {
		return err
	}
	for i := range all {
		s := &all[i]
		for j := range s.Mounts {
			m := &s.Mounts[j]
			place, err := filepath.EvalSymlinks(m.Inside.Text)
			if err != nil || s.Means != members.StatefulSet || m.Host.Text != "" || m.Volume == "" ||
				!slices.ContainsFunc(mounts, func(h disk.Mount) bool { return h.Point == place }) {
				continue
			}
			m.Host = m.Inside
			s.Notes = append(s.Notes, members.Note{At: m.Inside.At, Text: fmt.Sprintf(
				"what is mounted at %s in this pod is taken for the volume %s of %s", m.Inside.Text, m.Volume, s.Unit)})
		}
	}
	return nil
}

// ownName returns the name of the member whose pod this is, if the files describe it.
func ownName(hosts []*settings.Host, hostname string) string {
	for _, h := range hosts {
		if h.Means == members.StatefulSet && h.Unit == hostname {
			return h.Name.Text
		}
	}
	return ""
}

// nowhere stands for a place while only names are asked for.
const nowhere = "/nowhere"

// resolve finds the member that is wanted among all starts, and what each says of itself.
func (f *Found) resolve(all []members.Start, read members.ReadOptions, o Options) ([]*settings.Host, error) {
	var hosts []*settings.Host
	var names []string
	for _, s := range all {
		// The place of a member elsewhere need not be a place of this host.
		h, err := settings.Resolve(s, settings.Options{ReadOptions: read, DataDir: nowhere, WALDir: nowhere})
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, h)
		names = append(names, h.Name.Text)
	}
	if o.All {
		return hosts, f.locate(all, hosts, read)
	}
	name := o.Name
	if name == "" && o.Pod {
		name = ownName(hosts, read.Hostname)
	}
	i, err := pick(hosts, names, name)
	if err != nil {
		return nil, err
	}
	f.Host, err = settings.Resolve(all[i], settings.Options{ReadOptions: read, DataDir: o.DataDir, WALDir: o.WALDir})
	if err != nil {
		return nil, err
	}
	if err := checkHere(f.Host, read.Hostname, o); err != nil {
		return nil, err
	}
	return hosts, checkNeeds(f.Host, o)
}

// pick returns the place of the member in the list.
func pick(hosts []*settings.Host, names []string, name string) (int, error) {
	distinct := slices.Compact(slices.Sorted(slices.Values(names)))
	if name == "" && len(distinct) > 1 {
		return 0, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the files describe the members %s, and nobody says which of them is on this host", strings.Join(distinct, ", "))},
			"run the same command with --name=%s", strings.Join(distinct, ", or with --name="))
	}
	name = cmp.Or(name, names[0])
	var at []int
	for i, n := range names {
		if n == name {
			at = append(at, i)
		}
	}
	switch len(at) {
	case 0:
		h := hosts[0]
		return 0, h.Name.At.Errorf("the member here is %s, and --name asks for %s: this is the file of another host",
			strings.Join(distinct, ", "), name)
	case 1:
		return at[0], nil
	}
	if i, ok := starter(hosts, at); ok {
		return i, nil
	}
	a, b := hosts[at[0]], hosts[at[1]]
	return 0, b.Of.Errorf("member %s is described here and in %s: name one of the two files only", name, a.Of)
}

// starter returns the one of several descriptions of a member that says how it is started, if
// the others only have settings of it, and the same places.
func starter(hosts []*settings.Host, at []int) (int, bool) {
	starts := slices.DeleteFunc(slices.Clone(at), func(i int) bool { return hosts[i].Means == members.ByHand })
	if len(starts) != 1 {
		return 0, false
	}
	for _, i := range at {
		for _, name := range []string{"data-dir", "wal-dir"} {
			a, _ := hosts[starts[0]].Setting(name)
			if b, _ := hosts[i].Setting(name); a.Value != b.Value {
				return 0, false
			}
		}
	}
	return starts[0], true
}

// claim collects what the files say of the members.
func (f *Found) claim(hosts []*settings.Host) {
	for _, h := range hosts {
		own := backup.Member{Name: h.Name.Text, PeerURLs: h.PeerURLs}
		switch {
		case h.Above: // the file has it not
			continue
		case h.Replicas > 0: // the number of pods counts; what their script says was true once
			f.addTo(h, own)
			continue
		case h.InitialCluster != nil:
			f.Claims = append(f.Claims, Claim{At: h.InitialClusterAt, Members: h.InitialCluster, Whole: true})
		}
		// All hosts may have the same list: what each advertises tells them apart.
		if h.PeerURLsAt.File != "" {
			f.Claims = append(f.Claims, Claim{At: h.PeerURLsAt, Members: []backup.Member{own}})
		}
	}
}

// addTo adds one pod to the claim of its set.
func (f *Found) addTo(h *settings.Host, own backup.Member) {
	i := slices.IndexFunc(f.Claims, func(c Claim) bool { return c.At == h.Of })
	if i < 0 {
		f.Claims = append(f.Claims, Claim{At: h.Of, Members: []backup.Member{own}, Whole: true})
		return
	}
	f.Claims[i].Members = append(f.Claims[i].Members, own)
}

// Discover asks DNS for the members, if the host that was asked for finds them by SRV records.
func (f *Found) Discover() error {
	if f.Host == nil {
		return nil
	}
	s, ok := f.Host.Setting("discovery-srv")
	if !ok || s.Value == "" {
		return nil
	}
	service, _ := f.Host.Setting("discovery-srv-name")
	cluster, err := srv.Discovery{
		Domain: members.Word{Text: s.Value, At: s.At}, Service: service.Value,
		Name: f.Host.Name.Text, PeerURLs: f.Host.PeerURLs,
	}.Lookup()
	if err != nil {
		return backup.WithHint(err, "if DNS is down or out of date: --members snapshot takes the members of the snapshot")
	}
	f.Claims = append(f.Claims, Claim{At: s.At, Members: cluster.Members, Whole: true, Unnamed: true})
	return nil
}

// Members unites all claims. It returns a [*members.FileError] if two of them contradict each
// other, and nil if no file says who all the members are.
func (f *Found) Members() ([]backup.Member, error) {
	var out []backup.Member
	from := map[string]members.Position{}
	whole := false
	for _, c := range f.Claims {
		if c.Unnamed {
			return nil, c.At.Errorf("DNS knows addresses and no names: give --initial-cluster")
		}
		whole = whole || c.Whole
		for _, m := range c.Members {
			i := slices.IndexFunc(out, func(o backup.Member) bool { return o.Name == m.Name })
			if i < 0 {
				out, from[m.Name] = append(out, m), c.At
				continue
			}
			if !members.SameURLs(out[i].PeerURLs, m.PeerURLs) {
				return nil, c.At.Errorf("member %s has the peer URLs %s here, and %s in %s", m.Name,
					strings.Join(m.PeerURLs, ","), strings.Join(out[i].PeerURLs, ","), from[m.Name])
			}
		}
	}
	if !whole {
		return nil, nil
	}
	slices.SortFunc(out, func(a, b backup.Member) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Compare says in which claims the files differ from these members, and is empty if they
// agree.
func (f *Found) Compare(recorded []backup.Member) []string {
	var out []string
	for _, c := range f.Claims {
		if !c.agrees(recorded) {
			out = append(out, fmt.Sprintf("%s has %s", c.At, members.Format(c.Members)))
		}
	}
	return slices.Compact(out)
}

func (c Claim) agrees(recorded []backup.Member) bool {
	if c.Whole && len(c.Members) != len(recorded) {
		return false
	}
	for _, m := range c.Members {
		if !slices.ContainsFunc(recorded, func(r backup.Member) bool {
			return (c.Unnamed || r.Name == m.Name) && members.SameURLs(r.PeerURLs, m.PeerURLs)
		}) {
			return false
		}
	}
	return true
}
