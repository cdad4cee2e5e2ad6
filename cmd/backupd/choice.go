package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
)

// explainChoice adds a hint to the refusal of a reference: the running command for
// each snapshot that can be chosen.
func explainChoice(cmd *cobra.Command, several *choice.Error, err error) error {
	hints := choices(cmd, several)
	if i := several.Suspect; i != nil {
		hints = append(hints, choiceOf(cmd, "the suspect one, ", *i, "--allow-suspect"))
	}
	return withHints(err, hints...)
}

// choices returns the running command for each snapshot that can be chosen.
func choices(cmd *cobra.Command, several *choice.Error) []string {
	var out []string
	for n, i := range several.Others {
		if n == choicesShown {
			return append(out, fmt.Sprintf("and %d more: backupd list", len(several.Others)-n))
		}
		which := ""
		if keys, known := several.Keys[i.ID]; known {
			which = "the one with " + count(int(keys), "key", "keys") + ", "
		}
		out = append(out, choiceOf(cmd, which, i))
	}
	return out
}

// explainDamage adds to the error of a damaged snapshot the running command for the one
// that can be taken in its place.
func explainDamage(cmd *cobra.Command, in *repository.Cluster, i repository.Item, err error) error {
	if !errors.Is(err, backup.ErrCorrupt) {
		return err
	}
	others, lerr := choice.Alternatives(cmd.Context(), in, i, time.Now())
	if lerr != nil {
		return errors.Join(err, fmt.Errorf("look for another snapshot: %w", lerr))
	}
	return withHints(err, choices(cmd, &choice.Error{Others: others})...)
}

// withHints adds hints, each on its line, after the hint that err may have.
func withHints(err error, hints ...string) error {
	if len(hints) == 0 {
		return err
	}
	if given := hint(err); given != "" {
		hints = slices.Insert(hints, 0, given)
	}
	return backup.WithHint(err, "%s", strings.Join(hints, "\n"))
}

// choicesShown is how many commands are printed.
const choicesShown = 10

// choiceOf is the running command for one snapshot.
func choiceOf(cmd *cobra.Command, which string, i repository.Item, flags ...string) string {
	args := append([]string{string(i.ID), "--cluster=" + i.Cluster}, flags...)
	return fmt.Sprintf("to %s %srevision %d of %s of cluster %s: %s", cmd.Name(), which, i.ID.Revision(),
		i.ID.Time().Format(time.RFC3339), i.Cluster, commandWith(cmd, nil, args...))
}

// idleFlags are the flags that have no effect on the repository of the command.
func idleFlags(cmd *cobra.Command) []string {
	if f := cmd.Flags().Lookup("repo"); f != nil {
		return location.Idle(f.Value.String())
	}
	return nil
}

// habits are the flags that variables gave, and that say how backupd works on this host: they hold
// for the next command as well. Where the data is, and by which keys, is said again: the command
// may be for another host.
func habits(cmd *cobra.Command) []string {
	var out []string
	for _, name := range []string{"spool", "spool-min-free", "max-rate"} {
		if f := cmd.Flags().Lookup(name); f != nil && f.Annotations[fromEnv] != nil {
			out = append(out, name)
		}
	}
	return out
}

// commandWith returns the running command with other arguments, quoted for a shell.
// Arguments may be flags. Of its own flags it keeps those that are neither among
// them nor dropped, and no secret: of --user the name, for whose password it asks.
func commandWith(cmd *cobra.Command, drop []string, args ...string) string {
	// A timeline goes with latest, and the arguments have an id.
	drop = append(slices.Clone(drop), "timeline", "password", "auth-jwt-token")
	drop = append(drop, idleFlags(cmd)...)
	drop = append(drop, habits(cmd)...)
	for _, arg := range args {
		if name, isFlag := strings.CutPrefix(arg, "--"); isFlag {
			name, _, _ = strings.Cut(name, "=")
			drop = append(drop, name)
		}
	}
	words := append(strings.Fields(cmd.CommandPath()), args...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if !f.Changed || slices.Contains(drop, f.Name) || f.Annotations[noEffect] != nil || hiddenIn(cmd, f) {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		for _, v := range values {
			if f.Name == "user" {
				v, _, _ = strings.Cut(v, ":")
			}
			words = append(words, "--"+f.Name+"="+v)
		}
	})
	return shellquote.Join(words...)
}
