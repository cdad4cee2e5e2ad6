package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

// fromFlags name the operator's own files, and say whom to believe.
type fromFlags struct {
	files    []string
	snapshot bool     // the one that is restored
	filesOf  []string // other snapshots
	members  string
	stored   []*storedFiles // out of snapshots; none: the files are those of this host
}

// given reports whether the operator's files say which member is on this host.
func (o *fromFlags) given() bool { return len(o.files) > 0 || o.inSnapshots() }

// inSnapshots reports whether the files are taken out of snapshots.
func (o *fromFlags) inSnapshots() bool { return o.snapshot || len(o.filesOf) > 0 }

const (
	membersOfSnapshot = "snapshot"
	membersOfFiles    = "files"
)

func (o *fromFlags) register(cmd *cobra.Command) {
	o.registerFiles(cmd)
	cmd.Flags().StringVar(&o.members, "members", "",
		"who is in the new cluster where the snapshot and the files of --from differ: snapshot or files")
	mustRegister(cmd.RegisterFlagCompletionFunc("members",
		cobra.FixedCompletions([]string{membersOfSnapshot, membersOfFiles}, cobra.ShellCompDirectiveNoFileComp)))
}

// registerFiles registers only the files: who is in a cluster that runs it says itself.
func (o *fromFlags) registerFiles(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.files, "from", nil,
		"a file that starts etcd on this host: its name, its folders, its owner are taken from there (may be repeated)")
	mustRegister(cmd.MarkFlagFilename("from"))
}

// registerSnapshot registers what takes the files out of snapshots of a repository.
func (o *fromFlags) registerSnapshot(cmd *cobra.Command, in *repoFlags) {
	cmd.Flags().BoolVar(&o.snapshot, "from-snapshot", false,
		"take the files of --from out of the snapshot: those that --companion-from of 'backup' has stored with it")
	cmd.Flags().StringArrayVar(&o.filesOf, "files-of", nil,
		"as --from-snapshot, but out of this `snapshot` of the same cluster, which holds the files of another host")
	mustRegister(cmd.RegisterFlagCompletionFunc("files-of", completeIDs(in)))
}

func (o *fromFlags) check(t *targetFlags) error {
	switch {
	case o.inSnapshots() && len(o.files) > 0:
		return &usageError{errors.New("--from excludes --from-snapshot and --files-of: the files are here or in a snapshot")}
	case o.members == "":
		return nil
	case !o.given():
		return &usageError{errors.New("--members chooses between the snapshot and the files of --from: give --from FILE")}
	case t.initialCluster != "":
		return &usageError{errors.New("--members and --initial-cluster exclude each other")}
	case o.members != membersOfSnapshot && o.members != membersOfFiles:
		return &usageError{fmt.Errorf("--members %q: want %s or %s", o.members, membersOfSnapshot, membersOfFiles)}
	}
	return nil
}

// read reads the files, and fills in what they say of this host. Flags stay as they are:
// they beat the files.
func (o *fromFlags) read(t *targetFlags, all bool) (*from.Found, error) {
	if !o.given() {
		return nil, nil
	}
	for flag, dir := range map[string]string{"data-dir": t.dataDir, "wal-dir": t.walDir} {
		if dir != "" && !filepath.IsAbs(dir) {
			return nil, &usageError{fmt.Errorf("--%s %s is relative, and the files of --from may mean another folder by "+
				"it: leave it out, or give an absolute path", flag, dir)}
		}
	}
	options := from.Options{
		Name: t.name, All: all, DataDir: t.dataDir, WALDir: t.walDir,
		Pod: os.Getenv("KUBERNETES_SERVICE_HOST") != "" && len(o.stored) == 0,
	}
	read := func() (*from.Found, error) { return from.Read(o.files, options) }
	if len(o.stored) > 0 {
		read = func() (*from.Found, error) { return o.readStored(options) }
	}
	found, err := read()
	if err != nil || all {
		return found, err
	}
	h := found.Host
	t.name, t.dataDir, t.walDir = h.Name.Text, h.DataDir.Text, h.WALDir.Text
	return found, nil
}

