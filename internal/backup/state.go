package backup

import "fmt"

// State says whether a stored snapshot can be trusted.
type State string

// States of a stored snapshot.
const (
	Verified State = "verified" // it is whole, and at least one voting member has the same content
	// Unconfirmed means that it is whole, but no member could be compared, or that it
	// was taken of a member that may be behind.
	Unconfirmed State = "unconfirmed"
	Suspect     State = "suspect" // something spoke against its content when it was taken
	Damaged     State = "damaged" // it can no longer be restored as it was taken
)

// Usable reports whether a snapshot in this state may be restored without a flag.
func (s State) Usable() bool { return s == Verified || s == Unconfirmed }

// DefectKind names what is wrong with a stored snapshot.
type DefectKind string

// Kinds of defects.
const (
	DataMissing     DefectKind = "manifest without data"
	ManifestMissing DefectKind = "data without manifest"
	ManifestDamaged DefectKind = "manifest damaged"
	Truncated       DefectKind = "wrong length"
	Changed         DefectKind = "bytes changed"
	Swapped         DefectKind = "swapped with another snapshot"
	Content         DefectKind = "content differs from the manifest"
	Doubted         DefectKind = "suspect since it was taken"
	// CompanionsBad is the one that leaves the data as it was.
	CompanionsBad DefectKind = "companion files damaged"
)

// DefectError names one defect of a stored snapshot. Its Err wraps [ErrCorrupt].
type DefectError struct {
	Kind DefectKind
	Key  string // of the object
	Err  error
}

func (e *DefectError) Error() string { return fmt.Sprintf("%s: %s: %v", e.Key, e.Kind, e.Err) }
func (e *DefectError) Unwrap() error { return e.Err }
