package main

import (
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
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// fromStored takes the files that start etcd out of the snapshot that ref names, and returns its
// id: a later "latest" may be another one, and the data must be that of the same snapshot.
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
	m, err := of.Manifest(ctx, item)
	if err != nil {
		return "", err
	}
	if m.FilesKey() == "" || len(m.Companions.From) == 0 {
		return "", backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"snapshot %s holds no file that starts etcd", m.ID)},
			"name the files of this host: --from FILE; or the member and its place: --name and --data-dir")
	}
	content, err := companion.Read(ctx, of.Data(), m, ids)
	if err != nil {
		return "", fmt.Errorf("companion files of snapshot %s: %w", m.ID, err)
	}
	o.files, o.stored = m.Companions.From, &storedFiles{content, func() string {
		return commandAt(cmd, of.Name(), m.ID)
	}}
	o.source = &from.Source{Hostname: m.Companions.Host, ReadFile: content.ReadFile, ReadDir: content.ReadDir}
	in.cluster, in.timeline = of.Name(), ""
	return string(m.ID), nil
}

// storedFiles are the files that start etcd, out of a snapshot.
type storedFiles struct {
	*companion.Content
	putBack func() string // the command that extracts them
}

// commandAt returns the command that extracts the companion files.
func commandAt(cmd *cobra.Command, cluster string, id backup.SnapshotID) string {
	words := []string{"backupd", "companions", string(id), "--cluster=" + cluster}
	for _, name := range []string{"repo", "config", "identity"} {
		f := cmd.Flags().Lookup(name)
		if f == nil || !f.Changed || f.Annotations[fromEnv] != nil {
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

// maxCompared is how many files a note names.
const maxCompared = 5

// compare says whose files they are and how those of this host differ, for the server starts by
// these: a unit that is not here, or is another one, starts no restored member.
func (o *fromFlags) compare(site *restore.Site, found *from.Found) {
	if o.stored == nil || found == nil {
		return
	}
	about := o.stored.About
	site.Notes = append(site.Notes, fmt.Sprintf(
		"the files that start etcd are those of host %s at %s, out of the snapshot",
		about.Host, about.At.Format(time.RFC3339)))
	if here, err := os.Hostname(); err == nil && here != about.Host {
		site.Notes = append(site.Notes, fmt.Sprintf("this host is %s, and the files are those of %s: "+
			"names, folders and addresses in them are the ones of that host", here, about.Host))
	}
	absent, differ := o.stored.Here()
	for i, files := range [][]string{absent, differ} {
		if len(files) == 0 {
			continue
		}
		what := []string{"not here", "other ones here"}[i]
		named := strings.Join(files[:min(len(files), maxCompared)], ", ")
		if more := len(files) - maxCompared; more > 0 {
			named += fmt.Sprintf(" and %d more", more)
		}
		site.Notes = append(site.Notes, fmt.Sprintf(
			"companion files are %s: %s: put back what is needed before the start: %s",
			what, named, o.stored.putBack()))
	}
	if h := found.Host; h != nil && slices.ContainsFunc(o.files, func(f string) bool {
		return slices.Contains(absent, f) || slices.Contains(differ, f)
	}) {
		site.Start = ""
	}
}

// explain adds the way by hand to the error of files that the snapshot has.
func (o *fromFlags) explain(err error) error {
	if err == nil || o.source == nil || errors.As(err, new(*backup.HintError)) {
		return err
	}
	return backup.WithHint(err, "look at the files, and give those that are right by --from: %s", o.stored.putBack())
}
