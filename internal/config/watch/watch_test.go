package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watched runs w and returns a channel with one value for each change.
func watched(t *testing.T, w *Watcher) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changes, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, func() { changes <- struct{}{} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return changes
}

// wait waits for a change; the deadline is for a broken program only.
func wait(t *testing.T, what string, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(time.Minute):
		t.Fatalf("%s: no change was reported", what)
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventsOnly makes a watcher that never looks without an event.
func eventsOnly(paths ...string) *Watcher {
	w := New(paths...)
	w.poll, w.settle = time.Hour, 10*time.Millisecond
	return w
}

func TestWatchWritesAndRenames(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "backupd.yaml")
	put(t, path, "one")
	changes := watched(t, eventsOnly(path))

	put(t, path, "two")
	wait(t, "write", changes)
	put(t, filepath.Join(dir, ".new"), "three")
	must(t, os.Rename(filepath.Join(dir, ".new"), path))
	wait(t, "rename over it", changes)
	must(t, os.Rename(path, path+"~")) // as editors do
	put(t, path, "four")
	wait(t, "moved away and written again", changes)
	must(t, os.Remove(path))
	wait(t, "removed", changes)
	put(t, path, "five")
	wait(t, "back again", changes)
}

// Kubernetes swaps the link ..data, through which all files are reached.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	publish := func(version, text string) {
		must(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		put(t, filepath.Join(dir, version, "backupd.yaml"), text)
		must(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("..1", "one")
	path := filepath.Join(dir, "backupd.yaml")
	must(t, os.Symlink("..data/backupd.yaml", path))
	changes := watched(t, eventsOnly(path))
	for i := 2; i < 5; i++ {
		publish(fmt.Sprintf("..%d", i), fmt.Sprint(i))
		wait(t, "swap", changes)
		must(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..%d", i-1))))
	}
}

// The target of a link may be written in place, in another folder.
func TestWatchBehindLink(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	target, path := filepath.Join(b, "real.yaml"), filepath.Join(a, "backupd.yaml")
	put(t, target, "one")
	must(t, os.Symlink(target, path))
	other := filepath.Join(a, "token")
	changes := watched(t, eventsOnly(path, other))
	put(t, other, "new")
	wait(t, "a file that was not there", changes)
	// The first writes may be seen by a look that other's events led to.
	for i := range 4 {
		put(t, target, fmt.Sprint(i))
		wait(t, "write behind the link", changes)
	}
}

func TestWatchPolls(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "backupd.yaml")
	put(t, path, "one")
	w := New(path)
	w.poll, w.settle = time.Millisecond, time.Millisecond
	w.notifier = func() (*fsnotify.Watcher, error) { return nil, errors.New("too many open files") }
	changes := watched(t, w)
	// The first change may be seen by the first look, the second only by another.
	put(t, path, "two")
	wait(t, "first", changes)
	must(t, os.Remove(path))
	wait(t, "poll", changes)
}

// A change between NewWatcher and Run is reported. A write that keeps the content
// is not, however often it happens.
func TestWatchContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backupd.yaml")
	put(t, path, "one")
	w := eventsOnly(path)
	put(t, path, "two")
	changes := watched(t, w)
	wait(t, "before Run", changes)
	for range 20 {
		must(t, os.Chtimes(path, time.Now(), time.Now()))
		put(t, path+".tmp", "two")
		must(t, os.Rename(path+".tmp", path))
	}
	put(t, path, "three")
	wait(t, "last write", changes)
	if n := len(changes); n > 0 {
		// A write begins with a truncation, which may be seen as a change of its
		// own. A third report would repeat the same content.
		if n > 1 {
			t.Errorf("%d more changes", n)
		}
	}
}

// A file that is away for one look has not changed.
func TestWatchGoneForAMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "backupd.yaml")
	put(t, path, "one")
	w := New(path)
	look := func(what string, wantChanged, wantAgain bool) {
		t.Helper()
		if changed, again := w.changed(); changed != wantChanged || again != wantAgain {
			t.Errorf("%s: changed %t, again %t", what, changed, again)
		}
	}
	look("nothing", false, false)
	must(t, os.Remove(path))
	look("gone", false, true)
	put(t, path, "one")
	look("back", false, false)
	must(t, os.Remove(path))
	look("gone", false, true)
	look("still gone", true, false)
	look("gone for good", false, false)
	put(t, path, "one")
	look("back", true, false)
}
