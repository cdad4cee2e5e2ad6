package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// explainChoice adds a hint to the refusal of a reference: the running command for
// each snapshot that can be chosen.
func explainChoice(cmd *cobra.Command, choice *repository.ChoiceError, err error) error {
	verb := cmd.Name()
	var hints []string
	for _, i := range choice.Others {
		hints = append(hints, fmt.Sprintf("to %s revision %d of %s: %s", verb, i.ID.Revision(),
			i.ID.Time().Format(time.RFC3339), commandWith(cmd, string(i.ID))))
	}
	if i := choice.Suspect; i != nil {
		hints = append(hints, fmt.Sprintf("to %s the suspect one, revision %d of %s: %s", verb, i.ID.Revision(),
			i.ID.Time().Format(time.RFC3339), commandWith(cmd, string(i.ID), "--allow-suspect")))
	}
	if len(hints) == 0 {
		return err
	}
	return backup.WithHint(err, "%s", strings.Join(hints, "\n"))
}

// commandWith returns the running command with other arguments.
func commandWith(cmd *cobra.Command, args ...string) string {
	words := append(strings.Fields(cmd.CommandPath()), args...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if slices.Contains(args, "--"+f.Name) {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			words = append(words, "--"+f.Name+"="+v)
		}
	})
	return shellquote.Join(words...)
}
