package backup

import "time"

// Object is what a store knows about a key without reading its bytes.
type Object struct {
	Key     string
	Size    int64
	ModTime time.Time
	// ETag identifies the bytes, if the store has such a thing.
	// Two reads with the same ETag read the same object.
	ETag string
}
