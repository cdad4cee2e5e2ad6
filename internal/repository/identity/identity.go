// Package identity is who a repository is: its marker, which is made once, read, and
// read again before something is entrusted to the repository.
package identity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Store is the part of a storage.Store that is needed to know a repository.
type Store interface {
	Create(ctx context.Context, key string, r io.Reader) error
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	List(ctx context.Context, prefix, after string) iter.Seq2[backup.Object, error]
	// Clusters yields the folders that may be of a cluster.
	Clusters(ctx context.Context) iter.Seq2[string, error]
}

// AbsentError is returned if there is no repository at an address, or another one than
// the one that is known. It matches [fs.ErrNotExist] only if none was known: one that is
// known is down rather than gone, for its disk may not be mounted.
type AbsentError struct {
	Known string // the id of the repository that should be there; empty: of any
	Found string // the id of the one that is there; empty: there is none
	Err   error  // why there is none
}

func (e *AbsentError) Error() string {
	switch {
	case e.Known == "":
		return fmt.Sprintf("not a backupd repository: %v", e.Err)
	case e.Found == "":
		return fmt.Sprintf("repository %s is not at its address: %v", e.Known, e.Err)
	}
	return fmt.Sprintf("another repository (%s) is at the address of repository %s", e.Found, e.Known)
}

// Unwrap returns nothing for a repository that is known: see [AbsentError].
func (e *AbsentError) Unwrap() error {
	if e.Known == "" {
		return e.Err
	}
	return nil
}

// Hint says what a person can do about the error of a repository that is not at its
// address, or has no marker. It is empty for other errors. The flags of the command line
// lead to where the repository should be; known is the flag or the key that gives its id.
func Hint(err error, flags, known string) string {
	var absent *AbsentError
	var unmarked *UnmarkedError
	switch {
	case errors.As(err, &absent):
		return absent.Hint(flags, known)
	case errors.As(err, &unmarked):
		return unmarked.hint(flags)
	}
	return ""
}

// Hint is [Hint].
func (e *AbsentError) Hint(flags, known string) string {
	other, away := "is another disk mounted?", "is its disk not mounted?"
	if words, err := shellquote.Split(flags); err == nil && slices.ContainsFunc(words, isBucket) {
		other, away = "are the bucket and the prefix right?", "are the bucket and the prefix right?"
	}
	if e.Found != "" {
		return fmt.Sprintf("%s 'backupd init %s' shows which repository is there; "+
			"if it was replaced on purpose, correct %s, or stop the daemon, remove its record of the cluster "+
			"(*.record.json in its spool folder) and start it", other, flags, known)
	}
	if e.Known != "" {
		return fmt.Sprintf("%s If the repository is lost, 'backupd init %s' makes another: then "+
			"correct %s, or stop the daemon, remove its record of the cluster (*.record.json in its spool folder) and "+
			"start it", away, flags, known)
	}
	return fmt.Sprintf("%s If there never was one, make it: backupd init %s", away, flags)
}

// isBucket reports whether a word of a command line is the address of a bucket.
func isBucket(word string) bool { return strings.HasPrefix(word, "s3://") }

// Read reads the marker at the root of s, and compares it with the id that is known, if
// there is one. It returns an [*AbsentError] if the repository is not there, and an
// [*UnmarkedError] if only its marker is not. A marker that is damaged is
// [backup.ErrCorrupt], and an unknown format is refused by name.
func Read(ctx context.Context, s Store, known string) (backup.Marker, error) {
	r, err := s.Open(ctx, backup.MarkerKey, 0, backup.MaxMarkerBytes)
	var raw []byte
	if err == nil {
		raw, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return backup.Marker{}, missing(ctx, s, known, err)
	}
	if err != nil {
		return backup.Marker{}, fmt.Errorf("open repository: %w", err)
	}
	m, err := backup.ParseMarker(raw)
	if err != nil {
		err = fmt.Errorf("open repository: %s: %w", backup.MarkerKey, err)
		if errors.Is(err, backup.ErrCorrupt) {
			err = backup.WithHint(err, "put back %s from a copy of the repository. If there is none: move it away and run "+
				"'backupd init', which makes it again: by the id that the snapshots name", backup.MarkerKey)
		}
		return backup.Marker{}, err
	}
	if known != "" && m.ID != known {
		return backup.Marker{}, &AbsentError{Known: known, Found: m.ID}
	}
	return m, nil
}

// Make reads the marker at the root of s, and makes it if there is none. It reports
// whether it did. It never makes one in the data directory of an etcd member, none where
// snapshots are (see [UnmarkedError]), and none where fit returns an error.
func Make(ctx context.Context, s Store, fit func() error) (backup.Marker, bool, error) {
	m, made, err := makeIn(ctx, s, fit)
	if errors.Is(err, fs.ErrNotExist) {
		err = backup.WithHint(err, "make the folder, or mount its disk; a bucket must be there, too")
	}
	return m, made, err
}

func makeIn(ctx context.Context, s Store, fit func() error) (m backup.Marker, made bool, err error) {
	// To read it first is more than a shortcut: a store that silently ignores
	// create-if-absent would give an old repository a new identity.
	m, err = Read(ctx, s, "")
	if !errors.Is(err, fs.ErrNotExist) {
		return m, false, err
	}
	if err := refuseMember(ctx, s); err != nil {
		return backup.Marker{}, false, err
	}
	if err := fit(); err != nil {
		return backup.Marker{}, false, fmt.Errorf("create repository: %w", err)
	}
	return mark(ctx, s, backup.NewMarker(time.Now()), "")
}

// mark creates the marker m. If another process was quicker, its marker must be of the
// id that is known, if there is one.
func mark(ctx context.Context, s Store, m backup.Marker, known string) (backup.Marker, bool, error) {
	raw, err := m.Marshal()
	if err != nil {
		return backup.Marker{}, false, err
	}
	err = s.Create(ctx, backup.MarkerKey, bytes.NewReader(raw))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return backup.Marker{}, false, fmt.Errorf("create repository: %w", err)
	}
	there, rerr := Read(ctx, s, known)
	if err == nil && rerr != nil {
		return backup.Marker{}, false, notKept(rerr)
	}
	return there, rerr == nil && err == nil && there.ID == m.ID, rerr
}

// notKept is the error for a marker that the store answered to have stored, and that cannot
// be read. Its absence is no reason to make it again.
func notKept(why error) error {
	var absent *AbsentError
	if errors.As(why, &absent) && absent.Found == "" || errors.As(why, new(*UnmarkedError)) {
		why = backup.Corruptf("it is not there")
	}
	return backup.WithHint(
		fmt.Errorf("create repository: the store answered that %s is stored: %w", backup.MarkerKey, why),
		"do not trust this store: it did not keep what it said it had stored; the logs of the service may tell more")
}

// refuseMember refuses a place that holds the data of an etcd member. It was confused with
// another folder, and a repository there would be lost with the member.
func refuseMember(ctx context.Context, s Store) error {
	for _, prefix := range []string{"member/snap/", "member/wal/"} {
		for o, err := range s.List(ctx, prefix, "") {
			switch {
			case errors.Is(err, fs.ErrNotExist): // Create says more
				return nil
			case err != nil:
				return fmt.Errorf("create repository: look for the data of an etcd member: %w", err)
			}
			return &backup.RefusedError{Reason: fmt.Sprintf("the place holds the data of an etcd member (%s): "+
				"give the repository a place of its own", o.Key)}
		}
	}
	return nil
}
