package backup

import (
	"encoding/json"
	"fmt"
	"time"
)

// MarkerFormat is the format of the repositories this version reads and writes.
const MarkerFormat = "backupd/repository/v1"

// MaxMarkerBytes bounds what a reader accepts as a marker.
const MaxMarkerBytes = 64 << 10

// Marker is the object [MarkerKey]: it makes a prefix of a store a repository of
// backupd.
type Marker struct {
	Format string `json:"format"`
	// ID is random and never changes: it tells two addresses of one repository
	// from two repositories.
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
}

// NewMarker makes the marker of a new repository.
func NewMarker(now time.Time) Marker {
	return Marker{Format: MarkerFormat, ID: RandomName(26), CreatedAt: now.UTC().Truncate(time.Second)}
}

// Marshal returns m as indented JSON.
func (m *Marker) Marshal() ([]byte, error) {
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", MarkerKey, err)
	}
	return append(raw, '\n'), nil
}

// ParseMarker decodes and validates a marker. Its errors wrap [ErrCorrupt], but
// for another format, which is refused by name.
func ParseMarker(raw []byte) (Marker, error) {
	// The format is checked first: in a newer format the other fields may mean
	// anything.
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Marker{}, Corruptf("decode: %w", err)
	}
	if head.Format == "" {
		return Marker{}, Corruptf("no format")
	}
	if head.Format != MarkerFormat {
		return Marker{}, WithHint(
			fmt.Errorf("repository format %q is not known to this version (it reads %q)", head.Format, MarkerFormat),
			"use a newer backupd")
	}
	var m Marker
	if err := json.Unmarshal(raw, &m); err != nil {
		return Marker{}, Corruptf("decode: %w", err)
	}
	if len(m.ID) < 16 {
		return Marker{}, Corruptf("id %q: want at least 16 characters", m.ID)
	}
	return m, nil
}
