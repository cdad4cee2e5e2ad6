// Package lineage holds the statement that a timeline follows those before it, as it is stored.
package lineage

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Format is the format an acceptance of this version declares.
const Format = "backupd/acceptance/v1"

// Acceptance states that a timeline may follow those before it: an operator says so,
// or the restore that made the cluster. It names either the timeline or, before the
// first snapshot of it exists, the id of its cluster.
type Acceptance struct {
	Format    string          `json:"format"`
	Timeline  string          `json:"timeline,omitempty"`
	ClusterID backup.MemberID `json:"clusterID,omitempty"`
	// Restored is what the cluster with that id was made of; nil if nobody knows.
	Restored *Restored `json:"restored,omitempty"`
	// Begun is the restore, if other hosts have to restore their members, too.
	Begun  *Begun    `json:"begun,omitempty"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	// Ended holds the furthest snapshot that each other timeline had then.
	Ended map[string]Place `json:"ended,omitempty"`
}

// Place is the place of a snapshot in its timeline.
type Place struct {
	Snapshot backup.SnapshotID `json:"snapshot"`
	Index    uint64            `json:"index"` // the last raft entry in its database
}

// Restored is the snapshot that a cluster was restored from.
type Restored struct {
	Snapshot backup.SnapshotID `json:"snapshot"`
	Revision backup.Revision   `json:"revision"`
	Sketch   backup.Sketch     `json:"sketch"`
}

// Begun is a restore of some members of a new cluster, as its first host has begun it: what
// the other hosts need for theirs.
type Begun struct {
	Host   string `json:"host"`   // which has begun it
	Member string `json:"member"` // that is restored there
	Dir    string `json:"dir"`    // its data directory
	// Replaces is true if there was data before, which is moved aside.
	Replaces bool `json:"replaces,omitempty"`
	// Token and InitialCluster are those of the new cluster, in the form of etcd's flags.
	Token          string `json:"token"`
	InitialCluster string `json:"initialCluster"`
	// BumpRevision and ClearAlarms are the changes to the database.
	BumpRevision uint64 `json:"bumpRevision,omitempty"`
	ClearAlarms  bool   `json:"clearAlarms,omitempty"`
}

// maxBegun is the length of a text in a [Begun].
const maxBegun = 64 << 10

// validate refuses what is no text of one line: it is shown, and is a part of commands.
func (b *Begun) validate() error {
	for name, text := range map[string]string{
		"host": b.Host, "member": b.Member, "dir": b.Dir, "token": b.Token, "initialCluster": b.InitialCluster,
	} {
		if text == "" || len(text) > maxBegun || !utf8.ValidString(text) || strings.ContainsFunc(text, notShown) {
			return fmt.Errorf("begun: %s: want one line of text", name)
		}
	}
	return nil
}

func notShown(r rune) bool { return !unicode.IsPrint(r) }

// Validate checks that a is complete and does not contradict itself.
func (a *Acceptance) Validate() error {
	if a.Format != Format {
		return fmt.Errorf("format %q: want %q", a.Format, Format)
	}
	if (a.Timeline == "") == (a.ClusterID == 0) {
		return errors.New("want either a timeline or a cluster id")
	}
	if a.Timeline != "" {
		if err := backup.CheckTimeline(a.Timeline); err != nil {
			return err
		}
	}
	for timeline, place := range a.Ended {
		if err := backup.CheckTimeline(timeline); err != nil {
			return err
		}
		if _, err := backup.ParseSnapshotID(string(place.Snapshot)); err != nil {
			return err
		}
	}
	if a.Restored != nil {
		if _, err := backup.ParseSnapshotID(string(a.Restored.Snapshot)); err != nil {
			return err
		}
	}
	if a.Begun != nil {
		if a.Restored == nil || a.ClusterID == 0 {
			return errors.New("a restore was begun: want what the cluster is made of")
		}
		if err := a.Begun.validate(); err != nil {
			return err
		}
	}
	return backup.CheckReason(a.Reason)
}

// ObjectKey is the parsed name of the acceptance in the part of a cluster.
func (a *Acceptance) ObjectKey(cluster string) backup.Key {
	return backup.Key{Cluster: cluster, Kind: backup.KindAcceptance, Timeline: a.Timeline, ClusterID: a.ClusterID}
}

// Marshal validates a and returns it as indented JSON with its seal.
func (a *Acceptance) Marshal() ([]byte, error) {
	if err := a.Validate(); err != nil {
		return nil, err
	}
	return backup.Seal(a, backup.MaxManifestBytes)
}

// Parse decodes and validates an acceptance. Its errors wrap [backup.ErrCorrupt],
// except for an [*backup.UnknownFormatError].
func Parse(raw []byte) (*Acceptance, error) {
	if err := backup.Unseal(raw, Format, backup.MaxManifestBytes); err != nil {
		return nil, fmt.Errorf("acceptance: %w", err)
	}
	var a Acceptance
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, backup.Corruptf("decode acceptance: %w", err)
	}
	if err := a.Validate(); err != nil {
		return nil, backup.Corruptf("acceptance: %w", err)
	}
	return &a, nil
}
