package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/secret"
)

type planOptions struct {
	restoreOptions
	dataDirs, walDirs []string
	output            string
}

func newPlanCommand(a *app) *cobra.Command {
	var o planOptions
	cmd := &cobra.Command{
		Use:   "plan [--repo REPO] ID|latest [--output FILE]",
		Short: "Decide how a cluster will be restored, and write that down for all hosts",
		Long: `Decide how a cluster will be restored, and write that down for all hosts.

The plan is a small file in YAML: the snapshot with its checksums, the members with their
names, URLs and ids, a fresh token, the bump of the revision, alarms, the old and the new
cluster id, and notes that you should read. It holds no secret. Carry it to each host, and
restore there by "backupd restore --plan FILE --name NAME": all members are then restored
from the same snapshot in the same way. The token seals the plan. One that was changed is
refused, and members of different plans can never form one cluster.

With --from, files that start etcd on some host, who is in the cluster is compared with what
they say, and the plan takes the directories, the owner and the way to start each member from
them. Give those of all hosts, copied to this one.

With --from-snapshot these files come out of the snapshot, as --companion-from of 'backup' has
stored them, and nothing is needed of the hosts. Where a snapshot has those of one host only,
--files-of ID takes those of the others out of other snapshots of the cluster: the plan names
the newest one of each host. Encrypted ones need --identity; the plan never holds it.

"backupd runbook" then writes down every step, with the commands of each host.

Nothing is changed, here or in the repository.

` + latestHelp + exitHelp,
		Example: `  backupd plan --repo s3://backups/etcd latest
  backupd plan latest --output plan.yaml --data-dir /var/lib/etcd
  backupd plan latest --output plan.yaml --data-dir /var/lib/etcd --data-dir m2=/srv/etcd
  backupd plan latest --output plan.yaml --from-snapshot --identity key.txt
  backupd restore --plan plan.yaml --name m1 --dry-run`,
		Args:              oneReference,
		ValidArgsFunction: completeIDs(&o.repo),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPlan(cmd, a, o, args) },
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	o.repo.registerTimeline(cmd, latestOfTimeline)
	o.target.registerCluster(cmd)
	o.target.registerAutoBump(cmd)
	o.identity.register(cmd)
	o.from.register(cmd)
	o.from.registerSnapshot(cmd, &o.repo)
	f := cmd.Flags()
	f.BoolVar(&o.allowSuspect, "allow-suspect", false, "plan with a suspect snapshot: its content is in doubt")
	f.StringArrayVar(&o.dataDirs, "data-dir", nil,
		"data directory of all members, or NAME=DIR of one; an absolute path (repeatable)")
	f.StringArrayVar(&o.walDirs, "wal-dir", nil,
		"WAL directory, if it is not in the data directory; as --data-dir (repeatable)")
	f.StringVar(&o.output, "output", "", "file to write, which must not be there (default: standard output)")
	mustRegister(cmd.MarkFlagFilename("output", "yaml", "yml"))
	return cmd
}

func runPlan(cmd *cobra.Command, a *app, o planOptions, args []string) error {
	if _, err := os.Lstat(o.output); o.output != "" && !errors.Is(err, fs.ErrNotExist) {
		return overwrites(o.output)
	}
	if err := o.target.markBump(cmd); err != nil {
		return err
	}
	order, err := o.target.order()
	if err != nil {
		return err
	}
	order.request.ClearNoSpace = true
	if err := o.from.check(&o.target); err != nil {
		return err
	}
	if o.from.inSnapshots() {
		if err := o.readStored(cmd, a, args); err != nil {
			return err
		}
	}
	found, err := o.from.read(&o.target, true)
	if err != nil {
		return err
	}
	job := &restoreJob{cmd: cmd, app: a, restoreOrder: order, found: found}
	if err := o.choose(job, args, nil); err != nil {
		return job.explain(err)
	}
	if err := o.from.decideMembers(job); err != nil {
		return err
	}
	p, err := o.make(cmd.Context(), job)
	if err != nil {
		return job.explain(err)
	}
	return o.print(a, p, found)
}

// make decides the plan and seals it.
func (o *planOptions) make(ctx context.Context, job *restoreJob) (*restore.Plan, error) {
	p, err := restore.NewPlan(job.src.About(), job.request)
	if err != nil {
		return nil, err
	}
	begun := notesOfBegun(ctx, job)
	p.Notes = append(append(p.Notes, job.site.Notes...), begun...)
	places, err := o.places(p, job.found)
	if err != nil {
		return nil, err
	}
	p.Notes = append(append(p.Notes, notesOf(job.found)...), o.from.notesFor(ctx, p, job.found, places)...)
	stored := restore.Stored{
		Repository: secret.Show(o.repo.repo), RepositoryID: job.stored.in.Repository().ID(), Cluster: job.stored.in.Name(),
		New:      len(begun) > 0,
		Snapshot: job.stored.item.ID, AllowSuspect: o.allowSuspect, Settings: whereabouts(&o.repo),
		Encryption: job.stored.manifest.Encoding.Encryption, Recipients: job.stored.manifest.Encoding.Recipients,
	}
	return p, p.Seal(stored, places, time.Now())
}

