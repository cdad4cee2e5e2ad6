package repository

import (
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Row is the snapshot in a listing for machines. The caller adds the reason of
// its pin if that was read.
func (i *Item) Row(now time.Time) backup.Row {
	row := backup.Row{
		Cluster: i.Cluster, ID: i.ID, Time: i.ID.Time(), Revision: i.ID.Revision(), Timeline: i.Timeline,
		State:  i.State(),
		Future: i.Future(now), StoredBytes: i.StoredBytes(), Encoding: i.Encoding(), Pinned: i.Pinned(),
	}
	var defect *backup.DefectError
	if errors.As(i.Defect(), &defect) {
		row.Reason = fmt.Sprintf("%s: %v", defect.Kind, defect.Err) // the row is about one snapshot: no key
	}
	return row
}

// RowOf is the row of a snapshot that was stored a moment ago.
func RowOf(m *backup.Manifest, now time.Time) backup.Row {
	r := Read{Item: newItem(m), Manifest: m}
	return r.Row(now)
}

// LastRead returns when a verification last found the snapshot whole, or zero, and whether
// it read the stored bytes only.
func LastRead(i *Item) (at time.Time, storedOnly bool) {
	for _, k := range i.Verifications {
		if k.Time().After(at) {
			at, storedOnly = k.Time(), k.Mark == backup.MarkReadBack
		}
	}
	return at, storedOnly
}

// Row is the row of the item with the facts of its manifest.
func (r *Read) Row(now time.Time) backup.Row {
	row := r.Item.Row(now)
	switch {
	case r.Err != nil:
		row.State, row.Reason = backup.Unreadable, r.Err.Error()
		return row
	case row.State == backup.Suspect:
		row.Reason = r.Manifest.Suspect[0]
	case row.State == backup.Unconfirmed:
		row.Reason = r.Manifest.Unconfirmed[0]
	}
	row.PlainBytes = r.Manifest.Plain.Bytes
	return row
}
