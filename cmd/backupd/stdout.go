package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// output is standard output. It remembers its first error, so a command that prints a
// line need not look: who reads half an answer must not see success.
type output struct {
	w io.Writer

	mu  sync.Mutex // guards err
	err *outputError
}

// outputError says that standard output could not be written.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write standard output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// Write writes nothing more after an error.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if o.failed(err) {
		return n, o.err
	}
	return n, nil
}

func (o *output) failed(err error) bool {
	if err == nil {
		return false
	}
	var of *fs.PathError // it names a file that nobody knows
	if errors.As(err, &of) {
		err = of.Err
	}
	o.err = &outputError{err}
	return true
}

// takesData returns an error if standard output was closed when the program began, as by
// ">&-". Go then opens /dev/null in its place, for reading and writing, so that all that is
// written would vanish with success. Some programs give a child such an output to keep it
// silent, so only a command whose output is the data itself asks; ">/dev/null" of a shell is
// for writing alone, and is meant.
func takesData(w io.Writer) error {
	if o, ok := w.(*output); ok {
		w = o.w
	}
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	given, err := f.Stat()
	if err != nil {
		return &outputError{err}
	}
	if null, err := os.Stat(os.DevNull); err != nil || !os.SameFile(null, given) {
		return nil
	}
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return &outputError{err}
	}
	if flags&unix.O_ACCMODE != unix.O_RDWR {
		return nil
	}
	return backup.WithHint(&outputError{errors.New("it is closed, and nothing would be saved")},
		"give it a file or a pipe, or name a file instead of -")
}

// end closes the output, because some file systems tell only then that it is full. It
// returns the error of the command, or that of the output.
func (o *output) end(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f, ok := o.w.(*os.File); ok && o.err == nil {
		o.failed(f.Close())
	}
	switch {
	case o.err == nil || errors.As(err, new(*outputError)):
		return err
	case err == nil:
		return backup.WithHint(fmt.Errorf("the command has done its work, but its answer is lost: %w", o.err),
			"look at what it did before you run it again")
	}
	return errors.Join(err, o.err)
}
