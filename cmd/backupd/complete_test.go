package main

import (
	"context"
	"testing"

	"github.com/spf13/cobra"
)

// TestCompletion_Hangs: a shell does not wait for a store that never answers.
func TestCompletion_Hangs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	started, never := make(chan bool), make(chan bool)
	defer close(never)
	cmd := &cobra.Command{}
	cmd.SetContext(ctx)
	complete := completion(func(ctx context.Context, _ *cobra.Command, _ []string) []string {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("there is no limit of time")
		}
		close(started)
		<-never
		return nil
	})
	go func() {
		<-started
		cancel()
	}()
	if got, directive := complete(cmd, nil, ""); len(got) > 0 || directive&cobra.ShellCompDirectiveNoFileComp == 0 {
		t.Errorf("got %q, %v", got, directive)
	}
}
