package storage

import "fmt"

// LeftError is a failure after which the cleaning up failed, too. It is not of the kind of
// the second failure: what to do follows from the first alone.
type LeftError struct {
	Err  error
	Left error // why what was begun stays
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("%v (and what was begun stays: %v)", e.Err, e.Left)
}
func (e *LeftError) Unwrap() error { return e.Err }

// AndLeft returns err with the reason why the cleaning up after it failed, if it did: see
// [LeftError].
func AndLeft(err, left error) error {
	if left == nil {
		return err
	}
	return &LeftError{err, left}
}
