package backup

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

const (
	// MaxSketchEntries bounds each list of a [Sketch].
	MaxSketchEntries = 256
	// NoLimit is the limit of a [Sketch] whose sample holds every live key.
	NoLimit = math.MaxUint64
)

// Sketch is a small part of the live keys of one database at its revision. Two
// databases of one history agree about each key that both know. docs/format.md
// specifies the hashes. The zero value knows nothing of any key; see IsZero.
type Sketch struct {
	// Limit: every live key whose hash is below it is in Sample. NoLimit: every
	// live key is.
	Limit uint64
	// Sample holds the live keys with the smallest hashes, in the order of the
	// hashes.
	Sample []SketchEntry
	// From: every live key that was written at this revision or later is in
	// Recent. 0: every live key is.
	From Revision
	// Recent holds the live keys that were written last, in the order of their
	// revisions. It may hold some that were written before From.
	Recent []SketchEntry
}

// SketchEntry is one live key.
type SketchEntry struct {
	Key uint64   // hash of the key
	Mod Revision // at which the key was written last
	// Create is when the key came into being: it stays while the key is overwritten. 0 is
	// that of the record that a revision bump leaves.
	Create Revision
	Digest uint64 // of the whole record: key, value, lease, version and revisions
}

// IsZero reports whether s knows nothing: the sketch of a database without keys is
// another one.
func (s *Sketch) IsZero() bool { return s.Limit == 0 && len(s.Recent) == 0 }

// Samples reports whether a live key with this hash must be in Sample.
func (s *Sketch) Samples(hash uint64) bool { return hash < s.Limit || s.Limit == NoLimit }

// Remembers reports whether a live key that was written at mod must be in Recent.
func (s *Sketch) Remembers(mod Revision) bool { return mod >= s.From && !s.IsZero() }

// ByHash orders the entries of [Sketch.Sample].
func ByHash(a, b SketchEntry) int {
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Mod, b.Mod), cmp.Compare(a.Create, b.Create),
		cmp.Compare(a.Digest, b.Digest))
}

// ByRevision orders the entries of [Sketch.Recent].
func ByRevision(a, b SketchEntry) int {
	return cmp.Or(cmp.Compare(a.Mod, b.Mod), ByHash(a, b))
}

// sketchJSON is the stored form. Each list is one string, or a manifest would
// have thousands of lines more.
type sketchJSON struct {
	Limit  string   `json:"limit,omitempty"` // hexadecimal, absent for NoLimit
	Sample []byte   `json:"sample"`
	From   Revision `json:"from"`
	Recent []byte   `json:"recent"`
}

