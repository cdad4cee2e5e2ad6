package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// checkOldWAL refuses to replace data whose WAL is elsewhere, and notes where it may be.
// A server that finds its old WAL replays it over the restored data, without an error.
func (w *Work) checkOldWAL(t Target) error {
	member := filepath.Join(t.DataDir, "member")
	_, snap := os.Stat(filepath.Join(member, "snap"))
	bare := !hasSegments(filepath.Join(member, "wal"))
	apart := snap == nil && bare // the old server had it elsewhere
	if to, err := os.Readlink(filepath.Join(member, "wal")); err == nil && w.site.WALDir == "" {
		w.notef("%s/wal is a link to %s: the new WAL will not be there, but in the data directory itself", member, to)
	}
	const risk = "a server that finds its old WAL replays it over the restored data"
	switch {
	case t.givenWAL && t.WALDir != "": // the usual place says nothing of one elsewhere
		if apart && t.wal != nil && len(t.wal.Old) == 0 {
			w.notef("neither %s nor %s has the WAL of the old data: --wal-dir must be that of the server, for %s",
				t.DataDir, t.WALDir, risk)
		}
	case apart:
		return t.walElsewhere(risk, w.site.OutputDir != "" || len(w.site.Places) > 0)
	case bare && w.site.Start == "" && !t.givenWAL: // the files that start the server have no such place
		w.notef("if etcd is started with --wal-dir, give the same --wal-dir here: " +
			"an old WAL would be replayed over the restored data")
	}
	return nil
}

func (t Target) walElsewhere(risk string, all bool) error {
	err := &backup.RefusedError{Override: "--wal-dir", Reason: fmt.Sprintf(
		"%s has the data of a server and no WAL in member/wal: its WAL is elsewhere, and %s", t.DataDir, risk)}
	if all {
		err.Override = ""
		return backup.WithHint(err, "restore this member alone, with --name %s, --data-dir and the server's --wal-dir; "+
			"or move %s away yourself, and the WAL of its server, too", t.Member.Name, t.DataDir)
	}
	return backup.WithHint(err, "give the server's --wal-dir (ETCD_WAL_DIR, wal-dir in its configuration), and the WAL "+
		"there is moved aside, too; if it has none, its WAL is lost: move %s away yourself", t.DataDir)
}

// hasSegments reports whether a WAL is in the folder.
func hasSegments(wal string) bool {
	entries, _ := os.ReadDir(wal) // without it there is none
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) == ".wal" })
}

// notef adds a note, once for all members.
func (w *Work) notef(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(w.notes, note) {
		w.notes = append(w.notes, note)
	}
}
