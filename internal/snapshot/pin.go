package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
	"unicode"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// pinFormat is the format of pins.
const pinFormat = "backupd/pin/v1"

const (
	maxPinReason = 500 // characters
	maxPinBytes  = 16 << 10
)

// PinRecord is the object that keeps a snapshot from being removed. That it is
// there is what counts; what it says is for people.
type PinRecord struct {
	Format   string            `json:"format"`
	ID       backup.SnapshotID `json:"id"`
	Reason   string            `json:"reason"`
	PinnedAt time.Time         `json:"pinnedAt"`
	By       string            `json:"by,omitempty"`
}

// PinnedError is returned where a snapshot is pinned already.
type PinnedError struct{ PinRecord }

func (e *PinnedError) Error() string {
	return fmt.Sprintf("snapshot %s is pinned: %s", e.ID, e.Reason)
}

// Is makes it match [fs.ErrExist].
func (e *PinnedError) Is(target error) bool { return target == fs.ErrExist }

// NotPinnedError is returned where there is no pin to remove.
type NotPinnedError struct{ ID backup.SnapshotID }

func (e *NotPinnedError) Error() string { return fmt.Sprintf("snapshot %s is not pinned", e.ID) }

// Is makes it match [fs.ErrNotExist].
func (e *NotPinnedError) Is(target error) bool { return target == fs.ErrNotExist }

func pinKey(e Entry) string {
	return backup.Key{Cluster: e.Cluster, Kind: backup.KindPin, ID: e.ID}.String()
}

// Pin makes a snapshot stay until [Unpin], whatever the retention policy says.
// The reason is for whoever asks later; by says who it was, as far as that is
// known. It returns a [*NotFoundError] if there is no such snapshot, and a
// [*PinnedError] if it is pinned already.
func Pin(ctx context.Context, s storage.Store, e Entry, reason, by string) error {
	if err := checkPinReason(reason); err != nil {
		return err
	}
	if err := stillThere(ctx, s, e); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(PinRecord{pinFormat, e.ID, reason, time.Now().UTC().Truncate(time.Second), by}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode pin: %w", err)
	}
	err = s.Create(ctx, pinKey(e), bytes.NewReader(append(raw, '\n')))
	if errors.Is(err, fs.ErrExist) {
		if p, ferr := FindPin(ctx, s, e); ferr == nil && p != nil {
			return &PinnedError{*p}
		}
	}
	if err != nil {
		return fmt.Errorf("create pin: %w", err)
	}
	// A prune that had looked for the pin before may be deleting now. It looks
	// again after it deleted the manifest: one of the two sees the other.
	if err := stillThere(ctx, s, e); err != nil {
		return fmt.Errorf("pinned too late: %w", err)
	}
	return nil
}

func checkPinReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return errors.New("a pin needs a reason")
	case len([]rune(reason)) > maxPinReason:
		return fmt.Errorf("reason of %d characters: more than %d", len([]rune(reason)), maxPinReason)
	case strings.ContainsFunc(reason, unicode.IsControl):
		return errors.New("the reason holds control characters: want one line of text")
	}
	return nil
}

// stillThere returns a [*NotFoundError] if the manifest is gone.
func stillThere(ctx context.Context, s storage.Store, e Entry) error {
	_, err := s.Stat(ctx, e.Key())
	if errors.Is(err, fs.ErrNotExist) {
		return &NotFoundError{string(e.ID)}
	}
	if err != nil {
		return fmt.Errorf("look for manifest: %w", err)
	}
	return nil
}

// Unpin removes the pin of a snapshot, which need not be there any more. It
// returns a [*NotPinnedError] if there is no pin.
func Unpin(ctx context.Context, s storage.Store, e Entry) error {
	p, err := FindPin(ctx, s, e)
	if err != nil {
		return err
	}
	if p == nil {
		return &NotPinnedError{e.ID}
	}
	if err := s.Delete(ctx, pinKey(e)); err != nil {
		return fmt.Errorf("delete pin: %w", err)
	}
	return nil
}

// FindPin returns the pin of a snapshot, or nil if it has none. One that
// cannot be understood pins all the same: its reason tells what is wrong.
func FindPin(ctx context.Context, s storage.Store, e Entry) (*PinRecord, error) {
	r, err := s.Open(ctx, pinKey(e), 0, maxPinBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for pin: %w", err)
	}
	raw, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("read pin: %w", err)
	}
	var p PinRecord
	if err := json.Unmarshal(raw, &p); err != nil || p.Format != pinFormat || p.ID != e.ID || p.Reason == "" {
		return &PinRecord{Format: pinFormat, ID: e.ID, Reason: "the pin cannot be read"}, nil
	}
	return &p, nil
}

// Pins returns the pins of a cluster by the snapshots they are of, of which some
// may be gone.
func Pins(ctx context.Context, s storage.Store, cluster string) (map[backup.SnapshotID]PinRecord, error) {
	out := map[backup.SnapshotID]PinRecord{}
	for obj, err := range s.List(ctx, backup.PinPrefix(cluster), "") {
		if err != nil {
			return nil, fmt.Errorf("list pins: %w", err)
		}
		k, err := backup.ParseKey(obj.Key)
		if err != nil {
			continue // not ours
		}
		p, err := FindPin(ctx, s, entryOf(k))
		if err != nil {
			return nil, err
		}
		if p != nil {
			out[k.ID] = *p
		}
	}
	return out, nil
}
