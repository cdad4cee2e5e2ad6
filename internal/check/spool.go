package check

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/check/host"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// fewFiles is the number of free files below which a warning comes. A backup needs
// two.
const fewFiles = 1000

// databases returns the bytes of the databases of the clusters that answered.
func databases(clusters []*chosen) []int64 {
	var out []int64
	for _, c := range clusters {
		if c.live != nil {
			out = append(out, c.live.database)
		}
	}
	return out
}

// checkSpool checks the folder into which databases are received.
func checkSpool(conf *config.Daemon, clusters []*chosen, endpoints []string) []backup.Finding {
	databases := databases(clusters)
	dir := conf.Spool.Folder
	if dir == "" {
		dir = os.TempDir()
	}
	l := list{section: SectionSpool, subject: dir}
	if !checkFolder(&l, dir) {
		return l.findings
	}
	folder := spool.Folder{Dir: dir, MinFree: conf.Spool.Reserve()}
	fs, reserve, err := folder.Room()
	if err != nil {
		l.fail("name another folder in daemon.spool.folder", "%v", err)
		return l.findings
	}
	checkKind(&l, fs)
	checkRoom(&l, fs, reserve, databases, conf.Concurrency)
	asked := host.Spool{Files: fs, Reserve: reserve, Database: slices.Max(append(databases, 0)), Endpoints: endpoints}
	if text, hint := host.Report(asked, host.Find("/")); text != "" {
		l.warn(hint, "%s", text)
	}
	used, err := folder.Bytes()
	if err != nil {
		l.fail("correct the permissions of the folder", "%v", err)
		return l.findings
	}
	checkLimit(&l, conf.Spool.MaxBytes, used, databases, conf.Concurrency)
	checkPending(&l, folder, clusters)
	return l.findings
}

// checkFolder checks the folder itself, and reports whether it can be used.
func checkFolder(l *list, dir string) bool {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		l.fail("make the folder, owned by the user backupd runs as, with mode 0700; or correct daemon.spool.folder",
			"there is no such folder")
		return false
	case err != nil:
		l.fail("correct daemon.spool.folder, or the permissions of the folders above it", "%v", err)
		return false
	case !info.IsDir():
		l.fail("correct daemon.spool.folder", "this is no folder")
		return false
	}
	if info.Mode()&0o002 != 0 && info.Mode()&os.ModeSticky == 0 {
		l.warn("run chmod 700 on it",
			"every user of this machine can replace files in the folder (mode %04o)", info.Mode().Perm())
	}
	if err := tryWriting(dir); err != nil {
		l.fail("give the folder to the user backupd runs as, or name another in daemon.spool.folder",
			"it cannot be written: %v", err)
		return false
	}
	return true
}