// whereabouts returns the settings that say where a bucket is, and not who may read it or
// how this host reaches it.
func whereabouts(r *repoFlags) (out []string) {
	idle := location.Idle(r.repo)
	for _, s := range r.options.Settings() {
		name := s.Section + "-" + s.Key
		if slices.Contains(whereFlags, name) && *s.Value != "" &&
			!slices.Contains(idle, name) {
			out = append(out, name+"="+secret.Show(*s.Value))
		}
	}
	return out
}

// notesOf are those on the files of all hosts.
func notesOf(found *from.Found) (out []string) {
	if found == nil {
		return nil
	}
	for _, l := range found.All {
		for _, n := range l.Notes {
			out = append(out, l.Name.Text+": "+n.String())
		}
		for _, text := range kept(l.Host) {
			out = append(out, l.Name.Text+": "+text)
		}
		if l.Unknown != "" {
			out = append(out, l.Name.Text+": its data directory is not known: "+secret.ShowText(l.Unknown))
		}
	}
	return out
}

// placeIn returns what the files say of a member.
func placeIn(found *from.Found, member string) restore.Place {
	if found != nil {
		for _, l := range found.All {
			if l.Name.Text == member {
				return l.Place
			}
		}
	}
	return restore.Place{Member: member}
}

// places returns where the directories of the members are, as far as it was said. A flag
// beats the files.
func (o *planOptions) places(p *restore.Plan, found *from.Found) ([]restore.Place, error) {
	data, err := eachMember("data-dir", o.dataDirs, p)
	if err != nil {
		return nil, err
	}
	wal, err := eachMember("wal-dir", o.walDirs, p)
	if err != nil {
		return nil, err
	}
	var out []restore.Place
	for _, m := range p.Members {
		at := placeIn(found, m.Name)
		if dir := data[m.Name]; dir != "" {
			at.DataDir, at.Volume = dir, nil
		}
		at.WALDir = cmp.Or(wal[m.Name], at.WALDir)
		if at.WALDir != "" && at.DataDir == "" {
			return nil, &usageError{fmt.Errorf("--wal-dir of member %s needs its --data-dir", m.Name)}
		}
		if at != (restore.Place{Member: m.Name}) {
			out = append(out, at)
		}
	}
	return out, nil
}

// eachMember returns the directory of each member.
func eachMember(flag string, values []string, p *restore.Plan) (map[string]string, error) {
	all, own := "", map[string]string{}
	for _, v := range values {
		name, dir, one := strings.Cut(v, "=")
		known := slices.ContainsFunc(p.Members, func(m backup.Member) bool { return m.Name == name })
		switch {
		case one && known && own[name] == "" && filepath.IsAbs(dir):
			own[name] = filepath.Clean(dir)
		case filepath.IsAbs(v) && all == "":
			all = filepath.Clean(v)
		default:
			return nil, &usageError{fmt.Errorf("--%s %s: want one absolute path for all members, or NAME=PATH once for "+
				"a member of the plan: nobody knows in which folder a host will be restored", flag, v)}
		}
	}
	out := map[string]string{}
	for _, m := range p.Members {
		out[m.Name] = all
		if dir := own[m.Name]; dir != "" {
			out[m.Name] = dir
		}
	}
	return out, nil
}

func overwrites(file string) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"%s is there: somebody may work by it", file)}, "give another --output; nothing is overwritten")
}

func (o *planOptions) print(a *app, p *restore.Plan, found *from.Found) error {
	raw, err := p.Marshal()
	if err != nil {
		return err
	}
	if o.output != "" {
		if err := writeNew(o.output, raw); err != nil {
			return err
		}
	}
	if printed, err := a.document(kindPlan, p); printed {
		return err
	}
	if o.output == "" {
		_, err := a.stdout.Write(raw)
		return err
	}
	return o.printWritten(a, p, found)
}

// writeNew makes a file, and leaves none if that fails.
func writeNew(file string, raw []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return overwrites(file)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = disk.Sync(filepath.Dir(file))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", file, err), os.Remove(file))
	}
	return nil
}

// printWritten tells people what comes next.
func (o *planOptions) printWritten(a *app, p *restore.Plan, found *from.Found) error {
	fmt.Fprintf(a.stdout, "Planned the restore of %s\n", p.Source.Name)
	for _, n := range p.Notes {
		fmt.Fprintf(a.stdout, "  note: %s\n", n)
	}
	fmt.Fprintf(a.stdout, "All steps, host by host: backupd runbook %s\n", shellquote.Join("--plan="+o.output))
	fmt.Fprintf(a.stdout, "The plan is %s. Carry it to each host, and restore there, with --replace where "+
		"old data lies:\n", o.output)
	for _, m := range p.Members {
		words := []string{"backupd", "restore", "--plan=" + o.output, "--name=" + m.Name}
		if p.Stored.New {
			words = append(words, "--new")
		}
		for _, file := range o.identity.files {
			words = append(words, "--identity="+absolute(file))
		}
		var files []string
		if found != nil && !o.from.inSnapshots() {
			files = found.FilesOf(m.Name)
		}
		switch {
		case p.PlaceOf(m.Name).DataDir != "":
		case len(files) == 0:
			words = append(words, "--data-dir=DIR")
		default:
			for _, file := range files {
				words = append(words, "--from="+file)
			}
		}
		if _, err := fmt.Fprintf(a.stdout, "  %s\n", shellquote.Join(words...)); err != nil {
			return err
		}
	}
	return nil
}
