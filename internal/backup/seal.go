package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
)

// A marker, a manifest and a mark end in their seal, the SHA-256 of the whole file with
// zeros in the place of the seal:
//
//	{
//	  "format": "backupd/snapshot/v1",
//	  ...
//	  "seal": "<64 hexadecimal digits>"
//	}
//
// So no byte of such a file can change unseen: not a member's URL, which a
// restore would believe, nor a time, which retention would. The seal shows
// damage, not forgery: anyone can compute it.
const (
	sealHead = "\n  \"seal\": \""
	sealTail = "\"\n}\n"
	sealLen  = 2 * sha256.Size
)

// Seal returns v, a struct, as indented JSON with its seal.
func Seal(v any, limit int) ([]byte, error) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	raw = bytes.TrimSuffix(raw, []byte("\n}"))
	raw = fmt.Appendf(raw, ",%s%s%s", sealHead, strings.Repeat("0", sealLen), sealTail)
	if len(raw) > limit {
		return nil, fmt.Errorf("encode: %d bytes are more than %d", len(raw), limit)
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

// checkSeal reports whether raw has a seal. It returns an error if the seal does
// not fit the bytes.
func checkSeal(raw []byte) (has bool, err error) {
	raw = bytes.Clone(raw)
	place, ok := sealPlace(raw)
	if !ok {
		return false, nil
	}
	want := string(place)
	copy(place, strings.Repeat("0", sealLen))
	if got := Digest(sha256.Sum256(raw)).String(); got != want {
		return true, Corruptf("it is damaged: its seal is %s, its bytes make %s", want, got)
	}
	return true, nil
}

// UnknownFormatError is returned for an object of a format that this version
// does not read. It is not damage but the work of another version.
type UnknownFormatError struct{ Format, Known string }

func (e *UnknownFormatError) Error() string {
	return fmt.Sprintf("format %q is not known to this version (it reads %q)", e.Format, e.Known)
}

// Unseal checks the seal and the format of raw.
func Unseal(raw []byte, format string, limit int) error {
	if len(raw) > limit {
		return Corruptf("%d bytes are more than %d", len(raw), limit)
	}
	// The seal comes first, so that damage to the format is seen as damage.
	has, err := checkSeal(raw)
	if err != nil {
		return err
	}
	if err := checkFormat(raw, format); err != nil {
		return err
	}
	if !has {
		return Corruptf("it is damaged: it does not end in a seal")
	}
	return nil
}

func checkFormat(raw []byte, known string) error {
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return Corruptf("decode: %w", err)
	}
	switch head.Format {
	case known:
		return nil
	case "":
		return Corruptf("decode: no format")
	}
	return WithHint(&UnknownFormatError{head.Format, known}, "use a newer backupd")
}
