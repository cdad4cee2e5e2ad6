package storage

import (
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf8"
)

const (
	maxKeyBytes     = 1024 // S3's limit, its prefix included
	maxSegmentBytes = 255  // NAME_MAX of the usual file systems
)

// ListStart helps to implement [Store.List], because services differ in the keys
// that they list after a key without the prefix. The listing begins after start,
// which is empty or begins with prefix. If possible is false it is empty.
func ListStart(prefix, after string) (start string, possible bool) {
	switch {
	case strings.HasPrefix(after, prefix):
		return after, true
	case after < prefix:
		return "", true
	}
	return "", false
}

// CheckKey reports why key cannot name an object in any store, or nil. A key
// is one or more segments joined by single slashes; a segment is neither "."
// nor ".." and holds no control characters. Errors wrap fs.ErrInvalid.
func CheckKey(key string) error {
	switch {
	case key == "":
		return fmt.Errorf("key is empty: %w", fs.ErrInvalid)
	case len(key) > maxKeyBytes:
		return fmt.Errorf("key of %d bytes: more than %d: %w", len(key), maxKeyBytes, fs.ErrInvalid)
	case !utf8.ValidString(key):
		return fmt.Errorf("key %q: not UTF-8: %w", key, fs.ErrInvalid)
	}
	for _, r := range key {
		if r < ' ' || r == 0x7f || r == '\\' {
			return fmt.Errorf("key %q: control character or backslash: %w", key, fs.ErrInvalid)
		}
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return fmt.Errorf("key %q: empty segment: %w", key, fs.ErrInvalid)
		case segment == "." || segment == "..":
			return fmt.Errorf("key %q: segment %q: %w", key, segment, fs.ErrInvalid)
		case len(segment) > maxSegmentBytes:
			return fmt.Errorf("key %q: segment of more than %d bytes: %w", key, maxSegmentBytes, fs.ErrInvalid)
		}
	}
	return nil
}