// describe adds to the site what the files say of this host.
func describe(site *restore.Site, found *from.Found) error {
	if found == nil || found.Host == nil {
		return nil
	}
	h := found.Host
	for _, n := range h.Notes {
		site.Notes = append(site.Notes, n.String())
	}
	site.Notes = append(site.Notes, kept(h)...)
	site.Start = startOf(h)
	if site.Owner != nil {
		return nil
	}
	owner, err := ownerOf(h)
	site.Owner = owner
	return err
}

// noteRelative says where a relative path is: the one in a unit or a script is below the
// server's working directory, and a server that finds nothing there begins an empty cluster.
func noteRelative(site *restore.Site) {
	if site.DataDir == "" || filepath.IsAbs(site.DataDir) {
		return
	}
	site.Notes = append(site.Notes, fmt.Sprintf("--data-dir %s is %s: if the server's own --data-dir is relative, too, "+
		"it is so to the server's working directory, and only --from FILE looks there", site.DataDir,
		absolute(site.DataDir)))
}

// kept reminds of what is not in the data: etcd reads it from the files again.
func kept(h *settings.Host) []string {
	var out []string
	for _, name := range []string{"quota-backend-bytes", "auto-compaction-mode", "auto-compaction-retention"} {
		if s, ok := h.Setting(name); ok {
			out = append(out, fmt.Sprintf("--%s=%s is not in the data: the member gets it from %s again", name, s.Value, s.At))
		}
	}
	return out
}

// ownerOf returns the owner that the server needs, or nil if the files do not say it.
func ownerOf(h *settings.Host) (*restore.Owner, error) {
	switch {
	case h.User.Text != "":
		return lookupOwner(h.User, h.Group)
	case h.UserOfImage:
	case h.Means == members.Systemd, h.Means == members.Supervisord, h.Means == members.StaticPod:
		return &restore.Owner{}, nil // without a user they run it as root
	}
	return nil, nil
}

func lookupOwner(name, group members.Word) (*restore.Owner, error) {
	of := group.Text
	if of == "" {
		u, err := user.Lookup(name.Text)
		if err != nil {
			if u, err = user.LookupId(name.Text); err != nil {
				return nil, name.At.Errorf("this host has no user %q: make it first, or give --chown USER:GROUP", name.Text)
			}
		}
		of = u.Gid
	}
	owner, err := parseOwner(name.Text + ":" + of)
	if err != nil {
		return nil, name.At.Errorf("%v; or give --chown USER:GROUP", err)
	}
	return owner, nil
}

// startOf is the way to start the member on this host.
func startOf(h *settings.Host) string {
	unit, file := shellquote.Join(h.Unit), shellquote.Join(h.Of.File)
	switch h.Means {
	case members.Systemd:
		return "systemctl start " + unit
	case members.Supervisord:
		return "supervisorctl start " + unit
	case members.Container:
		if h.Unit == "" {
			return "start the container as " + h.Of.String() + " does"
		}
		return "start the container " + unit + " as " + h.Of.String() + " does"
	case members.StaticPod:
		return "put the manifest " + file + " back into the folder of the kubelet"
	case members.StatefulSet:
		return "scale the StatefulSet up again"
	case members.Script:
		return "run " + file
	}
	return ""
}

// stopping adds to the refusal to touch what a running server uses how the server is stopped, by
// the files that start it.
func stopping(err error, found *from.Found) error {
	if !errors.As(err, new(*inuse.RunningError)) || found == nil || found.Host == nil {
		return err
	}
	h := found.Host
	unit := shellquote.Join(h.Unit)
	switch {
	case h.Outlives:
		return withHints(err, fmt.Sprintf("`supervisorctl stop %s` does not end it: %s runs etcd from a shell without exec, "+
			"so only the shell was ended; end etcd itself, by its process id", unit, h.Of))
	case h.Means == members.Systemd:
		return withHints(err, "to stop it: systemctl stop "+unit)
	case h.Means == members.Supervisord:
		return withHints(err, "to stop it: supervisorctl stop "+unit)
	case h.Means == members.Container && h.Unit != "":
		return withHints(err, "to stop it, stop the container "+unit)
	case h.Means == members.StaticPod:
		return withHints(err, "to stop it, move "+h.Of.File+" out of the folder of the kubelet")
	}
	return err
}

