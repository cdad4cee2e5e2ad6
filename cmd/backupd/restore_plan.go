package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// planFlag is the plan by which a restore is done. Without one its methods change nothing.
type planFlag struct {
	file string
	plan *restore.Plan
}

func (p *planFlag) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "plan", "", "restore by this plan, which 'backupd plan' has written")
	mustRegister(cmd.MarkFlagFilename("plan", "yaml", "yml"))
}

// readPlan reads a plan. The error of one that is not understood names the file and the line.
func readPlan(file string) (*restore.Plan, error) {
	raw, err := disk.ReadSmall(file, restore.MaxPlanBytes)
	switch {
	case errors.Is(err, disk.ErrUnfit):
		return nil, members.Position{File: file}.Errorf("%v", err)
	case err != nil:
		return nil, &usageError{fmt.Errorf("--plan: %w", err)}
	}
	p, err := restore.ParsePlan(raw)
	var at *members.FileError
	if errors.As(err, &at) {
		at.At.File = file
	}
	if err != nil {
		return nil, fmt.Errorf("--plan %s: %w", file, err)
	}
	p.Request.Token = p.Token // it is no other restore with another plan
	return p, nil
}

// givePlan gives the flags that lead to a repository what the plan says, if it says it, and
// nothing on this host says it.
func givePlan(cmd *cobra.Command) error {
	f := cmd.Flags().Lookup("plan")
	if f == nil || !f.Changed {
		return nil
	}
	p, err := readPlan(f.Value.String())
	if err != nil {
		return err
	}
	repo, conf, cluster := cmd.Flags().Lookup("repo"), cmd.Flags().Lookup("config"), cmd.Flags().Lookup("cluster")
	if !cluster.Changed {
		if err := give(cmd, cluster, p.Stored.Cluster); err != nil {
			return err
		}
	}
	if repo.Changed || conf.Changed {
		return nil
	}
	if places, err := config.LoadPlaces(packagedConfig); err == nil && places.Of(p.Stored.Cluster) != "" {
		return nil
	}
	for _, s := range p.Stored.Settings {
		name, value, _ := strings.Cut(s, "=")
		if f := cmd.Flags().Lookup(name); f != nil && !f.Changed {
			if err := give(cmd, f, value); err != nil {
				return err
			}
		}
	}
	return give(cmd, repo, p.Stored.Repository)
}

// plannedMembers returns the members of the plan on the command line, if there is one.
func plannedMembers(cmd *cobra.Command) (names []string) {
	f := cmd.Flags().Lookup("plan")
	if f == nil || !f.Changed {
		return nil
	}
	p, err := readPlan(f.Value.String())
	if err != nil {
		return nil
	}
	for _, m := range p.Members {
		names = append(names, m.Name)
	}
	return names
}

// read reads the plan, refuses flags that contradict it, and fills in those that it knows.
func (p *planFlag) read(cmd *cobra.Command, o *restoreOptions, args []string) error {
	if p.file == "" {
		return nil
	}
	var err error
	if p.plan, err = readPlan(p.file); err != nil {
		return err
	}
	place := p.plan.PlaceOf(o.target.name)
	if err := p.contradiction(cmd, o, args, place); err != nil {
		return err
	}
	if v := place.Volume; v != nil && o.target.dataDir == "" && !o.allMembers {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the data of member %s is in %s of the volume %s, and the plan cannot know where that is on this host",
			place.Member, v.DataDir, v.Name)}, "backupd runbook --plan %s says how to get there; then give --data-dir", p.file)
	}
	o.allowSuspect = p.plan.Stored.AllowSuspect
	if place.DataDir != "" {
		o.target.dataDir, o.target.walDir = place.DataDir, place.WALDir
	}
	// The request of the plan takes the place of these.
	o.target.bump, o.target.markCompacted = bumpFlag{}, false
	return nil
}

// contradiction refuses what is said on the command line and is not what the plan says.
func (p *planFlag) contradiction(cmd *cobra.Command, o *restoreOptions, args []string, place restore.Place) error {
	r, plan := p.plan.Request, p.plan
	t := &o.target
	initial := t.initialCluster
	if parsed, err := members.Parse(initial); err == nil {
		initial = members.Format(parsed)
	}
	snapshot := string(plan.Stored.Snapshot)
	for _, c := range []struct {
		name, is, want string
	}{
		{"cluster", o.repo.cluster, plan.Stored.Cluster},
		{"timeline", o.repo.timeline, ""},
		{"initial-cluster", initial, plan.InitialCluster()},
		{"initial-cluster-token", t.token, plan.Token},
		{"bump-revision", t.bump.String(), fmt.Sprint(r.BumpRevision)},
		{"mark-compacted", fmt.Sprint(t.markCompacted), fmt.Sprint(r.BumpRevision > 0)},
		{"clear-alarms", fmt.Sprint(t.clearAlarms), fmt.Sprint(r.ClearAlarms)},
		{"allow-localhost", fmt.Sprint(t.allowLocal), fmt.Sprint(r.AllowLocalhost)},
		{"allow-suspect", fmt.Sprint(o.allowSuspect), fmt.Sprint(plan.Stored.AllowSuspect)},
		{"members", o.from.members, ""},
		{"data-dir", t.dataDir, cmp.Or(place.DataDir, t.dataDir)},
		{"wal-dir", t.walDir, walOf(place, t.walDir)},
	} {
		told := cmd.Flags().Changed(c.name) || strings.HasSuffix(c.name, "-dir") && o.from.given()
		if !told || c.is == c.want || c.name == "bump-revision" && t.bump.auto {
			continue
		}
		if !cmd.Flags().Changed(c.name) {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"the files that start etcd contradict the plan %s: they have %q as --%s, and it says %q",
				p.file, c.is, c.name, c.want)},
				"leave --from, --from-snapshot or --files-of out, and give --name; or make another plan, for all members: "+
					"backupd plan")
		}
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"--%s=%s contradicts the plan %s, which says %q", c.name, c.is, p.file, c.want)},
			"leave --%s out; or make another plan, for all members: backupd plan", c.name)
	}
	if len(args) > 1 || len(args) == 1 && args[0] != snapshot {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the plan %s is of snapshot %s, and %q is named", p.file, snapshot, args)},
			"leave the snapshot out; or make another plan, for all members: backupd plan")
	}
	return nil
}

