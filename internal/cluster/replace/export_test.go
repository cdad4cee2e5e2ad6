package replace

import "time"

// Hooked returns options with a short pause, and a function that is called before each change.
func Hooked(o Options, before func(change string) error) Options {
	o.before, o.pause = before, 200*time.Millisecond
	return o
}

// NotePath is where a replacement under way has its note.
func NotePath(dataDir string) string {
	f, err := newFolders(dataDir, "")
	if err != nil {
		panic(err)
	}
	return f.notePath()
}
