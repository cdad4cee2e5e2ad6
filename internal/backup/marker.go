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

// MinRepositoryID is the least length of the id of a repository.
const MinRepositoryID = 16

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

// Marshal returns m as indented JSON with its seal.
func (m *Marker) Marshal() ([]byte, error) {
	raw, err := Seal(m, MaxMarkerBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", MarkerKey, err)
	}
	return raw, nil
}

// ParseMarker decodes and validates a marker. Its errors wrap [ErrCorrupt], but
// for another format, which is an [*UnknownFormatError].
func ParseMarker(raw []byte) (Marker, error) {
	if err := Unseal(raw, MarkerFormat, MaxMarkerBytes); err != nil {
		return Marker{}, err
	}
	var m Marker
	if err := json.Unmarshal(raw, &m); err != nil {
		return Marker{}, Corruptf("decode: %w", err)
	}
	if len(m.ID) < MinRepositoryID {
		return Marker{}, Corruptf("id %q: want at least %d characters", m.ID, MinRepositoryID)
	}
	return m, nil
}
