package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// MarkFormat is the format a mark of this version declares.
const MarkFormat = "backupd/mark/v1"

// MarkKind says what a mark states.
type MarkKind string

// Kinds of marks.
const (
	MarkPin     MarkKind = "pin"     // the snapshot must stay
	MarkDamaged MarkKind = "damaged" // a verification found the stored snapshot damaged
	// MarkRemoved means that backupd removed the snapshot: it was not lost.
	MarkRemoved MarkKind = "removed"
	// MarkLitter means that no manifest named the data. It is about data, not about a
	// snapshot.
	MarkLitter MarkKind = "litter"
	// MarkVerified means that a verification read the whole snapshot and found it as it
	// was taken; MarkReadBack that it found the stored bytes so, and could not decode them.
	// Their names have a time: see [Key].
	MarkVerified MarkKind = "verified"
	MarkReadBack MarkKind = "read-back"
)

// Dated reports whether the names of marks of that kind have a time, so that a snapshot can
// have several.
func (k MarkKind) Dated() bool { return k == MarkVerified || k == MarkReadBack }

var markKindPattern = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)

const (
	// MaxMarkBytes bounds what a reader accepts as a mark.
	MaxMarkBytes = 16 << 10
	// MaxReason is the most characters that the reason of a mark may have.
	MaxReason = 500
)

// Mark is a small object beside a snapshot, or beside data, that states something about it. It is
// written once and never changed. Deleting it takes the statement back. Its
// presence counts; its content explains it to people.
type Mark struct {
	Format string     `json:"format"`
	Kind   MarkKind   `json:"kind"`
	ID     SnapshotID `json:"id,omitempty"`
	// Data is what a mark of litter is about, which has no ID.
	Data   DataName  `json:"data,omitempty"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	// Manifest is the key of the manifest, in a mark of removal.
	Manifest string `json:"manifest,omitempty"`
	// Defect is the kind of damage, in a mark of damage.
	Defect DefectKind `json:"defect,omitempty"`
}

// Validate checks that m is complete and does not contradict itself.
func (m *Mark) Validate() error {
	if m.Format != MarkFormat {
		return fmt.Errorf("format %q: want %q", m.Format, MarkFormat)
	}
	if !markKindPattern.MatchString(string(m.Kind)) {
		return fmt.Errorf("kind of mark %q: want letters and dashes", m.Kind)
	}
	if err := m.validateSubject(); err != nil {
		return err
	}
	return CheckReason(m.Reason)
}

func (m *Mark) validateSubject() error {
	if m.Kind == MarkLitter {
		if m.ID != "" {
			return fmt.Errorf("a mark of litter is about data, not about snapshot %s", m.ID)
		}
		_, err := ParseDataName(string(m.Data))
		return err
	}
	if m.Data != "" {
		return fmt.Errorf("a mark %s is about a snapshot, not about data %s", m.Kind, m.Data)
	}
	_, err := ParseSnapshotID(string(m.ID))
	return err
}

// CheckReason reports why text cannot be the reason of a mark, or nil.
func CheckReason(text string) error {
	switch n := len([]rune(text)); {
	case strings.TrimSpace(text) == "":
		return errors.New("a mark needs a reason")
	case n > MaxReason:
		return fmt.Errorf("reason of %d characters: more than %d", n, MaxReason)
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("the reason holds control characters: want one line of text")
	}
	return nil
}

// ReasonOf turns an error into the reason of a mark: one line of at most
// [MaxReason] characters.
func ReasonOf(err error) string {
	line := []rune(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, err.Error()))
	return string(line[:min(len(line), MaxReason)])
}

// Marshal validates m and returns it as indented JSON with its seal.
func (m *Mark) Marshal() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return Seal(m, MaxMarkBytes)
}

// ParseMark decodes and validates a mark. Its errors wrap [ErrCorrupt], except
// for an [*UnknownFormatError].
func ParseMark(raw []byte) (*Mark, error) {
	var m Mark
	if err := Unseal(raw, MarkFormat, MaxMarkBytes); err != nil {
		return nil, fmt.Errorf("mark: %w", err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, Corruptf("decode mark: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, Corruptf("mark: %w", err)
	}
	return &m, nil
}