// allPlaces makes the places of all members in the plan those of this host, if they are all
// restored here and no other folder is named.
func (p *planFlag) allPlaces(o *restoreOptions, order *restoreOrder) error {
	if p.plan == nil || !o.allMembers || o.outputDir != "" {
		return nil
	}
	for _, m := range p.plan.Members {
		at := p.plan.PlaceOf(m.Name)
		if at.DataDir == "" {
			return &usageError{fmt.Errorf("--all-members: the plan %s does not say where member %s is: give --output-dir DIR, "+
				"or make a plan with --data-dir %s=DIR", p.file, m.Name, m.Name)}
		}
		owner, err := p.ownerAt(at)
		if err != nil {
			return err
		}
		order.site.Places = append(order.site.Places, restore.LocalPlace{
			Member: m.Name, DataDir: at.DataDir, WALDir: at.WALDir, Owner: owner,
		})
	}
	return nil
}

// own gives the restore the owner that the plan has for the member, and the way to start it,
// unless this host says it.
func (p *planFlag) own(o *restoreOrder) error {
	if p.plan == nil {
		return nil
	}
	place := p.plan.PlaceOf(o.site.Name)
	named := place.Means == members.Systemd || place.Means == members.Supervisord
	if o.site.Start == "" && named && place.Unit != "" {
		o.site.Start = startOf(&settings.Host{Start: members.Start{Means: place.Means, Unit: place.Unit}})
	}
	if o.site.Owner != nil {
		return nil
	}
	owner, err := p.ownerAt(place)
	o.site.Owner = owner
	return err
}

// ownerAt returns the owner that the plan has for a place, or nil.
func (p *planFlag) ownerAt(place restore.Place) (*restore.Owner, error) {
	name, group, ok := strings.Cut(place.Owner, ":")
	if !ok {
		return nil, nil
	}
	at := members.Position{File: p.file}
	return lookupOwner(members.Word{Text: name, At: at}, members.Word{Text: group, At: at})
}

// walOf returns the WAL directory that a place demands, or any if there is no place.
func walOf(place restore.Place, any string) string {
	if place.DataDir == "" {
		return any
	}
	return place.WALDir
}

// order makes the plan's request that of the order.
func (p *planFlag) order(o *restoreOrder) {
	o.request.ClearNoSpace = true
	if p.plan != nil {
		o.request = p.plan.Request
	}
}

// snapshot returns the reference of the snapshot.
func (p *planFlag) snapshot(args []string) string {
	if p.plan != nil {
		return string(p.plan.Stored.Snapshot)
	}
	return args[0]
}

// checkRepository refuses another repository than that of the plan, at whichever address.
func (p *planFlag) checkRepository(id, address string) error {
	if p.plan == nil || id == "" || p.plan.Stored.RepositoryID == "" || id == p.plan.Stored.RepositoryID {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the plan %s is of the repository %s at %s, and that at %s is %s",
		p.file, p.plan.Stored.RepositoryID, p.plan.Stored.Repository, address, id)},
		"give the address that the repository of the plan has on this host: --repo=%s", p.plan.Stored.Repository)
}

// name lets commands that the job prints name the plan in place of the snapshot.
func (p *planFlag) name(job *restoreJob) {
	if p.plan == nil {
		return
	}
	job.plan, job.ref, job.naming = p.plan, "--plan="+absolute(p.file), nil
}

// commandByPlan returns the command that restores another member by the plan of the job.
func commandByPlan(j *restoreJob, member string) string {
	args, drop := []string{j.ref, "--name=" + member}, append(slices.Clone(perHost),
		"cluster", "initial-cluster", "initial-cluster-token", "bump-revision", "mark-compacted", "clear-alarms",
		"allow-localhost", "allow-suspect")
	if j.cmd.Flags().Lookup("repo").Value.String() == j.plan.Stored.Repository {
		drop = append(drop, "repo")
		for _, s := range j.plan.Stored.Settings {
			name, _, _ := strings.Cut(s, "=")
			drop = append(drop, name)
		}
	}
	if j.plan.PlaceOf(member).DataDir != "" {
		drop = append(append(drop, "data-dir", "wal-dir"), storedFlags...)
	} else {
		without, place := elsewhere(j, member)
		drop, args = append(drop, without...), append(append(args, absolutePaths(j.cmd)...), place...)
	}
	return commandWith(j.cmd, drop, args...)
}
