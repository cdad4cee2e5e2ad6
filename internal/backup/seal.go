package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
)

// A manifest ends in its seal, the SHA-256 of the whole file with zeros in the
// seal's own place:
//
//	{
//	  "format": "backupd/snapshot/v1",
//	  ...
//	  "seal": "<64 hexadecimal digits>"
//	}
//
// So no byte of a manifest can change unseen: not a member's URL, which a
// restore would believe, nor a time, which retention would. The seal shows
// damage, not forgery: anyone can compute it.
const (
	sealHead = "\n  \"seal\": \""
	sealTail = "\"\n}\n"
	sealLen  = 2 * sha256.Size
)

// sealed is a manifest as it is written.
type sealed struct {
	*Manifest
	Seal string `json:"seal"`
}

// Marshal validates m and returns it as indented JSON with its seal.
func (m *Manifest) Marshal() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(sealed{m, strings.Repeat("0", sealLen)}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	raw = append(raw, '\n')
	if len(raw) > MaxManifestBytes {
		return nil, fmt.Errorf("encode manifest: %d bytes are more than %d", len(raw), MaxManifestBytes)
	}
	place, _ := sealPlace(raw)
	copy(place, Digest(sha256.Sum256(raw)).String())
	return raw, nil
}

// sealPlace returns the digits of the seal of raw.
func sealPlace(raw []byte) ([]byte, bool) {
	from := len(raw) - len(sealTail) - sealLen
	if from < 0 || !bytes.HasSuffix(raw, []byte(sealTail)) || !bytes.HasSuffix(raw[:from], []byte(sealHead)) {
		return nil, false
	}
	return raw[from : from+sealLen], true
}

// checkSeal reports whether raw has a seal, and how it is broken.
func checkSeal(raw []byte) (has bool, err error) {
	raw = bytes.Clone(raw)
	place, ok := sealPlace(raw)
	if !ok {
		return false, nil
	}
	want := string(place)
	copy(place, strings.Repeat("0", sealLen))
	if got := Digest(sha256.Sum256(raw)).String(); got != want {
		return true, Corruptf("manifest is damaged: its seal is %s, its bytes make %s", want, got)
	}
	return true, nil
}

// UnknownFormatError is returned for a manifest of a format that this version
// does not read. It is not damage but the work of another version.
type UnknownFormatError struct{ Format string }

func (e *UnknownFormatError) Error() string {
	return fmt.Sprintf("manifest format %q is not known to this version (it reads %q)", e.Format, ManifestFormat)
}

// ParseManifest decodes and validates a manifest. Its errors wrap [ErrCorrupt],
// except for an [*UnknownFormatError].
func ParseManifest(raw []byte) (*Manifest, error) {
	if len(raw) > MaxManifestBytes {
		return nil, Corruptf("manifest of %d bytes: more than %d", len(raw), MaxManifestBytes)
	}
	// The seal comes first, so that damage to the format is seen as damage.
	has, err := checkSeal(raw)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(raw); err != nil {
		return nil, err
	}
	if !has {
		return nil, Corruptf("manifest is damaged: it does not end in a seal")
	}
	var m Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, Corruptf("decode manifest: %w", err)
	}
	if err := m.Validate(); err != nil {
		return nil, Corruptf("manifest: %w", err)
	}
	return &m, nil
}

func checkFormat(raw []byte) error {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Corruptf("decode manifest: %w", err)
	}
	switch head.Format {
	case ManifestFormat:
		return nil
	case "":
		return Corruptf("decode manifest: no format")
	}
	return WithHint(&UnknownFormatError{head.Format}, "use a newer backupd")
}
