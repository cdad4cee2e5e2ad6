package snapshot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// spool is the local file a database is received into at full speed. Readers
// follow behind the writer and wait for it. The process that made it holds a
// lock on it, which is how another tells a spool in use from a leftover.
type spool struct {
	path   string
	f      *os.File
	expect int64          // bytes that were announced, for reports of progress
	record *pendingRecord // what lies beside it; nil: nothing

	mu   sync.Mutex // guards what follows
	cond *sync.Cond
	n    int64 // bytes written
	end  error // io.EOF once complete, or why it never will be; nil while growing
	gen  int   // counts resets; a reader of an older generation gets an error
}

var spoolPattern = regexp.MustCompile(`^backupd-[a-z2-7]{12}\.spool$`)

var errSpoolReset = errors.New("the spool was begun anew")

// newSpool makes an empty spool in dir with room for need bytes. Spools of
// processes that died are removed first.
func newSpool(dir string, need int64) (*spool, error) {
	if err := sweepSpools(dir); err != nil {
		return nil, fmt.Errorf("look through spool folder: %w", err)
	}
	if err := checkRoom(dir, need); err != nil {
		return nil, err
	}
	for {
		s := &spool{path: filepath.Join(dir, "backupd-"+backup.RandomName(12)+".spool")}
		s.cond = sync.NewCond(&s.mu)
		f, err := os.OpenFile(s.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("make spool: %w", err)
		}
		s.f = f
		switch ours, err := s.lock(); {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock spool: %w", err), s.remove())
		case ours:
			return s, nil
		}
		_ = f.Close() // swept before it was locked: what is left of it is nothing
	}
}

// lock reports whether the spool is now locked and still there: another
// process may have swept it in the moment before.
func (s *spool) lock() (bool, error) {
	// A shared lock, because the process that inspects the database takes a
	// shared one too. Only the sweep takes an exclusive one.
	err := disk.TryLock(s.f, disk.Shared)
	if errors.Is(err, disk.ErrInUse) || errors.Is(err, disk.ErrGone) {
		return false, nil
	}
	return err == nil, err
}

// sweepSpools removes the spools that no living process holds, but not what is
// pending. What it cannot remove, such as another user's, is no reason not to
// make a backup.
func sweepSpools(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch record := recordPattern.FindStringSubmatch(e.Name()); {
		case !e.Type().IsRegular():
		case spoolPattern.MatchString(e.Name()):
			sweepSpool(path)
		case record != nil:
			// A spool is there before its record is. Without one it is a leftover.
			if _, err := os.Lstat(filepath.Join(dir, record[1]+spoolSuffix)); errors.Is(err, os.ErrNotExist) {
				_ = os.Remove(path)
			}
		}
	}
	return nil
}

func sweepSpool(path string) {
	f, err := disk.OpenRegular(path, os.O_RDWR)
	if err != nil {
		return
	}
	if s := (&spool{path: path, f: f}); disk.TryLock(f, disk.Exclusive) == nil && !staysPending(path) {
		_ = s.remove()
		return
	}
	_ = f.Close() // gives the lock back
}

// staysPending reports whether a spool nobody holds waits to be stored.
func staysPending(path string) bool {
	r, err := readRecord(path)
	var unknown *unknownRecordError
	switch {
	case err == nil:
		return !r.expired(time.Now())
	case errors.As(err, &unknown):
		info, err := os.Lstat(recordPath(path))
		return err != nil || time.Since(info.ModTime()) < maxPendingAge
	}
	// One that is another user's cannot be read: it is not ours to judge.
	return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, backup.ErrCorrupt)
}

// spoolFolder is the folder for spools that dir names.
func spoolFolder(dir string) string {
	if dir == "" {
		return os.TempDir()
	}
	return dir
}

// checkRoom refuses a folder that has no room to receive a database, before a
// byte of it is received.
func checkRoom(dir string, database int64) error {
	err := disk.CheckRoom(dir, database)
	if errors.Is(err, syscall.ENOSPC) {
		return backup.WithHint(err, "free some space or name another folder")
	}
	return err
}

// Write appends.
func (s *spool) Write(p []byte) (int, error) {
	n, err := s.f.WriteAt(p, s.n) // only the writer changes n
	s.mu.Lock()
	s.n += int64(n)
	s.mu.Unlock()
	s.cond.Broadcast()
	if err != nil {
		return n, fmt.Errorf("write spool: %w", err)
	}
	return n, nil
}

// finish tells readers that the spool is complete (io.EOF) or never will be.
func (s *spool) finish(end error) {
	s.mu.Lock()
	s.end = end
	s.mu.Unlock()
	s.cond.Broadcast()
}

// reset empties the spool for another try. Readers of what was there end with
// an error.
func (s *spool) reset() error {
	s.mu.Lock()
	s.n, s.end = 0, nil
	s.gen++
	s.mu.Unlock()
	s.cond.Broadcast()
	if err := s.f.Truncate(0); err != nil {
		return fmt.Errorf("empty spool: %w", err)
	}
	return nil
}

// abandonReaders ends all readers with an error, also those that wait.
func (s *spool) abandonReaders() {
	s.mu.Lock()
	s.gen++
	s.mu.Unlock()
	s.cond.Broadcast()
}

// remove closes the spool and leaves nothing of it.
func (s *spool) remove() error {
	// The record goes first: a spool without one is a leftover, which a sweep
	// removes. And the names go before the lock does.
	record := recordPath(s.path)
	return errors.Join(disk.Remove(record+disk.TempSuffix), disk.Remove(record), disk.Remove(s.path), s.f.Close())
}

// reader returns a reader from the beginning that follows the writer.
func (s *spool) reader() *spoolReader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &spoolReader{s: s, gen: s.gen}
}

type spoolReader struct {
	s   *spool
	gen int
	off int64
}

// Read waits for bytes that were not read yet. Not a context but finish, reset
// and abandonReaders end the wait.
func (r *spoolReader) Read(p []byte) (int, error) {
	n, err := r.wait()
	if err != nil {
		return 0, err
	}
	k, err := r.s.f.ReadAt(p[:min(int64(len(p)), n-r.off)], r.off)
	r.off += int64(k)
	if k > 0 {
		return k, nil
	}
	return 0, fmt.Errorf("read spool: %w", err)
}

// wait returns how many bytes are there once there are more than were read.
func (r *spoolReader) wait() (int64, error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case r.gen != s.gen:
			return 0, errSpoolReset
		case s.end != nil && s.end != io.EOF:
			return 0, s.end
		case r.off < s.n:
			return s.n, nil
		case s.end == io.EOF:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}