// decideMembers compares the members of the source of j with those of the files. They differ often
// with good reason, and nobody but the operator knows it.
func (o *fromFlags) decideMembers(j *restoreJob) error {
	if j.found == nil {
		return nil
	}
	if j.plan != nil { // they were decided for all hosts
		noteOverruled(j, "the plan", j.plan.Members)
		return nil
	}
	if text := j.request.InitialCluster; text != "" {
		if given, err := members.Parse(text); err == nil { // else the restore says so
			noteOverruled(j, "--initial-cluster", given)
		}
		return nil
	}
	recorded, _, err := members.Recorded(j.src.About().Members)
	if err != nil {
		return err
	}
	if o.members == membersOfSnapshot {
		j.site.Notes = append(j.site.Notes, notDecided(j, recorded)...)
		return nil
	}
	if err := j.found.Discover(); err != nil {
		return err
	}
	listed, err := j.found.Members()
	differs := j.found.Compare(recorded)
	switch {
	case len(differs) == 0:
		return nil
	case o.members == membersOfFiles && err != nil:
		return err
	case o.members == membersOfFiles && listed == nil:
		return &usageError{errors.New(
			"--members=files: the files do not say who all the members are: give --initial-cluster")}
	case o.members == membersOfFiles:
		j.request.InitialCluster = members.Format(listed)
		j.site.Notes = append(j.site.Notes, leftOut(j, recorded, listed)...)
		return nil
	}
	refused := &backup.RefusedError{Reason: fmt.Sprintf(
		"the snapshot and the files differ on who is in the cluster: the snapshot has %s, but %s",
		members.Format(recorded), strings.Join(differs, ", and "))}
	hints := []string{fmt.Sprintf("to restore the %d members of the snapshot: %s", len(recorded),
		chooseMembers(j, membersOfSnapshot, recorded))}
	if listed != nil {
		hints = append(hints, fmt.Sprintf("to restore the %d members of the files: %s", len(listed),
			chooseMembers(j, membersOfFiles, listed)))
	}
	return withHints(refused, append(hints, "or name all members by --initial-cluster, the same on every host")...)
}

// noteOverruled says what the files have, where something else has decided who the members are.
func noteOverruled(j *restoreJob, by string, decided []backup.Member) {
	for _, what := range j.found.Compare(decided) {
		j.site.Notes = append(j.site.Notes, fmt.Sprintf("%s: %s decides, which has %s", what, by, members.Format(decided)))
	}
}

// chooseMembers returns the running command with a choice of members. The command that restores a file
// reads no other ones.
func chooseMembers(j *restoreJob, whose string, list []backup.Member) string {
	if j.stored == nil {
		return j.again("--initial-cluster=" + members.Format(list))
	}
	return j.again("--members=" + whose)
}

// notDecided says what the files have, where the snapshot decides.
func notDecided(j *restoreJob, recorded []backup.Member) (notes []string) {
	for _, what := range j.found.Compare(recorded) {
		notes = append(notes, what+": the snapshot decides, as --members=snapshot says")
	}
	if h := j.found.Host; h != nil && h.Replicas > 0 && h.Replicas != len(recorded) {
		notes = append(notes, fmt.Sprintf("let the StatefulSet have %d replicas before its pods start: the file has %d",
			len(recorded), h.Replicas))
	}
	return notes
}

// leftOut says which members of the snapshot are not restored, where the files decide.
func leftOut(j *restoreJob, recorded, listed []backup.Member) (notes []string) {
	left := slices.DeleteFunc(slices.Clone(recorded), func(m backup.Member) bool {
		return slices.ContainsFunc(listed, func(l backup.Member) bool { return l.Name == m.Name })
	})
	if len(left) == 0 {
		return nil
	}
	note := fmt.Sprintf("not restored, as --members=files says: %s of the snapshot", members.Names(left))
	if h := j.found.Host; h != nil && h.Replicas > 0 {
		note += fmt.Sprintf("; start %d pods, and scale up only when these are healthy: a pod above joins as a new member, "+
			"and needs an empty volume", len(listed))
	}
	return []string{note}
}
