package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// storedFlags are the flags of files out of snapshots.
var storedFlags = []string{"from-snapshot", "files-of"}

// fromStored takes the files that start etcd out of the snapshot that ref names, or out of those of
// --files-of, and returns the id of the first: a later "latest" may be another one, and the data must
// be that of the same snapshot.
func (o *fromFlags) fromStored(
	cmd *cobra.Command, a *app, in *repoFlags, ref string, allow choice.Allow, ids codec.Identities,
) (string, error) {
	ctx := cmd.Context()
	repo, err := in.openToRead(ctx, a)
	if err != nil {
		return "", err
	}
	if ref, err = in.refer(ctx, repo, ref); err != nil {
		return "", in.explain(cmd, repo, err)
	}
	of, item, err := choice.ChooseAnywhere(ctx, repo, in.cluster, ref, allow, time.Now())
	if err != nil {
		return "", in.explain(cmd, repo, err)
	}
	in.cluster, in.timeline = of.Name(), ""
	var items []repository.Item
	if o.snapshot {
		items = append(items, item)
	}
	for _, ref := range o.filesOf { // what their data is worth does not matter
		other, err := choice.FindIn(ctx, of, ref)
		if err != nil {
			return "", fmt.Errorf("--files-of: %w", in.explain(cmd, repo, err))
		}
		items = append(items, other)
	}
	for _, i := range items {
		if err := o.store(cmd, of, i, ids); err != nil {
			return "", err
		}
	}
	return string(item.ID), nil
}

// store reads the files of one snapshot.
func (o *fromFlags) store(cmd *cobra.Command, in *repository.Cluster, i repository.Item, ids codec.Identities) error {
	ctx := cmd.Context()
	m, err := in.Manifest(ctx, i)
	if err != nil {
		return err
	}
	if !startsEtcd(m) {
		return withHints(&backup.RefusedError{Reason: fmt.Sprintf("snapshot %s holds no file that starts etcd", m.ID)},
			append(filesElsewhere(ctx, in, nil),
				otherwise(cmd))...)
	}
	content, err := companion.Read(ctx, in.Data(), m, ids)
	if err != nil {
		return fmt.Errorf("companion files of snapshot %s: %w", m.ID, err)
	}
	o.stored = append(o.stored, &storedFiles{content, cmd, in, m, nil})
	return nil
}

// otherwise says how a command is told without the files what they would say.
func otherwise(cmd *cobra.Command) string {
	if cmd.Flags().Lookup("name") == nil { // it is for all hosts
		return "name copies of the files of all hosts: --from FILE; or the places of the members: --data-dir NAME=DIR"
	}
	return "name the files of this host: --from FILE; or the member and its place: --name and --data-dir"
}

func startsEtcd(m *backup.Manifest) bool { return m.FilesKey() != "" && len(m.Companions.From) > 0 }

// storedFiles are the files that start etcd, out of a snapshot.
type storedFiles struct {
	*companion.Content
	cmd *cobra.Command
	in  *repository.Cluster
	m   *backup.Manifest
	// members are those that the files describe.
	members []string
}

// read reads the files as their host would.
func (s *storedFiles) read(o from.Options) (*from.Found, error) {
	o.Source = &from.Source{Hostname: s.About.Host, ReadFile: s.ReadFile, ReadDir: s.ReadDir}
	found, err := from.Read(s.m.Companions.From, o)
	if err == nil || errors.As(err, new(*backup.HintError)) {
		return found, err
	}
	return nil, withHints(err, append(filesElsewhere(s.cmd.Context(), s.in, []string{s.About.Host}),
		"look at the files, and give those that are right by --from: "+s.putBack())...)
}

func (s *storedFiles) String() string {
	return fmt.Sprintf("host %s at %s, out of snapshot %s", s.About.Host, s.About.At.Format(time.RFC3339), s.m.ID)
}

