package textfile

import "os"

// Watch has f called with each file that is made durable, in place of making it so.
func Watch(f func(*os.File) error) (restore func()) {
	before := syncFile
	syncFile = f
	return func() { syncFile = before }
}
