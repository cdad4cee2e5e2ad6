// Package storage is the port behind which snapshots live: a Store of immutable
// objects with five methods, and functions over it. The implementations are in
// the packages file and s3 below it; the law that all of them obey is the
// conformance suite in storagetest, which has one in memory for tests.
package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ErrLocked is Delete's error for an object that a lock of the store protects for
// some time: retention or legal hold of S3 Object Lock, as far as the service
// says so. No permission would help.
var ErrLocked = errors.New("locked")

// Store holds immutable objects under slash-separated keys.
//
// Errors wrap [io/fs.ErrNotExist], [io/fs.ErrExist] or [io/fs.ErrPermission]
// where a caller can act on the difference; test with [errors.Is]. All methods
// may be called from several goroutines at once. A cancelled ctx ends a call
// with the context's error, and a Create ended that way leaves nothing.
//
// Keys are what [CheckKey] allows. No key may be the folder of another: where
// "a/b" exists, some stores cannot hold "a".
type Store interface {
	// Create stores everything read from r as key, whole or not at all. When
	// Create returns nil the object is durable. When r or ctx fails nothing is
	// stored, and the error wraps theirs. If key exists Create returns an error
	// that wraps fs.ErrExist and changes nothing.
	//
	// Create does not return while a Read of r blocks, because nothing may read
	// r afterwards. A caller that cancels ctx must make r end as well.
	Create(ctx context.Context, key string, r io.Reader) error

	// Open returns the object's bytes from offset on, length of them, or all
	// to the end if length is negative. A range that starts at or goes past
	// the end yields the bytes that exist, down to none. The caller must close
	// the reader. If it gets fewer bytes it fails, never with a short EOF.
	// ctx covers the reading too. Of a store whose objects have an ETag,
	// [ETag] returns that of the bytes being read.
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)

	// Stat returns an object's size and time without reading it.
	Stat(ctx context.Context, key string) (Object, error)

	// List yields every object whose key begins with prefix and is greater than
	// after, in key order (bytewise). An empty after is less than every key. It
	// need not begin with prefix nor name an object. A listing costs no more
	// than what it yields, wherever it begins. An error ends it: the error is
	// yielded once, last.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]

	// Delete removes key. It is no error if key does not exist.
	Delete(ctx context.Context, key string) error
}

// These are abilities that only some stores have. Only functions of this package
// ask for them, so that no other package needs to know the kind of a store. The
// functions find them below [WithObserver] and [Answering] too.
type (
	// Inspector finds out more about a service than the port allows. [Probe]
	// asks for it.
	Inspector interface {
		// Inspect may use the objects below folder, which exist until it returns.
		Inspect(ctx context.Context, folder string) []backup.Finding
	}

	// Orderer takes the order of its listings from a service. [CheckOrder] asks for it.
	Orderer interface {
		// CheckOrder may create objects below folder, and removes them.
		CheckOrder(ctx context.Context, folder string) error
	}

	// StaleUploader keeps parts of unfinished uploads that List does not show.
	// [AbortStaleUploads] asks for it.
	StaleUploader interface {
		AbortStaleUploads(ctx context.Context, olderThan time.Duration) (int, error)
	}

	// Placed lies in a place that others may use, too. [CheckPlace] asks it.
	Placed interface {
		CheckPlace() error
	}

	// Tagger is a reader, returned by Open, that knows the ETag of the object
	// being read. [ETag] asks for it.
	Tagger interface{ ETag() string }
)

// CheckPlace refuses a place in which no repository may be made: somebody else would
// move it or remove it with their own data.
func CheckPlace(s Store) error {
	if p, ok := ability[Placed](s); ok {
		return p.CheckPlace()
	}
	return nil
}

// ability finds out whether s, or the store below s, is a T.
func ability[T any](s Store) (T, bool) {
	if able, ok := s.(T); ok {
		return able, true
	}
	if o, ok := s.(*observed); ok {
		return ability[T](o.s)
	}
	if a, ok := s.(*answering); ok {
		return ability[T](a.s)
	}
	if l, ok := s.(*later); ok {
		if opened := l.opened(); opened != nil {
			return ability[T](opened)
		}
	}
	var none T
	return none, false
}

// Object is what a store knows about a key without reading its bytes.
type Object = backup.Object
