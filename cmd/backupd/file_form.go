package main

import (
	"errors"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/etcddb/trailer"
)

// explainFile says of a file that is no whole database what it is, and what to do.
// etcd's words about a missing hash would send people to --skip-hash-check. name is how a
// command line names the file.
func explainFile(path, name string, err error) error {
	if !errors.Is(err, backup.ErrCorrupt) {
		return err
	}
	frame, broken := etcddb.ReadFrame(path)
	if frame != nil {
		return err // the file has the form of a database
	}
	form, ferr := codec.FormOf(path, shellquote.Join(name))
	switch {
	case ferr != nil:
		return errors.Join(err, ferr)
	case form == nil && errors.Is(err, trailer.ErrNone):
		return backup.WithHint(broken, "%s", lostEnd)
	case form == nil:
		return withHints(err, lostEnd)
	}
	err = backup.Corruptf("%s is %s, and no etcd database", path, form.Name)
	if form.Unpack == "" {
		return backup.WithHint(err, "the command that made the file failed: take another snapshot, and look at what "+
			"that command says")
	}
	hint := "unpack it, and give the result: " + form.Unpack + " > etcd.db"
	if name == standardInput {
		hint = "unpack it on the way: ... | " + strings.Replace(form.Unpack, "unzip -p -", "funzip", 1) + " | backupd ..."
	}
	if form.Stored() {
		hint += "; a snapshot in a repository is restored as it is: backupd restore --repo REPO ID"
	}
	return backup.WithHint(err, "%s", hint)
}

const lostEnd = "the file lost a part, or was damaged on the way: copy it again and compare the lengths, or take " +
	"another snapshot; without its hash it would not be whole either"
