package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

func newDemoCommand(a *app) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Lose an etcd cluster and bring it back, on this machine",
		Long: `Lose an etcd cluster and bring it back, on this machine: start three etcd members in a
temporary folder, write keys, take a verified snapshot, destroy all members, restore
them, start them, and compare HashKV and every key. Nothing needs to be installed, and
nothing is left behind. The exit code is 0 only if everything was equal.`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), a, keep) },
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the folder with the repository and the members")
	return cmd
}

// demoBytes is what the demonstration takes at most: each of three members sets two files
// of 64 MiB aside for its WAL.
const demoBytes = 512 << 20

func runDemo(ctx context.Context, a *app, keep bool) (err error) {
	// The members run in this process, and an etcd whose disk is full ends its process.
	if err := disk.CheckRoom(os.TempDir(), demoBytes); err != nil {
		return backup.WithHint(err, "free some space there, or name another folder: TMPDIR=/var/tmp backupd demo")
	}
	dir, err := os.MkdirTemp("", "backupd-demo-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer func() {
		if keep {
			fmt.Fprintf(a.stdout, "Left for you to look at: %s\n", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	d := &demo{w: a.stdout, dir: dir, tool: version().String(), started: time.Now()}
	if err := d.run(ctx); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, "OK: the restored cluster is equal to the one that was lost.")
	return nil
}
