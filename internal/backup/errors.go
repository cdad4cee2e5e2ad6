package backup

import (
	"errors"
	"fmt"
)

// ErrCorrupt marks bytes that are not what they were: a failed checksum, a
// truncated stream, a database page that does not parse, a hash that differs
// from the manifest. Test with [errors.Is].
var ErrCorrupt = errors.New("corrupt")

// Corruptf returns an error that wraps [ErrCorrupt] and reads as the formatted
// text.
func Corruptf(format string, args ...any) error {
	return &corruptError{fmt.Errorf(format, args...)}
}

type corruptError struct{ err error }

func (e *corruptError) Error() string   { return e.err.Error() }
func (e *corruptError) Unwrap() []error { return []error{ErrCorrupt, e.err} }

// RefusedError is returned where going on would put data at risk. Nothing was
// touched. Override names the flag that would allow it, or is empty.
type RefusedError struct {
	Reason   string
	Override string
}

func (e *RefusedError) Error() string { return "refused: " + e.Reason }

// HintError carries what a person can do about the error it wraps. The command
// line prints it as a line of its own.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// WithHint wraps err with what a person can do about it. It returns nil for a
// nil error.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: fmt.Sprintf(format, args...)}
}
