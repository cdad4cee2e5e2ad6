package main

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestCommands_Habits: a command that a hint prints has what the operator gave, and not how the
// variables of this host make backupd work.
func TestCommands_Habits(t *testing.T) {
	cmd := &cobra.Command{Use: "restore"}
	var spool spoolFlags
	spool.register(cmd, "copy")
	var repo repoFlags
	repo.register(cmd)
	for name, value := range map[string]string{"spool": "/given", "spool-min-free": "0B", "repo": "file:///x"} {
		if err := cmd.Flags().Set(name, value); err != nil {
			t.Fatal(err)
		}
		if name != "spool" {
			annotate(cmd.Flags(), name, fromEnv)
		}
	}
	if got, want := commandWith(cmd, nil, "ID"), "restore ID --repo=file:///x --spool=/given"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestCommands_Idle: a command that a hint prints has no flags that the environment set for
// other commands, and that have no effect on its repository.
func TestCommands_Idle(t *testing.T) {
	for repo, want := range map[string]bool{"file:///x": false, "s3://b": true} {
		cmd := &cobra.Command{Use: "restore"}
		var flags repoFlags
		flags.register(cmd)
		for name, value := range map[string]string{"repo": repo, "s3-endpoint": "https://s3.invalid", "s3-region": "r"} {
			if err := cmd.Flags().Set(name, value); err != nil {
				t.Fatal(err)
			}
		}
		for _, line := range []string{commandWith(cmd, nil, "ID"), commandIn(cmd, "restore", "ID")} {
			if !strings.Contains(line, "--repo="+repo) || strings.Contains(line, "--s3-endpoint=") != want ||
				strings.Contains(line, "--s3-region=") != want {
				t.Errorf("got %s", line)
			}
		}
	}
}