// tryWriting makes a durable file and removes it.
func tryWriting(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".backupd-check-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	if _, err := f.Write(make([]byte, 64<<10)); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

func checkKind(l *list, fs disk.FileSystem) {
	switch fs.Kind {
	case disk.InMemory:
		l.warn("name a folder on a disk in daemon.spool.folder; in Kubernetes an emptyDir without medium: Memory",
			"it is in memory (%s): a backup needs memory for the whole database, and a reboot loses pending snapshots",
			fs.Name)
	case disk.OnNetwork:
		l.warn("name a folder on a disk of this host in daemon.spool.folder",
			"it is on the network (%s): etcd must keep old pages while a snapshot is written, and locks may not work",
			fs.Name)
	}
	switch {
	case fs.Files > 0 && fs.Left < spool.FewestFiles:
		l.fail("remove files from this file system (df -i shows how many it has)",
			"this file system has room for only %d files more, whatever their size: no backup is begun", fs.Left)
	case fs.Files > 0 && fs.Left < fewFiles:
		l.warn("remove files from this file system", "this file system has room for only %d files more", fs.Left)
	}
}

// needs returns the room for the largest database, and the room for the largest
// ones that may be received at the same time.
func needs(databases []int64, concurrency int) (one, all int64) {
	sorted := slices.Clone(databases)
	slices.SortFunc(sorted, func(a, b int64) int { return int(max(-1, min(1, b-a))) })
	for i, n := range sorted {
		if i == 0 {
			one = disk.RoomFor(n)
		}
		if i < max(1, concurrency) {
			all += disk.RoomFor(n)
		}
	}
	return one, all
}

// checkRoom compares free space with the databases of the clusters that answered.
func checkRoom(l *list, fs disk.FileSystem, reserve int64, databases []int64, concurrency int) {
	one, all := needs(databases, concurrency)
	free := spool.Usable(fs, reserve)
	if text := spool.Never(fs, reserve, slices.Max(append(databases, 0))); text != "" {
		l.fail("lower daemon.spool.min-free, or name a larger folder in daemon.spool.folder", "%s", text)
		return
	}
	hint := fmt.Sprintf("free some space, name a larger folder in daemon.spool.folder, or lower daemon.spool.min-free"+
		" (%s stay free)", disk.Size(reserve))
	switch {
	case len(databases) == 0:
		l.ok("it can be written and has %s free beside the reserve; whether that is enough is not known: no cluster answered",
			disk.Size(free))
	case free < one:
		l.fail(hint, "%s are free beside the reserve, and the largest database needs %s", disk.Size(free), disk.Size(one))
	case free < all:
		l.warn(hint+", or lower daemon.concurrency",
			"%s are free beside the reserve: enough for one database, and not for the %d that may be received at once (%s)",
			disk.Size(free), min(concurrency, len(databases)), disk.Size(all))
	default:
		l.ok("it can be written and has %s free beside the reserve of %s; the databases need %s at most",
			disk.Size(free), disk.Size(reserve), disk.Size(all))
	}
}

func checkLimit(l *list, limit, used int64, databases []int64, concurrency int) {
	if limit == 0 || len(databases) == 0 {
		return
	}
	one, all := needs(databases, concurrency)
	switch {
	case limit < one:
		l.fail("raise daemon.spool.max-bytes",
			"daemon.spool.max-bytes is %s, and the largest database needs %s: it can never be received",
			disk.Size(limit), disk.Size(one))
	case limit < all:
		l.warn("raise daemon.spool.max-bytes, or lower daemon.concurrency",
			"daemon.spool.max-bytes is %s, and the %d databases that may be received at once need %s",
			disk.Size(limit), min(concurrency, len(databases)), disk.Size(all))
	case limit-used < one:
		l.warn("see the pending snapshots below; they give way to new ones",
			"spools already take %s of daemon.spool.max-bytes (%s)", disk.Size(used), disk.Size(limit))
	}
}

// checkPending reports snapshots that were received and not stored.
func checkPending(l *list, folder spool.Folder, clusters []*chosen) {
	pending, err := folder.Waiting()
	if err != nil {
		l.fail("correct the permissions of the folder", "%v", err)
	}
	for _, p := range pending {
		is := fmt.Sprintf("a snapshot of cluster %s of %s waits to be stored in repository %s (%s)",
			p.Capture.Cluster, certificate.Stamp(p.Capture.StartedAt), p.Repository, disk.Size(p.Capture.Plain.Bytes))
		another := ""
		for _, c := range clusters {
			if c.conf.Name == p.Capture.Cluster && c.stored.in != p.Repository {
				another = c.stored.in
			}
		}
		if another != "" {
			l.fail("bring that one back to its address, with its id in repository-id; or give the snapshot up: stop the "+
				"daemon and move it away: mv "+strings.TrimSuffix(p.Path, "spool")+"* /elsewhere/",
				"%s, and repository %s is at the address: it is stored in no other", is, another)
			continue
		}
		l.warn("see the repository below; the daemon stores it as soon as that one works at its address",
			"%s: %s", is, p.Why())
	}
}
