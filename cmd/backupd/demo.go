package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
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

func runDemo(ctx context.Context, a *app, keep bool) (err error) {
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
