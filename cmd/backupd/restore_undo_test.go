package main

import (
	"errors"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
)

// halfUndo is an undo that was killed when its journal was written.
func halfUndo(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: halfundo DIR")
	}
	dir := ts.MkAbs(args[0])
	olds, err := publish.Olds([]string{dir})
	ts.Check(err)
	if len(olds) != 1 {
		ts.Fatalf("there is old data %v", olds)
	}
	f, err := publish.NewFolder(publish.Place{Dir: dir, Heart: "member"}, nil)
	ts.Check(err)
	old := olds[0].At[dir]
	ts.Check(f.Undo(old))
	shop, err := publish.Begin([]publish.Group{{f}}, func(op, _ string) error {
		if op == "exchange" {
			return unix.EIO
		}
		return nil
	})
	ts.Check(err)
	err = shop.Publish("old data", map[string]any{"undo": undo.Done{
		Time: olds[0].Stamp, Targets: []undo.Target{{DataDir: dir, PutBack: []string{old}}}, Notes: []string{},
	}})
	if !errors.Is(err, unix.EIO) {
		ts.Fatalf("it was not interrupted: %v", err)
	}
	ts.Check(shop.Close())
}
