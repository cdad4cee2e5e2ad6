package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagNames are the flags of all commands. The value says whether a flag takes the next
// argument as its value.
type flagNames struct{ long, short map[string]bool }

func allFlags(root *cobra.Command) flagNames {
	all := flagNames{long: map[string]bool{"help": false}, short: map[string]bool{"h": false}}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		add := func(f *pflag.Flag) {
			all.long[f.Name] = f.NoOptDefVal == ""
			if f.Shorthand != "" {
				all.short[f.Shorthand] = f.NoOptDefVal == ""
			}
		}
		cmd.Flags().VisitAll(add)
		cmd.PersistentFlags().VisitAll(add)
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
	return all
}

// withTwoDashes gives long flags with a single dash their second one, as Go's own programs
// take them. Without that -data-dir=/x is the flag -d with the value ata-dir=/x. A word
// with a single dash that is neither a long nor a short flag is refused.
func withTwoDashes(root *cobra.Command, args []string) ([]string, error) {
	if len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) {
		return args, nil // the last word is not whole
	}
	all := allFlags(root)
	out := slices.Clone(args)
	for i := 0; i < len(args); i++ {
		word, isFlag := strings.CutPrefix(args[i], "-")
		if args[i] == "--" {
			break
		}
		if !isFlag || word == "" {
			continue // an argument; "-" is standard input or output
		}
		name, _, joined := strings.Cut(strings.TrimPrefix(word, "-"), "=")
		takes, long := all.long[name]
		switch {
		case strings.HasPrefix(word, "-"):
		case len(name) == 1:
			takes = all.short[name]
		case long:
			out[i] = "-" + args[i]
		case strings.HasPrefix(word, "w") && (slices.Contains(outputFormats, word[1:]) || word == "wprotobuf"):
			takes = false // -wjson
		default:
			return nil, all.unknown(name)
		}
		if takes && !joined {
			i++ // the value, whatever it looks like
		}
	}
	return out, nil
}

// unknown is the error for a word with a single dash. It does not repeat the word, which
// may hold a password, but for a flag that is nearly right.
func (all flagNames) unknown(name string) error {
	const few = 2 // letters that are wrong
	var names []string
	for long := range all.long {
		names = append(names, long)
	}
	slices.Sort(names)
	if near := nearest(name, names)[0]; distance(name, near) <= few {
		return &usageError{fmt.Errorf("-%s is no flag: did you mean --%s?", name, near)}
	}
	return &usageError{fmt.Errorf("a word that begins with -%.1s is no flag: long flags have two dashes", name)}
}

// checkShort refuses the flag -d where it would mean nothing: no directory has a short
// form.
func checkShort(cmd *cobra.Command) error {
	f := cmd.Flags().Lookup("discovery-srv")
	if f == nil || !f.Changed || f.Annotations[fromEnv] != nil || talksToEtcd(cmd) {
		return nil
	}
	return &usageError{fmt.Errorf("%s does not talk to etcd, and -d is short for --discovery-srv: "+
		"--data-dir has no short form", cmd.CommandPath())}
}
