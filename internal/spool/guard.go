package spool

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// guardEvery is the time between two looks at the file system of a spool in use.
const guardEvery = 500 * time.Millisecond

// Guard returns a context that ends, with the reason, when the file has to give way: see
// [File.GaveWay]. The caller calls stop before it removes or leaves the file.
func (s *File) Guard(ctx context.Context) (guarded context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(guardEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
				guard{s, cancel}.look()
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// GaveWay returns why the file was emptied before its time, or nil. A result that was
// read from it meanwhile says nothing.
func (s *File) GaveWay() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// guard watches over a file in use.
type guard struct {
	*File
	cancel context.CancelCauseFunc // ends its use
}

// look gives the file's space back if its file system needs that.
func (s guard) look() {
	fs, reserve, err := s.folder.Room()
	if err != nil || fs.Free >= s.level(levelsOf(reserve)) {
		return // a folder that cannot be asked gives an error elsewhere
	}
	if s.folder.Keep && s.folder.MakeWay() == nil { // what waits goes first
		if fs, _, err = s.folder.Room(); err != nil || fs.Free >= s.level(levelsOf(reserve)) {
			return
		}
	}
	s.giveWay(room{&s.folder}.noRoom(fmt.Errorf(
		"the spool gave way: folder %s has %s free, and %s must stay free for others: %w",
		s.folder.Path(), disk.Size(fs.Free), disk.Size(reserve), unix.ENOSPC)))
}

// level is the free space below which the file gives way.
func (s guard) level(l levels) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.end == io.EOF:
		return l.uploads
	case s.stream:
		return l.streams
	}
	return l.copies
}

// giveWay ends all use of the file, and then empties it, without waiting for those who
// have it open.
func (s guard) giveWay(reason error) {
	s.mu.Lock()
	s.lost, s.end = reason, reason
	s.mu.Unlock()
	s.cond.Broadcast()
	s.cancel(reason) // only now: whoever hears of it may ask whether the file gave way
	args := []any{"path", s.path, "reason", reason}
	beside := pendingPath(s.path)
	if err := disk.Remove(beside); err != nil {
		args = append(args, "err", err)
	}
	if err := s.f.Truncate(0); err != nil {
		s.folder.log().Error("cannot empty a spool that has to give way", append(args, "err", err)...)
		return
	}
	s.folder.log().Error("emptied a spool in use", args...)
}
