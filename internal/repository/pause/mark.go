// Package pause states that the schedules of a cluster rest until a time.
package pause

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Format is the format a pause of this version declares.
const Format = "backupd/pause/v1"

// Longest is how long a pause may be. A mark that says more counts for nothing: a clock was
// wrong, or nobody would remember it.
const Longest = 30 * 24 * time.Hour

// Pause states why, and until when, the schedules of a cluster rest.
type Pause struct {
	Format  string    `json:"format"`
	Cluster string    `json:"cluster"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`    // when it was made; in whole seconds, UTC
	Until   time.Time `json:"until"` // its end; likewise
	By      string    `json:"by,omitempty"`
}

// String says until when the cluster is paused, by whom and why.
func (p *Pause) String() string {
	text := "paused until " + p.Until.UTC().Format(time.RFC3339)
	if p.By != "" {
		text += " by " + p.By
	}
	return text + ": " + p.Reason
}

// Validate checks that p is complete and does not contradict itself.
func (p *Pause) Validate() error {
	if p.Format != Format {
		return fmt.Errorf("format %q: want %q", p.Format, Format)
	}
	if err := CheckLength(p.At, p.Until); err != nil {
		return err
	}
	if err := backup.CheckReason(p.Reason); err != nil {
		return err
	}
	return backup.CheckClusterName(p.Cluster)
}

// CheckLength reports why a pause cannot last from one time to the other, or nil.
func CheckLength(at, until time.Time) error {
	switch d := until.Sub(at); {
	case d <= 0:
		return errors.New("a pause ends after its begin")
	case d > Longest:
		return fmt.Errorf("a pause lasts at most %d days", Longest/(24*time.Hour))
	}
	return nil
}

// Marshal validates p and returns it as indented JSON with its seal.
func (p *Pause) Marshal() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return backup.Seal(p, backup.MaxMarkBytes)
}

// Parse decodes and validates a pause. Its errors wrap [backup.ErrCorrupt], except for an
// [*backup.UnknownFormatError].
func Parse(raw []byte) (*Pause, error) {
	if err := backup.Unseal(raw, Format, backup.MaxMarkBytes); err != nil {
		return nil, fmt.Errorf("pause: %w", err)
	}
	var p Pause
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, backup.Corruptf("decode pause: %w", err)
	}
	if err := p.Validate(); err != nil {
		return nil, backup.Corruptf("pause: %w", err)
	}
	return &p, nil
}
