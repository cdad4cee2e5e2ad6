package runbook

import (
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// conclude is what follows when the cluster runs again.
func conclude(b *book) {
	b.heading(2, "6. A new backup")
	b.text("The restore has announced the new cluster, and a daemon that runs goes on by itself. By hand:")
	s := b.plan.Stored
	words := []string{"backupd", "backup", "--repo=" + s.Repository, "--cluster=" + s.Cluster}
	for _, setting := range s.Settings {
		words = append(words, "--"+setting)
	}
	for _, r := range s.Recipients {
		words = append(words, "--recipient="+r)
	}
	b.commands(q(words...) + " " + b.connection())
	b.text("If the files of the hosts were stored with each snapshot, add the same `--companion` and `--companion-from` " +
		"as before: a backup without them has none.")
	b.text("Exit code 4 means that the announcement could not be stored: run the `backupd timeline accept` that it " +
		"prints.")

	var files []string
	for _, s := range b.secrets() {
		files = append(files, s.file)
	}
	if len(files) > 0 && !b.is(members.StatefulSet) {
		b.text("When all is well, remove what leads to the snapshots from each host:")
		b.commands(q(append([]string{"rm", "-f"}, files...)...))
	}

	b.heading(2, "7. If it went wrong")
	b.text("**Undo all members, or none:** one with old data and one with restored data never form a cluster. Stop all "+
		"as in step 1, put back what `--replace` has moved aside, and start all as in step 3. The restored data is moved "+
		"to `DIR%sTIME`, and nothing is deleted.", restore.UndonePrefix)
	var dry, undo, old []string
	for _, n := range b.nodes {
		if n.place.Means == members.StatefulSet {
			continue
		}
		lines, words := undone(n)
		host := append([]string{"# " + plain(n.Name) + ", on its host"}, lines...)
		dry = append(append(dry, host...), "backupd restore --undo"+words+" --dry-run")
		undo = append(append(undo, host...), "backupd restore --undo"+words)
		if line := n.old(); line != "" {
			old = append(old, line)
		}
	}
	if len(undo) > 0 {
		b.text("First the dry run:")
		b.commands(dry...)
		b.text("Exit code 6, several restores have moved data aside: add `--old-data TIME` to both commands, the end of the "+
			"name of the old data that you want back; the refusal prints a command for each. Exit code 5, nothing to put "+
			"back: this host had no data. Move the restored directory, and its WAL directory, away by hand, such as to "+
			"`DIR%sTIME`. If all is right:", restore.UndonePrefix)
		b.commands(undo...)
	} else {
		b.text("The volumes are reached by pods as in step 2, with `restore --undo --data-dir=…` as arguments.")
	}
	b.text("Delete the old data by hand when the new backup is `verified` and nobody misses anything: it takes the " +
		"room of a second database. Where the data directory is a mount point it lies inside, with a name that begins " +
		"with a dot.")
	if len(old) > 0 {
		b.commands(old...)
	}
}

// old lists what lies aside; it is empty if nothing is known of the directories.
func (n node) old() string {
	var dirs []string
	for _, dir := range []string{n.place.DataDir, n.place.WALDir} {
		if dir != "" && dir != unknownWAL {
			dirs = append(dirs, q(dir+restore.AsidePrefix)+"*")
		}
	}
	if len(dirs) == 0 {
		return ""
	}
	return "ls -d " + strings.Join(dirs, " ") + "   # " + plain(n.Name)
}

// undone are the flags of an undo. It knows no plan.
func undone(n node) (lines []string, flags string) {
	n.planned = false
	return n.directory()
}
