// Package record keeps what was last known of a cluster in a small file beside the
// spool, for the next process. The truth is in the repository: a record fills the time
// until that was read.
package record

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/notify"
)

// Format is the format of a record.
const Format = "backupd/record/v1"

// Record is what was last known of one cluster in one repository. Times are zero if
// the event never happened.
type Record struct {
	Format string `json:"format"`
	// Repository and Cluster are the names in the configuration. Both are empty for
	// what concerns no cluster alone.
	Repository string    `json:"repository"`
	Cluster    string    `json:"cluster"`
	WrittenAt  time.Time `json:"writtenAt"`
	// Address leads to the repository. A record of another address says nothing.
	Address string `json:"address,omitempty"`

	RepositoryID string            `json:"repositoryID,omitempty"`
	Since        time.Time         `json:"since,omitzero"`     // when the protection began
	Read         time.Time         `json:"read,omitzero"`      // when the repository was last read
	Confirmed    time.Time         `json:"confirmed,omitzero"` // when a verified snapshot last held everything
	Newest       backup.SnapshotID `json:"newest,omitempty"`   // the newest verified snapshot
	Revision     backup.Revision   `json:"revision,omitempty"` // of the newest verified snapshot
	Attempted    time.Time         `json:"attempted,omitzero"` // when a backup last began
	Pruned       time.Time         `json:"pruned,omitzero"`    // when a prune last succeeded
	Failing      time.Time         `json:"failing,omitzero"`   // since when runs of the backup fail
	Error        string            `json:"error,omitempty"`    // why the last try of the backup failed

	Notifications notify.Memory `json:"notifications"`
}

// encode returns the content of a file.
func encode(r Record) ([]byte, error) {
	r.Format = Format
	out, err := json.MarshalIndent(r, "", "  ")
	return append(out, '\n'), err
}

// decode reads the content of a file. It refuses one that is damaged, of another
// format, of another cluster, or from the future.
func decode(raw []byte, repository, cluster string, now time.Time) (*Record, error) {
	var head struct{ Format string }
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, backup.Corruptf("%v", err)
	}
	if head.Format != Format {
		return nil, fmt.Errorf("unknown format %q: want %s", head.Format, Format)
	}
	r := &Record{}
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, backup.Corruptf("%v", err)
	}
	if r.Repository != repository || r.Cluster != cluster {
		return nil, fmt.Errorf("it is of cluster %q in repository %q", r.Cluster, r.Repository)
	}
	if r.WrittenAt.After(now.Add(backup.Skew)) {
		return nil, fmt.Errorf("it was written at %v, in the future: a clock is wrong, or was",
			r.WrittenAt.UTC().Format(time.RFC3339))
	}
	for _, t := range []time.Time{r.Since, r.Read, r.Confirmed, r.Attempted, r.Pruned, r.Failing} {
		if t.After(r.WrittenAt.Add(backup.Skew)) {
			return nil, backup.Corruptf("it tells of %v, and was written before",
				t.UTC().Format(time.RFC3339))
		}
	}
	return r, nil
}
