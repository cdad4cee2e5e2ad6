package backup

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
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

// ErrUnordered says that a store does not list its keys in order.
var ErrUnordered = errors.New("the keys are not in order")

// ErrArchived is a store's error for an object that is there, and that the store gives only
// after it was asked to bring it back from an archive, which takes hours.
var ErrArchived = errors.New("archived")

// Withheld reports whether a store does not give an object that it may have: no permission,
// or an archive. It says nothing of other objects.
func Withheld(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrArchived)
}

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
	Hint string // names flags, where it names any
	// Keys is the same for those who have a configuration file: it names keys. Empty:
	// Hint is for both.
	Keys string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// Configured returns the hint for those who have a configuration file.
func (e *HintError) Configured() string { return cmp.Or(e.Keys, e.Hint) }

// WithHints is [WithHint] with one hint that names flags of a command, and one that
// names keys of a configuration file.
func WithHints(err error, flags, keys string) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: flags, Keys: keys}
}

// WithHint wraps err with what a person can do about it. It returns nil for a
// nil error.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &HintError{Err: err, Hint: fmt.Sprintf(format, args...)}
}
