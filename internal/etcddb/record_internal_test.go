package etcddb

import (
	"bytes"
	"testing"
)

func TestParseRecordKey(t *testing.T) {
	for _, k := range [][]byte{appendRevision(nil, 1), append(appendRevision(nil, 1<<62), 't')} {
		if _, err := parseRecordKey(k); err != nil {
			t.Errorf("parseRecordKey(%x): %v", k, err)
		}
	}
	good := appendRevision(nil, 7)
	for name, k := range map[string][]byte{
		"Empty":        {},
		"Short":        good[:16],
		"Long":         append(bytes.Clone(good), "tt"...),
		"WrongMark":    append(bytes.Clone(good), 'x'),
		"NoSeparator":  bytes.ReplaceAll(good, []byte("_"), []byte("-")),
		"NegativeMain": append([]byte{0x80}, good[1:]...),
		"NegativeSub":  append(bytes.Clone(good[:9]), 0xff, 0, 0, 0, 0, 0, 0, 0),
		"RevisionZero": appendRevision(nil, 0),
	} {
		if rk, err := parseRecordKey(k); err == nil {
			t.Errorf("%s: parseRecordKey(%x) = %v, want an error", name, k, rk)
		}
	}
}
