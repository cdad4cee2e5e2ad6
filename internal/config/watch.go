package config

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How often files are looked at when nothing tells of changes, and how long
// after a change, so that whoever writes has time to finish.
const (
	pollInterval = 30 * time.Second
	settleTime   = 250 * time.Millisecond
)

// A Watcher tells when what is in files changes: by a write, a rename, or the
// swap of a symbolic link on the way to them, as Kubernetes does it.
type Watcher struct {
	paths []string
	seen  map[string]digest
	gone  map[string]bool // could not be read the last time

	poll, settle time.Duration
	notifier     func() (*fsnotify.Watcher, error)
}

// digest is the sum of a file's content; the zero digest of one that cannot be
// read.
type digest [sha256.Size]byte

// NewWatcher reads the files: what changes from now on is told by
// [Watcher.Run].
func NewWatcher(paths ...string) *Watcher {
	w := &Watcher{paths: paths, gone: map[string]bool{}, poll: pollInterval, settle: settleTime, notifier: fsnotify.NewWatcher}
	w.seen = w.read()
	return w
}

// Run calls onChange after what is in one or more of the files has changed,
// until ctx is done. A file that is gone for a moment only, as while it is
// renamed, has not changed. The operating system tells of changes; where it does
// not, as on network file systems, files are looked at every 30 seconds.
func (w *Watcher) Run(ctx context.Context, onChange func()) {
	var (
		events <-chan fsnotify.Event
		errs   <-chan error
	)
	folders, err := w.notifier()
	if err == nil {
		defer folders.Close()
		events, errs = folders.Events, folders.Errors
		w.follow(folders)
	}
	tick := time.NewTicker(w.poll)
	defer tick.Stop()
	settled := time.NewTimer(0) // what changed since NewWatcher has no event
	defer settled.Stop()
	waiting := true
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case _, ok := <-errs: // events may be lost
			if !ok {
				errs = nil
			}
		case <-tick.C:
		case <-settled.C:
			waiting = false
			if folders != nil {
				w.follow(folders)
			}
			changed, again := w.changed()
			if changed {
				onChange()
			}
			if !again {
				continue
			}
		}
		// Not put off by further events, which may never end in a busy folder.
		if !waiting {
			waiting = true
			settled.Reset(w.settle)
		}
	}
}

// follow watches the folders of the files and of what symbolic links lead to.
// Watching one again changes nothing, and one that cannot be watched is left to
// the looking from time to time.
func (w *Watcher) follow(folders *fsnotify.Watcher) {
	for _, path := range w.paths {
		_ = folders.Add(filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			_ = folders.Add(filepath.Dir(target))
		}
	}
}

// changed reports whether a file is not what it was, and whether to look again
// because one has just gone.
func (w *Watcher) changed() (changed, again bool) {
	now := w.read()
	for path, sum := range now {
		if sum == (digest{}) && w.seen[path] != sum && !w.gone[path] {
			w.gone[path] = true
			now[path], again = w.seen[path], true
			continue
		}
		delete(w.gone, path)
	}
	changed = !maps.Equal(now, w.seen)
	w.seen = now
	return changed, again
}

func (w *Watcher) read() map[string]digest {
	sums := make(map[string]digest, len(w.paths))
	for _, path := range w.paths {
		sums[path] = sumFile(path)
	}
	return sums
}

func sumFile(path string) (sum digest) {
	// Opening a pipe would wait for whoever writes.
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return digest{}
	}
	f, err := os.Open(path)
	if err != nil {
		return digest{}
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return digest{}
	}
	h.Sum(sum[:0])
	return sum
}
