package host

import (
	"fmt"
	"strings"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// Spool is what is asked about a spool.
type Spool struct {
	Files     disk.FileSystem
	Reserve   int64    // bytes that stay free
	Database  int64    // bytes of the largest database that is received there; 0 if not known
	Endpoints []string // of all clusters
}

// Report says that the spool can take the room of an etcd on this host, or "" if none is
// seen. all is what [Find] found.
func Report(s Spool, all []Data) (text, hint string) {
	beside := Beside(s.Files, all)
	if len(beside) == 0 {
		return s.unseen(all)
	}
	database := s.Database
	for _, d := range beside {
		database = max(database, d.Database)
	}
	text = fmt.Sprintf("it shares a file system with an etcd (%s): %s, ", paths(beside), s.free())
	return text + s.left(database),
		"name a folder on another file system in daemon.spool.folder; if there is none, let daemon.spool.min-free be " +
			"more than etcd may grow by while the store is away"
}

// ReportRepository says that a repository in a folder shares the file system of an etcd on
// this host, or "" if none is seen. reserve is in bytes, all is what [Find] found.
func ReportRepository(folder string, fs disk.FileSystem, reserve int64, all []Data) (text, hint string) {
	beside := Beside(fs, all)
	if len(beside) == 0 {
		return "", ""
	}
	keep := disk.Size(reserve) + " stay free for it: no snapshot is stored that would take them"
	if reserve == 0 {
		keep = "none stay free for it: snapshots can fill the disk, and then etcd ends"
	}
	return fmt.Sprintf("the folder %s shares a file system with an etcd (%s): %s are free and %s",
			folder, paths(beside), disk.Size(fs.Free), keep),
		"put the repository on another file system; if there is none, let the repository's file.min-free be more than " +
			"etcd may grow by"
}

// paths names a few folders.
func paths(all []Data) string {
	var out []string
	for _, d := range all {
		out = append(out, d.Path)
	}
	if more := len(out) - 3; more > 0 {
		out = append(out[:3], fmt.Sprintf("%d more", more))
	}
	return strings.Join(out, ", ")
}

// unseen is for an etcd that answers at an address of this host, and whose data this
// process cannot see, as in a container.
func (s Spool) unseen(all []Data) (text, hint string) {
	for _, ep := range s.Endpoints {
		if IsLocal(ep) && len(all) == 0 {
			return fmt.Sprintf("an etcd of this host answers at %s, and its data is not seen from here: "+
					"if the spool shares its file system, %s, %s", ep, s.free(), s.left(s.Database)),
				"make sure that the spool lies on another file system, or that daemon.spool.min-free is more than etcd " +
					"may grow by while the store is away"
		}
	}
	return "", ""
}

func (s Spool) free() string {
	if s.Reserve == 0 {
		return disk.Size(s.Files.Free) + " are free and nothing stays free for it, because daemon.spool.min-free is 0: " +
			"spools may fill its disk, and then it ends"
	}
	return fmt.Sprintf("%s are free and %s stay free for it", disk.Size(s.Files.Free), disk.Size(s.Reserve))
}

func (s Spool) left(database int64) string {
	if database == 0 {
		return "and how much one spool takes is not known"
	}
	left := s.Files.Free - database
	text := fmt.Sprintf("and after one spool of the largest database (%s) %s would be left",
		disk.Size(database), disk.Size(left))
	switch {
	case left < s.Reserve:
		return text + ", less than must stay free: no backup begins"
	case s.Reserve > 0:
		return text + ", which is enough"
	}
	return text
}
