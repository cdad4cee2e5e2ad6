package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/cluster/replace"
)

func newMemberCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Repair one member of a cluster that runs",
		Long: `Repair one member of a cluster that runs.

` + exitHelp,
		Args: arguments(0, "a subcommand"),
	}
	cmd.AddCommand(newMemberReplaceCommand(a))
	return cmd
}

type replaceOptions struct {
	replace.Options
	from  fromFlags
	chown string
	exec  string
}

func newMemberReplaceCommand(a *app) *cobra.Command {
	var o replaceOptions
	cmd := &cobra.Command{
		Use:   "replace --endpoints ENDPOINTS --name NAME --data-dir DIR | --from FILE",
		Short: "Replace one dead member of a healthy cluster",
		Long: `Replace one dead member of a healthy cluster. No backup is needed: the new member gets
everything from the others, and the cluster serves its clients all the time.

Run it on the host of the dead member, with the name and the directories that its etcd has.
It checks first, and changes nothing unless a quorum answers, a leader is known, no other
member is down or being added, the member is dead, and no etcd holds its directory. Then it

  1. removes the dead member from the cluster,
  2. moves its old data aside, to a name with the time (it is never deleted),
  3. adds the member again, as a learner, which does not vote,
  4. prints how to start its etcd, and waits; or starts it by --exec,
  5. promotes it when it has caught up,
  6. compares its HashKV with that of another member.

--from FILE takes the name, the directories and the owner of the member from the file that
starts etcd on this host: the files that "backupd restore" takes. A line that is not understood,
and the file of another member than --name, are refused (exit code 78). If the file has other
peer URLs than the cluster, --peer-urls chooses. Without --from give --wal-dir if etcd has one:
when the data directory is lost nothing else tells, and the new member would find the old WAL.

It may be interrupted at any moment, by kill -9 too: the same command goes on from what the
cluster and the directory say. --dry-run checks everything and shows what would be done.

The command of --exec is run by sh. "$@" in it stands for the flags of etcd that step 4
prints. It may start a service (--exec 'systemctl start etcd') or be etcd itself
(--exec 'exec etcd --listen-client-urls ... "$@"'), which then runs on: send its output to a
file. It gets this environment without ETCDCTL_*, BACKUPD_* and AWS_*. In a service's file
set before what --dry-run prints: the state of the initial cluster to existing, and the present
members. With --from it is refused (6), before anything is removed, while they are others.

The user of etcd needs the role root. With two of three members down there is no quorum,
and no member can be replaced: start one of them, or restore the cluster from a backup.

` + exitHelp,
		Example: `  backupd member replace --name m2 --data-dir /var/lib/etcd --endpoints m1:2379,m3:2379 --dry-run
  backupd member replace --name m2 --data-dir /var/lib/etcd --endpoints m1:2379,m3:2379
  backupd member replace --from /etc/systemd/system/etcd.service --endpoints m1:2379,m3:2379
  backupd member replace --name m2 --data-dir /var/lib/etcd --endpoints m1:2379,m3:2379 \
    --exec 'systemctl start etcd'`,
		Args:        arguments(0, "no argument"),
		Annotations: needsEtcd,
		RunE:        func(cmd *cobra.Command, _ []string) error { return runMemberReplace(cmd, a, o) },
	}
	o.register(cmd)
	return cmd
}

func (o *replaceOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "", "name of the dead member")
	f.StringVar(&o.DataDir, "data-dir", "", "its data directory, on this host")
	f.StringVar(&o.WALDir, "wal-dir", "", "its WAL directory, if not in the data directory")
	f.StringSliceVar(&o.PeerURLs, "peer-urls", nil,
		"peer URLs of the new member, separated by commas (default: those of the dead one)")
	f.StringVar(&o.chown, "chown", "", "user:group of the new, empty directories, by names or numbers "+
		"(default: the owner that the files of --from name, or that of the old ones)")
	f.StringVar(&o.exec, "exec", "", "command that starts the new member")
	f.DurationVar(&o.Wait, "wait", 30*time.Minute, "how long the new member may make no progress")
	f.BoolVar(&o.Removed, "removed", false, "the dead member was removed from the cluster already; needs --peer-urls")
	f.BoolVar(&o.AllowRunning, "allow-running", false,
		"replace a member that answers, or at whose peer URL something does")
	f.BoolVar(&o.AllowMoreDown, "allow-more-down", false, "replace the member although others are down, too")
	f.BoolVar(&o.DryRun, "dry-run", false, "check everything, show what would be done, and change nothing")
	mustRegister(cmd.MarkFlagDirname("data-dir"))
	mustRegister(cmd.MarkFlagDirname("wal-dir"))
	o.from.registerFiles(cmd)
}

// check refuses what is missing or does not go together.
func (o *replaceOptions) check() error {
	switch {
	case o.Name == "":
		return &usageError{errors.New("no member: give the name of the dead one with --name, or --from FILE")}
	case o.DataDir == "":
		return &usageError{errors.New(
			"no folder: give the data directory of the dead member with --data-dir, or --from FILE")}
	case o.Removed && len(o.PeerURLs) == 0:
		return &usageError{errors.New("--removed needs --peer-urls: the cluster does not know them any more")}
	case o.Wait <= 0:
		return &usageError{errors.New("--wait: want a duration above zero")}
	}
	return nil
}