// MarshalJSON implements [json.Marshaler].
func (s Sketch) MarshalJSON() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	out := sketchJSON{Sample: pack(s.Sample), From: s.From, Recent: pack(s.Recent)}
	if s.Limit != NoLimit {
		out.Limit = strconv.FormatUint(s.Limit, 16)
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements [json.Unmarshaler]. It accepts only what MarshalJSON
// may have written.
func (s *Sketch) UnmarshalJSON(raw []byte) (err error) {
	var in sketchJSON
	if err := json.Unmarshal(raw, &in); err != nil {
		return fmt.Errorf("sketch: %w", err)
	}
	if in.Sample == nil || in.Recent == nil {
		return errors.New("sketch: want sample and recent")
	}
	out := Sketch{Limit: NoLimit, From: in.From}
	if in.Limit != "" {
		out.Limit, err = strconv.ParseUint(in.Limit, 16, 64)
		if err != nil || strconv.FormatUint(out.Limit, 16) != in.Limit || out.Limit == NoLimit {
			return fmt.Errorf("sketch: limit %q: want a hexadecimal number below %x", in.Limit, uint64(NoLimit))
		}
	}
	if out.Sample, err = unpack(in.Sample); err != nil {
		return fmt.Errorf("sketch: sample: %w", err)
	}
	if out.Recent, err = unpack(in.Recent); err != nil {
		return fmt.Errorf("sketch: recent: %w", err)
	}
	if err := out.Validate(); err != nil {
		return err
	}
	*s = out
	return nil
}

// Validate checks the order and the bounds of the lists, and that they agree.
func (s *Sketch) Validate() error {
	if err := checkEntries(s.Sample, ByHash); err != nil {
		return fmt.Errorf("sketch: sample: %w", err)
	}
	if err := checkEntries(s.Recent, ByRevision); err != nil {
		return fmt.Errorf("sketch: recent: %w", err)
	}
	if n := len(s.Sample); n > 0 && !s.Samples(s.Sample[n-1].Key) {
		return fmt.Errorf("sketch: sample: hash %x is not below the limit %x", s.Sample[n-1].Key, s.Limit)
	}
	if s.From < 0 || s.From > 0 && len(s.Recent) == 0 {
		return fmt.Errorf("sketch: recent: %d keys do not begin at revision %d", len(s.Recent), s.From)
	}
	for _, e := range s.Sample {
		if _, ok := slices.BinarySearchFunc(s.Recent, e, ByRevision); !ok && s.Remembers(e.Mod) {
			return fmt.Errorf("sketch: key %x at revision %d is missing in recent", e.Key, e.Mod)
		}
	}
	for _, e := range s.Recent {
		if _, ok := slices.BinarySearchFunc(s.Sample, e, ByHash); !ok && s.Samples(e.Key) {
			return fmt.Errorf("sketch: key %x at revision %d is missing in sample", e.Key, e.Mod)
		}
	}
	return nil
}

func checkEntries(list []SketchEntry, order func(a, b SketchEntry) int) error {
	if len(list) > MaxSketchEntries {
		return fmt.Errorf("%d keys are more than %d", len(list), MaxSketchEntries)
	}
	for i, e := range list {
		if e.Mod < 1 || e.Create < 0 || e.Create > e.Mod {
			return fmt.Errorf("key %x was created at revision %d and written at %d", e.Key, e.Create, e.Mod)
		}
		if i > 0 && order(list[i-1], e) >= 0 {
			return fmt.Errorf("key %x at revision %d is there twice or not in order", e.Key, e.Mod)
		}
	}
	return nil
}

// pack appends for each entry the hash, the digest, and as varints the revision at which
// the key was written and how much earlier it was created.
func pack(list []SketchEntry) []byte {
	out := make([]byte, 0, len(list)*(8+8+5+3))
	for _, e := range list {
		out = binary.BigEndian.AppendUint64(out, e.Key)
		out = binary.BigEndian.AppendUint64(out, e.Digest)
		out = binary.AppendUvarint(out, uint64(e.Mod))
		out = binary.AppendUvarint(out, uint64(e.Mod-e.Create))
	}
	return out
}

func unpack(raw []byte) (list []SketchEntry, err error) {
	for len(raw) > 0 {
		if len(raw) < 8+8+1+1 {
			return nil, errors.New("it is cut off")
		}
		e := SketchEntry{Key: binary.BigEndian.Uint64(raw), Digest: binary.BigEndian.Uint64(raw[8:])}
		mod, rest, ok := uvarint(raw[16:])
		before, rest, ok2 := uvarint(rest)
		if !ok || !ok2 {
			return nil, fmt.Errorf("key %x: a revision is not a number", e.Key)
		}
		e.Mod, e.Create = Revision(mod), Revision(mod)-Revision(before)
		list, raw = append(list, e), rest
	}
	return list, nil
}

// uvarint reads a varint in its shortest form, so that one list has one spelling.
func uvarint(raw []byte) (value uint64, rest []byte, ok bool) {
	value, n := binary.Uvarint(raw)
	if n < 1 || value > math.MaxInt64 || n > 1 && raw[n-1] == 0 {
		return 0, nil, false
	}
	return value, raw[n:], true
}
