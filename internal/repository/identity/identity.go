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
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Store is the part of a storage.Store that a marker needs.
type Store interface {
	Create(ctx context.Context, key string, r io.Reader) error
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	List(ctx context.Context, prefix, after string) iter.Seq2[backup.Object, error]
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

// Hint says what a person can do. The flags of the command line lead to where the
// repository should be.
func (e *AbsentError) Hint(flags string) string {
	if e.Found != "" {
		return fmt.Sprintf("is another disk mounted? 'backupd init %s' shows which repository is there; "+
			"if it was replaced on purpose, correct repository-id or --repo-id, or restart the daemon", flags)
	}
	if e.Known != "" {
		return fmt.Sprintf("is its disk not mounted? If the repository is lost, 'backupd init %s' makes "+
			"another: then correct repository-id or --repo-id, or restart the daemon", flags)
	}
	return fmt.Sprintf("is its disk not mounted? If there never was one, make it: backupd init %s", flags)
}

// Read reads the marker at the root of s, and compares it with the id that is known, if
// there is one. It returns an [*AbsentError] if the repository is not there. A marker
// that is damaged is [backup.ErrCorrupt], and an unknown format is refused by name.
func Read(ctx context.Context, s Store, known string) (backup.Marker, error) {
	r, err := s.Open(ctx, backup.MarkerKey, 0, backup.MaxMarkerBytes)
	var raw []byte
	if err == nil {
		raw, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return backup.Marker{}, &AbsentError{Known: known, Err: err}
	}
	if err != nil {
		return backup.Marker{}, fmt.Errorf("open repository: %w", err)
	}
	m, err := backup.ParseMarker(raw)
	if err != nil {
		err = fmt.Errorf("open repository: %s: %w", backup.MarkerKey, err)
		if errors.Is(err, backup.ErrCorrupt) {
			err = backup.WithHint(err, "put back %s from a copy of the repository. If there is none: move it away and run "+
				"'backupd init'; the snapshots stay, and the repository gets a new id", backup.MarkerKey)
		}
		return backup.Marker{}, err
	}
	if known != "" && m.ID != known {
		return backup.Marker{}, &AbsentError{Known: known, Found: m.ID}
	}
	return m, nil
}

// Make reads the marker at the root of s, and makes it if there is none. It reports
// whether it did. It never makes one in the data directory of an etcd member.
func Make(ctx context.Context, s Store) (m backup.Marker, made bool, err error) {
	// To read it first is more than a shortcut: a store that silently ignores
	// create-if-absent would give an old repository a new identity.
	m, err = Read(ctx, s, "")
	if !errors.Is(err, fs.ErrNotExist) {
		return m, false, err
	}
	if err := refuseMember(ctx, s); err != nil {
		return backup.Marker{}, false, err
	}
	m = backup.NewMarker(time.Now())
	raw, err := m.Marshal()
	if err != nil {
		return backup.Marker{}, false, err
	}
	err = s.Create(ctx, backup.MarkerKey, bytes.NewReader(raw))
	if errors.Is(err, fs.ErrExist) { // another process was quicker
		m, err = Read(ctx, s, "")
		return m, false, err
	}
	if err != nil {
		return backup.Marker{}, false, fmt.Errorf("create repository: %w", err)
	}
	return m, true, nil
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