// putBack returns the command that extracts the files.
func (s *storedFiles) putBack() string {
	words, idle := []string{"backupd", "companions", string(s.m.ID), "--cluster=" + s.in.Name()}, idleFlags(s.cmd)
	for _, name := range append(pathFlags(), "config", "identity") {
		f := s.cmd.Flags().Lookup(name)
		if f == nil || !f.Changed || f.Annotations[fromEnv] != nil || slices.Contains(idle, name) {
			continue
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			words = append(words, "--"+name+"="+v)
		}
	}
	return shellquote.Join(words...) + " --output-dir=DIR"
}

// putBackAnywhere is putBack for a plan: who may read the repository and by which keys, and how this
// host reaches it, is not said, and a variable of this host is.
func (s *storedFiles) putBackAnywhere() string {
	words, idle := []string{"backupd", "companions", string(s.m.ID), "--cluster=" + s.in.Name()}, idleFlags(s.cmd)
	for _, name := range whereFlags {
		f := s.cmd.Flags().Lookup(name)
		if f != nil && f.Changed && !slices.Contains(idle, name) {
			words = append(words, "--"+name+"="+secret.Show(f.Value.String()))
		}
	}
	return shellquote.Join(words...) + " --output-dir=DIR"
}

// whereFlags say where a repository is.
var whereFlags = []string{"repo", "s3-endpoint", "s3-region", "s3-path-style"}

// searched is how many manifests are read to find files of other hosts.
const searched = 1000

// filesElsewhere says for each host but those that are known which is the newest snapshot that holds
// files of it that start etcd.
func filesElsewhere(ctx context.Context, in *repository.Cluster, known []string) (out []string) {
	for host, m := range newestFiles(ctx, in) {
		if !slices.Contains(known, host) {
			out = append(out, fmt.Sprintf("files of host %s at %s are in snapshot %s: --files-of=%s", host,
				m.Companions.At.Format(time.RFC3339), m.ID, m.ID))
		}
	}
	slices.Sort(out)
	return out
}

// newestFiles returns for each host the newest snapshot with files of it that start etcd. It is a
// help: there is none where it fails.
func newestFiles(ctx context.Context, in *repository.Cluster) map[string]*backup.Manifest {
	items, err := repository.Names(ctx, in, "")
	if err != nil {
		return nil
	}
	slices.Reverse(items)
	newest := map[string]*backup.Manifest{}
	for r := range in.Manifests(ctx, items[:min(len(items), searched)]) {
		m := r.Manifest
		if r.Err != nil || !startsEtcd(m) {
			continue
		}
		if before := newest[m.Companions.Host]; before == nil || m.Companions.At.After(before.Companions.At) {
			newest[m.Companions.Host] = m
		}
	}
	return newest
}

// checkHost refuses the files of another host, if nobody said that this one is to be that member and
// the repository has files of this one: the same command on every host would restore one member on all.
func (o *fromFlags) checkHost(cmd *cobra.Command, args []string, found *from.Found) error {
	if !o.snapshot || found.Host == nil {
		return nil
	}
	s := o.stored[0]
	here, err := os.Hostname()
	if err != nil || here == s.About.Host {
		return err
	}
	own := newestFiles(cmd.Context(), s.in)[here]
	if own == nil {
		return nil
	}
	name, at := found.Host.Name.Text, own.Companions.At.Format(time.RFC3339)
	if len(args) > 0 {
		args = []string{args[0], "--cluster=" + s.in.Name()}
	}
	return withHints(&backup.RefusedError{Reason: fmt.Sprintf(
		"the files are those of %s, with member %s, and this host is %s, whose own files are in another snapshot",
		s, name, here)},
		fmt.Sprintf("to restore the member that this host is by its files at %s: %s", at,
			commandWith(cmd, []string{"from-snapshot"}, append(slices.Clone(args), "--files-of="+string(own.ID))...)),
		fmt.Sprintf("to make this host member %s: %s", name, commandWith(cmd, nil, append(args, "--name="+name)...)))
}

// maxCompared is how many files a note names.
const maxCompared = 5

