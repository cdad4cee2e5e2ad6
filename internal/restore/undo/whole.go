package undo

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

// checkWhole refuses old data of which a part is missing or would stay aside: a server that
// finds a database and the WAL of another one replays it, without an error.
func checkWhole(site restore.Site, g publish.Group, old publish.Old) error {
	data := g[0]
	at := old.At[data.Dir]
	if at == "" || !isDir(filepath.Join(at, "member")) {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"of the data of %s nothing was moved aside at that time, or no data of a member", data.Dir)},
			"what there is of it is in %s: look at it, and move it yourself", folders(old))
	}
	usual := filepath.Join("member", "wal")
	const risk = "a server that finds the WAL of other data replays it"
	if site.WALDir == "" {
		for dir, what := range map[string]string{at: "old", data.Dir: "restored"} {
			if isDir(filepath.Join(dir, "member", "snap")) && !hasSegments(filepath.Join(dir, usual)) {
				return backup.WithHint(&backup.RefusedError{Override: "--wal-dir", Reason: fmt.Sprintf(
					"%s has the %s data of a server and no WAL in member/wal: its WAL is elsewhere, and %s", dir, what, risk)},
					"give the --wal-dir of the restore; if there was none, say so by --wal-dir=%s",
					filepath.Join(data.Dir, usual))
			}
		}
		return nil
	}
	wal, err := publish.Resolve(site.WALDir)
	if err != nil {
		return err
	}
	inside, err := filepath.Rel(data.Dir, wal)
	if err != nil {
		return err
	}
	if inside == usual || old.At[wal] != "" || hasSegments(filepath.Join(at, usual)) ||
		filepath.IsLocal(inside) && hasSegments(filepath.Join(at, inside)) {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the WAL of the old data in %s is neither there nor was it moved out of %s, and %s", at, wal, risk)},
		"give the --wal-dir of the restore")
}

// strays names what would be moved with the restored data and is not etcd's, as far as that
// is little, and refuses the rest.
func (w *Work) strays(site restore.Site, g publish.Group) error {
	wal := ""
	if abs, err := publish.Resolve(site.WALDir); err == nil && site.WALDir != "" {
		if rel, err := filepath.Rel(g[0].Dir, abs); err == nil && filepath.IsLocal(rel) {
			wal, _, _ = strings.Cut(rel, string(filepath.Separator))
		}
	}
	for i, f := range g {
		foreign := inuse.ForeignWAL(f.Dir, f.Old)
		if i == 0 {
			foreign = inuse.ForeignData(f.Dir, f.Old, wal)
		}
		if foreign == nil {
			continue
		}
		if !foreign.Few() {
			return foreign.Refusal()
		}
		w.Done.Notes = append(w.Done.Notes, fmt.Sprintf(
			"in %s there is what is not etcd's, and it is moved aside with the restored data: %s", f.Dir, foreign.List()))
	}
	return nil
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// hasSegments reports whether a WAL is in the folder.
func hasSegments(wal string) bool {
	entries, _ := os.ReadDir(wal) // without it there is none
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return filepath.Ext(e.Name()) == ".wal" })
}
