package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// spoolFlags say where a local copy is made.
type spoolFlags struct {
	dir     string
	minFree reserve
}

func (s *spoolFlags) register(cmd *cobra.Command, copies string) {
	cmd.Flags().StringVar(&s.dir, "spool", "",
		"folder for the "+copies+", which is as large as the database (default: the system's temporary folder)")
	cmd.Flags().Var(&s.minFree, "spool-min-free",
		"what stays free on that folder's file system, for etcd and others: a size such as 3GiB, or 20% "+
			"(default: the larger of 15% and 2GiB)")
}

func (s *spoolFlags) folder() spool.Folder {
	return spool.Folder{Dir: s.dir, MinFree: s.minFree.Reserve, Setting: "--spool-min-free"}
}

// reserve is a flag.
type reserve struct{ disk.Reserve }

func (r *reserve) Type() string { return "size" }

func (r *reserve) Set(text string) (err error) {
	if text == "" { // which would mean the default
		return errors.New("want a size")
	}
	r.Reserve, err = disk.ParseReserve(text)
	return err
}