// compare says whose files they are and how those of this host differ, for the server starts by
// these: a unit that is not here, or is another one, starts no restored member.
func (o *fromFlags) compare(site *restore.Site, found *from.Found) {
	if found == nil {
		return
	}
	for _, s := range o.stored {
		s.compare(site, found)
	}
}

func (s *storedFiles) compare(site *restore.Site, found *from.Found) {
	site.Notes = append(site.Notes, "the files that start etcd are those of "+s.String())
	if here, err := os.Hostname(); err == nil && here != s.About.Host {
		site.Notes = append(site.Notes, fmt.Sprintf("this host is %s, and the files are those of %s: "+
			"names, folders and addresses in them are the ones of that host", here, s.About.Host))
	}
	absent, differ := s.Here()
	for i, files := range [][]string{absent, differ} {
		if len(files) > 0 {
			site.Notes = append(site.Notes, fmt.Sprintf("companion files are %s: %s: put back what is needed before the "+
				"start: %s", []string{"not here", "other ones here"}[i], someOf(files), s.putBack()))
		}
	}
	come := s.Come()
	if len(come) > 0 {
		site.Notes = append(site.Notes, fmt.Sprintf("etcd is started with settings that host %s had not: move these files "+
			"away before the start, or say by flags what they change: %s", s.About.Host, someOf(come)))
	}
	if h := found.Host; h != nil && (len(come) > 0 || slices.ContainsFunc(s.m.Companions.From, func(f string) bool {
		return slices.Contains(absent, f) || slices.Contains(differ, f)
	})) {
		site.Start = ""
	}
}

// someOf names the first of many files.
func someOf(files []string) string {
	named := strings.Join(files[:min(len(files), maxCompared)], ", ")
	if more := len(files) - maxCompared; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return named
}

// readStored reads what the files of snapshots say. Those of several snapshots are of other members.
func (o *fromFlags) readStored(options from.Options) (*from.Found, error) {
	all := &from.Found{}
	of := map[string]*storedFiles{}
	for _, s := range o.stored {
		found, err := s.read(options)
		if err != nil {
			return nil, err
		}
		for i, l := range found.All {
			name := l.Name.Text
			found.All[i].Place.Stored = string(s.m.ID)
			s.members = append(s.members, name)
			if other := of[name]; other != nil {
				return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
					"member %s is described by the files of %s, and by those of %s", name, other, s)},
					"name the snapshot of the host that it is on now, and leave the other one out")
			}
			of[name] = s
		}
		if len(o.stored) == 1 {
			return found, nil
		}
		for i := range found.Claims { // each host has its files at the same paths
			at := &found.Claims[i].At
			at.File = string(s.m.ID) + ":" + at.File
		}
		all.All, all.Claims = append(all.All, found.All...), append(all.Claims, found.Claims...)
	}
	return all, nil
}

// notesFor are those of a plan: whose files were read, and of which members none were. Where a
// member is, a flag may have said.
func (o *fromFlags) notesFor(ctx context.Context, p *restore.Plan, found *from.Found, places []restore.Place) []string {
	if len(o.stored) == 0 {
		return nil
	}
	var out, hosts, unknown []string
	for _, s := range o.stored {
		out = append(out, fmt.Sprintf("files that start etcd are those of %s, for %s: before the start put back what is not "+
			"on that host, or is another file there: %s", s, strings.Join(s.members, ", "), s.putBackAnywhere()))
		hosts = append(hosts, s.About.Host)
	}
	for _, m := range p.Members {
		if !slices.ContainsFunc(found.All, func(l from.Located) bool { return l.Name.Text == m.Name }) &&
			!slices.ContainsFunc(places, func(at restore.Place) bool { return at.Member == m.Name }) {
			unknown = append(unknown, m.Name)
		}
	}
	if len(unknown) == 0 {
		return out
	}
	note := fmt.Sprintf("no file of these snapshots says where the data of %s is: give --data-dir NAME=DIR, or a "+
		"snapshot with the files of the host", strings.Join(unknown, ", "))
	for _, text := range filesElsewhere(ctx, o.stored[0].in, hosts) {
		note += "; " + text
	}
	return append(out, note)
}
