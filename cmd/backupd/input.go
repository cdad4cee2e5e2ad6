package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// standardInput is the name of a file that means it.
const standardInput = "-"

// input is the file that a command reads: the one that was named, or a copy of standard
// input. A database is read more than once, and not from its beginning to its end.
type input struct {
	path string
	copy *spool.File // nil if path was named
}

// openInput returns the file of a command. The caller closes it.
func (a *app) openInput(cmd *cobra.Command, name string, folder spool.Folder) (*input, error) {
	if name != standardInput {
		info, err := os.Stat(name)
		if err == nil && !info.IsDir() && !info.Mode().IsRegular() {
			err = backup.WithHint(fmt.Errorf("read %s: it is not a regular file", name),
				"give it as standard input: %s - < %s", cmd.CommandPath(), shellquote.Join(name))
			return nil, err
		}
		return &input{path: name}, nil // what reads it reports that it is not there
	}
	if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, &usageError{errors.New("standard input is a terminal: give the snapshot as a pipe or a file")}
	}
	file, err := folder.New(0) // how large it will be nobody knows
	if err != nil {
		return nil, err
	}
	if err := copyInput(cmd.Context(), file, a.stdin); err != nil {
		return nil, errors.Join(fmt.Errorf("copy standard input: %w", err), file.Remove())
	}
	return &input{path: file.Path(), copy: file}, nil
}

// copyInput copies standard input until it ends, or its file system needs the room. A
// complete copy stays, whatever else is written there: a restore is not broken off.
func copyInput(ctx context.Context, file *spool.File, stdin io.Reader) error {
	ctx, stop := file.Guard(ctx)
	defer stop()
	copied := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(file, struct{ io.Reader }{stdin}, make([]byte, 256<<10))
		copied <- err
	}()
	select {
	case err := <-copied:
		return err
	case <-ctx.Done(): // who writes to it may never end
		return context.Cause(ctx)
	}
}

// close removes a copy.
func (in *input) close() error {
	if in.copy == nil {
		return nil
	}
	return in.copy.Remove()
}

// explain says of the error of a command what is wrong with the file. It names standard
// input, and not the copy, which will be gone.
func (in *input) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case in.copy == nil:
		return explainFile(in.path, in.path, err)
	}
	err = explainFile(in.path, standardInput, err)
	return &renamedError{err, strings.ReplaceAll(err.Error(), in.path, "standard input")}
}

// renamedError says something else.
type renamedError struct {
	err  error
	text string
}

func (e *renamedError) Error() string { return e.text }
func (e *renamedError) Unwrap() error { return e.err }

// source names the source of a restore as people do.
func (in *input) source(src restore.Source) restore.Source {
	if in.copy == nil {
		return src
	}
	about := src.About()
	about.Name = "standard input"
	return &piped{src, about}
}

// piped is a source under another name.
type piped struct {
	restore.Source
	about restore.Origin
}

func (p *piped) About() restore.Origin { return p.about }
