// Package watch reports when the content of files changes.
package watch

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

const (
	pollInterval = 30 * time.Second // for file systems that report no changes
	// settleTime passes between an event and the look at the files, so that a
	// writer can finish.
	settleTime = 250 * time.Millisecond
)

// A Watcher reports when the content of files changes: by a write, a rename, or a
// new target of a symbolic link on the way to them, as in Kubernetes.
type Watcher struct {
	paths []string
	seen  map[string]digest
	gone  map[string]bool // could not be read the last time

	poll, settle time.Duration
	notifier     func() (*fsnotify.Watcher, error)
}

// digest is the sum of a file's content. It is zero for a file that cannot be read.
type digest [sha256.Size]byte

// New reads the files. [Watcher.Run] reports changes from this moment on.
func New(paths ...string) *Watcher {
	w := &Watcher{
		paths: paths, gone: map[string]bool{},
		poll: pollInterval, settle: settleTime, notifier: fsnotify.NewWatcher,
	}
	w.seen = w.read()
	return w
}

// Run calls onChange after the content of one or more files has changed, until ctx
// is done. A file that is missing for a moment only, as during a rename, has not
// changed. The operating system reports changes; Run also looks at the files every
// 30 seconds, because network file systems may report none.
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
	settled := time.NewTimer(0) // changes since New have no event
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
		// Further events do not delay the look: in a busy folder they may never end.
		if !waiting {
			waiting = true
			settled.Reset(w.settle)
		}
	}
}

// follow watches the folders of the files and of the targets of their links. To
// watch a folder again changes nothing. The regular looks cover a folder that
// cannot be watched.
func (w *Watcher) follow(folders *fsnotify.Watcher) {
	for _, path := range w.paths {
		_ = folders.Add(filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			_ = folders.Add(filepath.Dir(target))
		}
	}
}

// changed reports whether a file has changed, and whether to look again soon
// because one is missing now.
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
	// To open a pipe would block until it has a writer.
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
