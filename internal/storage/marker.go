package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// MarkerFormat is the format of the repositories this version reads and writes.
const MarkerFormat = "backupd/repository/v1"

const maxMarkerBytes = 64 << 10

// Marker is the object [backup.MarkerKey]: it makes a prefix of a store a
// repository of backupd.
type Marker struct {
	Format string `json:"format"`
	// ID is random and never changes. It shows whether two addresses lead to one
	// repository or to two.
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
}

// OpenRepository reads the marker of the repository at the root of s. If there
// is none the error wraps fs.ErrNotExist. A marker that does not parse is
// backup.ErrCorrupt. The error for another format names it.
func OpenRepository(ctx context.Context, s Store) (Marker, error) {
	raw, err := readMarker(ctx, s)
	if errors.Is(err, fs.ErrNotExist) {
		return Marker{}, fmt.Errorf("not a backupd repository: %w", err)
	}
	if err != nil {
		return Marker{}, fmt.Errorf("open repository: %w", err)
	}
	m, err := parseMarker(raw)
	if err != nil {
		return Marker{}, fmt.Errorf("open repository: %s: %w", backup.MarkerKey, err)
	}
	return m, nil
}

// InitRepository makes the root of s a repository, unless it is one already,
// and returns its marker either way.
func InitRepository(ctx context.Context, s Store) (Marker, error) {
	// Looking first is more than a shortcut: a store that silently ignores
	// create-if-absent would give an old repository a new identity.
	m, err := OpenRepository(ctx, s)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	m = Marker{Format: MarkerFormat, ID: backup.RandomName(26), CreatedAt: time.Now().UTC().Truncate(time.Second)}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return Marker{}, fmt.Errorf("encode %s: %w", backup.MarkerKey, err)
	}
	err = s.Create(ctx, backup.MarkerKey, bytes.NewReader(append(raw, '\n')))
	if errors.Is(err, fs.ErrExist) {
		return OpenRepository(ctx, s) // another process was quicker
	}
	if err != nil {
		return Marker{}, fmt.Errorf("create repository: %w", err)
	}
	return m, nil
}

func readMarker(ctx context.Context, s Store) ([]byte, error) {
	r, err := s.Open(ctx, backup.MarkerKey, 0, maxMarkerBytes)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r)
	return raw, errors.Join(err, r.Close())
}

func parseMarker(raw []byte) (Marker, error) {
	// The format comes before the rest: a newer one may use the other fields for
	// anything.
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Marker{}, backup.Corruptf("decode: %w", err)
	}
	if head.Format == "" {
		return Marker{}, backup.Corruptf("no format")
	}
	if head.Format != MarkerFormat {
		return Marker{}, backup.WithHint(
			fmt.Errorf("repository format %q is not known to this version (it reads %q)", head.Format, MarkerFormat),
			"use a newer backupd")
	}
	var m Marker
	if err := json.Unmarshal(raw, &m); err != nil {
		return Marker{}, backup.Corruptf("decode: %w", err)
	}
	if len(m.ID) < 16 {
		return Marker{}, backup.Corruptf("id %q: want at least 16 characters", m.ID)
	}
	return m, nil
}
