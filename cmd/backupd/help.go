package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// topic is a group of flags that many commands have. Their help shows the name of the
// topic in place of the flags.
type topic struct {
	name, short, long string
	// has reports whether a flag is of the topic.
	has func(f *pflag.Flag) bool
}

var topics = []topic{
	{"etcd", "Flags that say how to reach etcd: endpoints, TLS, user, timeouts",
		`The flags of every command that talks to etcd. They mean what they mean to etcdctl, and
may stand before the command. Each can also be given as BACKUPD_<FLAG> or ETCDCTL_<FLAG> in
the environment.`, isConnection},
	{"s3", "Flags that say how to reach a bucket: endpoint, region, credentials, encryption",
		`The flags of every command that takes --repo s3://bucket/prefix. The AWS SDK finds what is
not given in its own places: AWS_* variables, the shared configuration, the role of the
machine. Each flag can also be given as BACKUPD_S3_<NAME> in the environment, and all of
them in the daemon's configuration, in the section s3 of a repository. 'backupd copy' has
two repositories, and takes each flag with from- and with to- before it, such as
--to-s3-endpoint, on its command line only.`,
		func(f *pflag.Flag) bool { return strings.HasPrefix(withoutSide(f.Name), "s3-") }},
}

// withoutSide returns the flag of which a command that has two repositories has one for each.
func withoutSide(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, "from-"), "to-")
}

// isConnection reports whether f is a global flag that says how to reach etcd.
func isConnection(f *pflag.Flag) bool {
	return f.Annotations[fromEtcdctl] != nil && !slices.Contains(outputFlags, f.Name)
}

// addTopics adds the topics, and keeps their flags out of the help of all else. A command
// that talks to no etcd does not name that topic either.
func addTopics(root *cobra.Command) {
	for _, t := range topics {
		root.AddCommand(&cobra.Command{Use: t.name, Short: t.short, Long: t.long})
	}
	root.SetHelpCommand(newHelpCommand())
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		its := slices.IndexFunc(topics, func(t topic) bool { return "backupd "+t.name == cmd.CommandPath() })
		if its >= 0 {
			help(cmd, args)
			printTopic(root, topics[its])
			return
		}
		all := flagsOf(cmd)
		named := folded(cmd, all)
		for _, f := range all {
			f.Hidden = f.Hidden || slices.ContainsFunc(topics, func(t topic) bool { return t.has(f) })
		}
		help(cmd, args)
		if len(named) > 0 && cmd.HasParent() { // the help of the program itself lists them
			cmd.Print("\nMore flags:\n" + strings.Join(named, ""))
		}
	})
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command or topic]",
		Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, _, err := cmd.Root().Find(args)
			if err != nil {
				return &usageError{err}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var out []string
			if about, _, err := cmd.Root().Find(args); err == nil {
				for _, c := range about.Commands() {
					if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
						out = append(out, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

func flagsOf(cmd *cobra.Command) []*pflag.Flag {
	var out []*pflag.Flag
	cmd.InheritedFlags() // which adds them
	cmd.Flags().VisitAll(func(f *pflag.Flag) { out = append(out, f) })
	return out
}

// folded returns a line for each topic whose flags a command takes.
func folded(cmd *cobra.Command, flags []*pflag.Flag) []string {
	var out []string
	for _, t := range topics {
		its := slices.ContainsFunc(flags, func(f *pflag.Flag) bool { return t.has(f) && !hiddenIn(cmd, f) })
		if its {
			out = append(out, fmt.Sprintf("  backupd help %-5s  %s\n", t.name, t.short))
		}
	}
	return out
}

// printTopic prints the flags of a topic, as one of the commands that take them has them.
func printTopic(root *cobra.Command, t topic) {
	set := pflag.NewFlagSet(t.name, pflag.ContinueOnError)
	for _, cmd := range append(root.Commands(), root) {
		for _, f := range flagsOf(cmd) {
			if t.has(f) && withoutSide(f.Name) == f.Name && set.Lookup(f.Name) == nil {
				set.AddFlag(f)
			}
		}
	}
	root.Print("\nFlags:\n" + set.FlagUsages())
}
