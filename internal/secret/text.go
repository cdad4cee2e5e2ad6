package secret

import "log/slog"

// Text is a text that must not be shown: it prints as a mask. To use it, convert it to
// a string.
type Text string

// String returns a mask, or nothing for an empty text.
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return Mask
}

// GoString returns the same as String, for %#v.
func (t Text) GoString() string { return t.String() }

// MarshalText returns the same as String, for JSON and other encodings.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue returns the same as String.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }
