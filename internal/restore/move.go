package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// move puts one built file or folder into place, or takes an old one away. It
// can be done again after a crash at any moment of it.
type move struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Inode is what is at From before the move. It tells, after a crash,
	// whether old and new were exchanged already.
	Inode uint64 `json:"inode"`
	// Aside is where what was at To goes. Empty if nothing was there.
	Aside string `json:"aside,omitempty"`
	// Away marks a move that only takes something old away.
	Away bool `json:"away,omitempty"`
}

func newMove(from, to, aside string) (move, error) {
	ino, err := inode(from)
	return move{From: from, To: to, Inode: ino, Aside: aside}, err
}

// do makes the move, or the rest of it, and makes it durable.
func (m move) do(d disk) error {
	at, err := inode(m.From)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // made by an earlier run
	case err != nil:
		return err
	case at == m.Inode:
		err = m.place(d)
	case m.Away:
		return nil // another thing has taken that name since
	default:
		err = m.putAside(d)
	}
	if err != nil {
		return err
	}
	touched := parents([]string{m.From, m.To})
	if m.Aside != "" {
		touched = append(touched, filepath.Dir(m.Aside))
	}
	return d.sync(touched...)
}

func (m move) place(d disk) error {
	if m.Away {
		if err := d.mkdir(filepath.Dir(m.To)); err != nil {
			return err
		}
	}
	if m.Aside == "" {
		return d.rename(m.From, m.To)
	}
	if err := d.mkdir(filepath.Dir(m.Aside)); err != nil {
		return err
	}
	err := d.exchange(m.From, m.To)
	if err == nil {
		return d.rename(m.From, m.Aside)
	}
	if cannotExchange(err) {
		// A moment with neither old nor new cannot be helped. The journal
		// repairs it if it lasts.
		err = d.rename(m.To, m.Aside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.rename(m.From, m.To)
}

// putAside is the second half of an exchange: what is at From is the old one.
func (m move) putAside(d disk) error {
	at, err := inode(m.To)
	if err != nil {
		return err
	}
	if at != m.Inode || m.Aside == "" {
		return fmt.Errorf("%s is not what this restore has built, nor is %s", m.To, m.From)
	}
	if err := d.mkdir(filepath.Dir(m.Aside)); err != nil {
		return err
	}
	return d.rename(m.From, m.Aside)
}

// moves lists, in order, what puts a built target into place.
//
// Where that takes several steps etcd could be started between two of them, on
// an old database with a new WAL or the like, and would not notice. So the
// first step closes the target: a plain file takes the place of the data
// directory, on which no etcd starts. The last step opens it again.
func (t Target) moves(stamp string) ([]move, error) {
	moves, err := t.data.moves(stamp)
	if err != nil {
		return nil, err
	}
	if t.wal != nil {
		more, err := t.wal.moves(stamp)
		if err != nil {
			return nil, err
		}
		moves = append(moves, more...)
	}
	if len(moves) == 1 {
		return moves, nil
	}
	closing, opening, err := t.data.closed(moves[0], stamp)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]move{closing}, moves[1:], []move{opening}), nil
}

const closedNotice = "A restore by backupd was interrupted here. The same command again finishes it.\n"

// closed splits the move of what etcd starts from into two: one that closes the
// target and one that opens it.
func (s *slot) closed(heart move, stamp string) (closing, opening move, err error) {
	notice := filepath.Join(s.staging, "closed")
	if err := os.WriteFile(notice, []byte(closedNotice), 0o644); err != nil {
		return closing, opening, fmt.Errorf("write staging folder: %w", err)
	}
	if err := syncPath(notice); err != nil {
		return closing, opening, err
	}
	aside := heart.Aside
	if aside == "" && s.exists && !s.inside {
		aside = s.aside(stamp) // the empty folder; it is removed at the end
	}
	closing, err = newMove(notice, heart.To, aside)
	opening = heart
	opening.Aside = notice + ".done"
	return closing, opening, err
}

// moves lists what puts a built slot into place. The first one moves what etcd
// starts from.
func (s *slot) moves(stamp string) ([]move, error) {
	if !s.inside {
		aside := s.aside(stamp)
		if !s.exists || s.bare {
			aside = "" // a folder can be renamed over an empty one
		}
		m, err := newMove(s.tree(), s.dir, aside)
		return []move{m}, err
	}
	built, err := os.ReadDir(s.tree())
	if err != nil {
		return nil, fmt.Errorf("read staging folder: %w", err)
	}
	var out []move
	for _, e := range built {
		aside := ""
		if slices.Contains(s.old, e.Name()) {
			aside = filepath.Join(s.aside(stamp), e.Name())
		}
		m, err := newMove(filepath.Join(s.tree(), e.Name()), filepath.Join(s.dir, e.Name()), aside)
		if err != nil {
			return nil, err
		}
		if s.kind == dataSlot && e.Name() == "member" {
			out = slices.Insert(out, 0, m)
			continue
		}
		out = append(out, m)
	}
	for _, name := range s.old {
		if !slices.ContainsFunc(built, func(e os.DirEntry) bool { return e.Name() == name }) {
			// An old WAL segment beside the new ones would be read with them.
			m, err := newMove(filepath.Join(s.dir, name), filepath.Join(s.aside(stamp), name), "")
			if err != nil {
				return nil, err
			}
			m.Away = true
			out = append(out, m)
		}
	}
	return out, nil
}

// aside is where old data goes: a sibling or, where the folder itself must
// stay, a folder in it.
func (s *slot) aside(stamp string) string {
	if s.inside {
		return filepath.Join(s.dir, AsidePrefix+stamp)
	}
	return s.dir + AsidePrefix + stamp
}

// freeStamp makes the part of their names that everything moved aside by one
// restore has in common.
func freeStamp(slots []*slot, now time.Time) (string, error) {
	stamp := now.UTC().Format("20060102T150405Z")
	for range 100 {
		taken := false
		for _, s := range slots {
			_, err := os.Lstat(s.aside(stamp))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", fmt.Errorf("look for a free name: %w", err)
			}
			taken = taken || err == nil
		}
		if !taken {
			return stamp, nil
		}
		stamp = now.UTC().Format("20060102T150405Z") + "-" + backup.RandomName(4)
	}
	return "", errors.New("no free name to move old data aside")
}
