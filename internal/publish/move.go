package publish

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

// move puts one built file or folder into place, or moves an old one aside. After
// a crash at any moment it can be done again.
type move struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Inode is that of From before the move. After a crash it shows whether old
	// and new were exchanged already.
	Inode uint64 `json:"inode"`
	// Aside is where the old entry at To goes. Empty if there was none.
	Aside string `json:"aside,omitempty"`
	// Away marks a move that only moves something old aside.
	Away bool `json:"away,omitempty"`
}

// asideFolder is the folder into which something old is moved.
func (m move) asideFolder() string {
	if m.Away {
		return filepath.Dir(m.To)
	}
	return filepath.Dir(m.Aside)
}

func newMove(from, to, aside string) (move, error) {
	ino, err := inode(from)
	return move{From: from, To: to, Inode: ino, Aside: aside}, err
}

// do makes the move, or the rest of it, and makes it durable.
func (m move) do(c changer) error {
	at, err := inode(m.From)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // an earlier process made it
	case err != nil:
		return err
	case at == m.Inode:
		err = m.place(c)
	case m.Away:
		return nil // something else has this name now
	default:
		err = m.putAside(c)
	}
	if err != nil {
		return err
	}
	touched := parents([]string{m.From, m.To})
	if m.Aside != "" {
		touched = append(touched, filepath.Dir(m.Aside))
	}
	return c.sync(touched...)
}

func (m move) place(c changer) error {
	if m.Away {
		if err := c.mkdir(filepath.Dir(m.To)); err != nil {
			return err
		}
	}
	if m.Aside == "" {
		return c.rename(m.From, m.To)
	}
	if err := c.mkdir(filepath.Dir(m.Aside)); err != nil {
		return err
	}
	err := c.exchange(m.From, m.To)
	if err == nil {
		return c.rename(m.From, m.Aside)
	}
	if cannotExchange(err) {
		// A moment without old and new data is unavoidable. If a crash makes it
		// last, the journal repairs it.
		err = c.rename(m.To, m.Aside)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.rename(m.From, m.To)
}

// putAside is the second half of an exchange: the old one is at From.
func (m move) putAside(c changer) error {
	at, err := inode(m.To)
	if err != nil {
		return err
	}
	if at != m.Inode || m.Aside == "" {
		return fmt.Errorf("this restore has built neither %s nor %s", m.To, m.From)
	}
	if err := c.mkdir(filepath.Dir(m.Aside)); err != nil {
		return err
	}
	return c.rename(m.From, m.Aside)
}

// moves lists, in order, the moves that put a built group into place.
//
// Where that takes several steps a server could be started between two of them, on
// an old database with a new WAL or the like, and would not notice. So the
// first step closes the group: a plain file takes the place of the heart, on which
// no server starts. The last step opens it again.
func (g Group) moves(c changer, stamp string) ([]move, error) {
	var moves []move
	for _, f := range g {
		more, err := f.moves(stamp)
		if err != nil {
			return nil, err
		}
		moves = append(moves, more...)
	}
	if len(moves) == 1 {
		return moves, nil
	}
	closing, opening, err := g[0].closed(c, moves[0], stamp)
	if err != nil {
		return nil, err
	}
	return slices.Concat([]move{closing}, moves[1:], []move{opening}), nil
}

const closedNotice = "A restore by backupd was interrupted here. Run the same command again to finish it.\n"

// closed splits heart, the move of the entry that a server starts from, into two:
// one that closes the group and one that opens it.
func (f *Folder) closed(c changer, heart move, stamp string) (closing, opening move, err error) {
	notice := filepath.Join(f.Staging(), "closed")
	if err := os.WriteFile(notice, []byte(closedNotice), 0o644); err != nil {
		return closing, opening, fmt.Errorf("write staging folder: %w", err)
	}
	if err := c.sync(notice); err != nil {
		return closing, opening, err
	}
	aside := heart.Aside
	if aside == "" && f.Exists && !f.Inside {
		aside = f.aside(stamp) // the empty folder; it is removed at the end
	}
	closing, err = newMove(notice, heart.To, aside)
	opening = heart
	opening.Aside = notice + ".done"
	return closing, opening, err
}

// moves lists the moves that put a built folder into place. The first one moves
// the heart, the entry that a server starts from.
func (f *Folder) moves(stamp string) ([]move, error) {
	if !f.Inside && f.undo && f.tree == "" {
		if !f.Exists || f.bare {
			return nil, nil
		}
		m, err := newMove(f.Dir, f.aside(stamp), "")
		m.Away = true
		return []move{m}, err
	}
	if !f.Inside {
		aside := f.aside(stamp)
		if !f.Exists || f.bare {
			aside = "" // a folder can be renamed over an empty one
		}
		m, err := newMove(f.Tree(), f.Dir, aside)
		return []move{m}, err
	}
	var built []os.DirEntry
	var err error
	if f.Tree() != "" {
		built, err = os.ReadDir(f.Tree())
	}
	if err != nil {
		return nil, fmt.Errorf("read what is put into %s: %w", f.Dir, err)
	}
	var out []move
	for _, e := range built {
		aside := ""
		if slices.Contains(f.Old, e.Name()) {
			aside = filepath.Join(f.aside(stamp), e.Name())
		}
		m, err := newMove(filepath.Join(f.Tree(), e.Name()), filepath.Join(f.Dir, e.Name()), aside)
		if err != nil {
			return nil, err
		}
		if e.Name() == f.Heart {
			out = slices.Insert(out, 0, m)
			continue
		}
		out = append(out, m)
	}
	for _, name := range f.Old {
		if !slices.ContainsFunc(built, func(e os.DirEntry) bool { return e.Name() == name }) {
			// An old WAL segment beside the new ones would be read with them.
			m, err := newMove(filepath.Join(f.Dir, name), filepath.Join(f.aside(stamp), name), "")
			if err != nil {
				return nil, err
			}
			m.Away = true
			out = append(out, m)
		}
	}
	return out, nil
}

// aside returns the path to which old data moves: a sibling of the folder or, if
// the folder cannot be moved, a folder in it.
func (f *Folder) aside(stamp string) string {
	prefix := AsidePrefix
	if f.undo {
		prefix = UndonePrefix
	}
	if f.Inside {
		return filepath.Join(f.Dir, prefix+stamp)
	}
	return f.Dir + prefix + stamp
}

// longestStamp is as long as what freeStamp returns at most.
const longestStamp = "20060102T150405Z-aaaa"

// freeStamp makes the common part of the names of all data that one restore moves
// aside.
func freeStamp(folders []*Folder, now time.Time) (string, error) {
	stamp := now.UTC().Format("20060102T150405Z")
	for range 100 {
		taken := false
		for _, f := range folders {
			_, err := os.Lstat(f.aside(stamp))
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
