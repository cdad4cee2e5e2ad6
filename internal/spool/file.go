package spool

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// File is a local file into which a database is received at full speed. Readers
// follow the writer and wait for it. The process that made the file holds a lock
// on it, so that other processes can tell a spool in use from a leftover.
type File struct {
	path    string
	f       *os.File
	folder  Folder
	pending *Pending // the file beside it; nil if there is none

	mu     sync.Mutex // guards what follows
	cond   *sync.Cond
	expect int64 // bytes that the sender announced, for reports of progress
	n      int64 // bytes written
	end    error // io.EOF once complete, or why it never will be; nil while growing
	resets int   // readers that began before the last one get an error
	stream bool  // a database is received, or was: this is no copy of a stored one
	lost   error // why it gave way
}

var errReset = errors.New("the spool was emptied for another try")

func newFile(path string, f *os.File) *File {
	s := &File{path: path, f: f}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// Path is where the file is.
func (s *File) Path() string { return s.path }

// Pending returns the content of the file beside the spool, with which another
// process can store it, or nil.
func (s *File) Pending() *Pending { return s.pending }

// Write appends.
func (s *File) Write(p []byte) (int, error) {
	if err := s.GaveWay(); err != nil {
		return 0, err
	}
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

// Finish tells readers that the file is complete, with io.EOF, or why it never
// will be.
func (s *File) Finish(end error) {
	s.mu.Lock()
	if s.lost == nil {
		s.end = end
	}
	s.mu.Unlock()
	s.cond.Broadcast()
}

// Expect says how many bytes there will be, for reports of progress.
func (s *File) Expect(total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expect = total
}

// reset empties the file for another try. Readers of the earlier try end with an
// error.
func (s *File) reset(expect int64) error {
	s.mu.Lock()
	s.n, s.end, s.expect, s.stream = 0, s.lost, expect, true
	s.resets++
	s.mu.Unlock()
	s.cond.Broadcast()
	if err := s.f.Truncate(0); err != nil {
		return fmt.Errorf("empty spool: %w", err)
	}
	return nil
}

// AbandonReaders ends all readers with an error, also those that wait.
func (s *File) AbandonReaders() {
	s.mu.Lock()
	s.resets++
	s.mu.Unlock()
	s.cond.Broadcast()
}

// Remove removes the file and the file beside it, and closes it.
func (s *File) Remove() error {
	// The file beside the spool goes first: a spool without it is a leftover,
	// which a sweep removes. Both names go before the close, which ends the lock.
	beside := pendingPath(s.path)
	return errors.Join(disk.Remove(beside+disk.TempSuffix), disk.Remove(beside), disk.Remove(s.path), s.f.Close())
}

// Reader returns a reader that begins at the start of the file and follows the
// writer.
func (s *File) Reader() *Reader {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Reader{s: s, resets: s.resets}
}

// Reader reads a spool from its beginning while it grows.
type Reader struct {
	s      *File
	resets int
	off    int64 // guarded by the mutex of s: somebody else may ask for the progress
}

// Progress returns how many bytes were read, and how many there will be.
func (r *Reader) Progress() (done, total int64) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return min(r.off, r.s.expect), r.s.expect
}

// Read waits for bytes that were not read yet. Finish, a reset or AbandonReaders
// ends the wait; there is no context.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.wait()
	if err != nil {
		return 0, err
	}
	k, err := r.s.f.ReadAt(p[:min(int64(len(p)), n-r.off)], r.off)
	r.s.mu.Lock()
	r.off += int64(k)
	r.s.mu.Unlock()
	if k > 0 {
		return k, nil
	}
	return 0, fmt.Errorf("read spool: %w", err)
}

// wait waits until more bytes are written than were read, and returns how many are
// written.
func (r *Reader) wait() (int64, error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case r.resets != s.resets:
			return 0, errReset
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

// DamagedError says that the local copy differs from the received database, and so
// is worthless.
type DamagedError struct{ Err error }

func (e *DamagedError) Error() string { return "the spooled copy is damaged: " + e.Err.Error() }
func (e *DamagedError) Unwrap() error { return e.Err }

// Verify reads a whole pending spool and compares it with what was received,
// because a power cut may have torn it. It returns the checksum, or a
// [*DamagedError].
func (s *File) Verify(ctx context.Context) (backup.Checksum, error) {
	var sum backup.Checksum
	want := s.pending.Capture.Plain
	h := sha256.New()
	w, buf := io.MultiWriter(h, &sum), make([]byte, 256<<10)
	for off := int64(0); off < s.n; {
		if ctx.Err() != nil {
			return sum, fmt.Errorf("read pending spool: %w", context.Cause(ctx))
		}
		n, err := s.f.ReadAt(buf[:min(int64(len(buf)), s.n-off)], off)
		if err != nil && n == 0 {
			return sum, &DamagedError{fmt.Errorf("read it: %w", err)}
		}
		_, _ = w.Write(buf[:n]) // a hash does not fail
		off += int64(n)
	}
	if got := (backup.Blob{Bytes: sum.Bytes, SHA256: backup.Digest(h.Sum(nil))}); got != want {
		return sum, &DamagedError{backup.Corruptf("it has %d bytes with sha256 %s, %d with %s were received",
			got.Bytes, got.SHA256, want.Bytes, want.SHA256)}
	}
	return sum, nil
}
