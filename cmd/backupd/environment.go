package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// variables are the flags that BACKUPD_<FLAG> may give, beside etcdctl's global flags and
// the settings of stores: they say where things are, how to reach them and in which form.
// A variable stays set for commands that nobody thought of. So a flag that says how much a
// command does, and what it may do, stands on the command line only.
var variables = []string{
	"cacert", "cert", "cluster", "compression", "config", "identity", "key", "max-rate", "metrics-file", "recipient",
	"recipients-file", "repo", "repo-id", "server", "spool", "spool-min-free", "token-file",
}

// overruled lists the flags that the flag before the colon overrules: if it stands on the
// command line, a variable does not give them.
var overruled = map[string][]string{
	"unencrypted":       {"recipient", "recipients-file"},
	"endpoints":         {"discovery-srv"},
	"discovery-srv":     {"endpoints"},
	"user":              {"auth-jwt-token"},
	"auth-jwt-token":    {"user", "password"},
	"cacert":            {"insecure-skip-tls-verify"},
	"recipient":         {"recipients-file"},
	"recipients-file":   {"recipient"},
	"repo":              {"config"},
	"s3-sse":            {"s3-sse-c-key-file"},
	"s3-sse-c-key-file": {"s3-sse", "s3-sse-kms-key-id"},
}

// environment sets the flags of one command from variables.
type environment struct {
	cmd      *cobra.Command
	lookup   func(string) (string, bool)
	given    []string // the flags on the command line
	warnings []string
}

// applyEnvironment sets the flags that the command line did not: by BACKUPD_<FLAG> or else,
// for the flags that etcdctl has, by ETCDCTL_<FLAG>. It returns what the log should say.
func applyEnvironment(cmd *cobra.Command, lookup func(string) (string, bool)) (warnings []string, err error) {
	e := &environment{cmd: cmd, lookup: lookup}
	var errs []error
	cmd.Flags().Visit(func(f *pflag.Flag) {
		e.given = append(e.given, f.Name)
		errs = append(errs, checkNotEmpty("--"+f.Name, f))
	})
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed && f.Name != "help" {
			errs = append(errs, e.apply(f))
		}
	})
	if err := e.splitUser(); err != nil {
		errs = append(errs, err)
	}
	return e.warnings, errors.Join(errs...)
}

// checkNotEmpty refuses an empty text, and one of spaces alone: it mostly comes from a variable
// of a shell that is not set, and must not mean the same as no flag. A password may be spaces.
func checkNotEmpty(source string, f *pflag.Flag) error {
	values := []string{"a value of another type"}
	if list, ok := f.Value.(pflag.SliceValue); ok {
		values = append(list.GetSlice(), "")[:max(1, len(list.GetSlice()))]
	} else if f.Value.Type() == "string" {
		values = []string{f.Value.String()}
	}
	if slices.Contains(values, "") || f.Name != "password" && slices.ContainsFunc(values, isBlank) {
		return &usageError{fmt.Errorf("%s is empty: give it a value, or leave it out", source)}
	}
	return nil
}

func isBlank(text string) bool { return strings.TrimSpace(text) == "" }

func (e *environment) apply(f *pflag.Flag) error {
	names := []string{prefix + suffix(f.Name)}
	if f.Annotations[fromEtcdctl] != nil {
		names = append(names, "ETCDCTL_"+suffix(f.Name))
	}
	for _, name := range names {
		value, ok := e.lookup(name)
		switch {
		case !ok || e.overruled(f.Name, name):
			continue
		case weakening(f) && strings.HasPrefix(name, prefix) && hiddenIn(e.cmd, f):
			continue
		case !mayBeVariable(f) || weakening(f) && strings.HasPrefix(name, prefix):
			return &usageError{fmt.Errorf("%s is set, but only the command line may give --%s: unset %s", name, f.Name, name)}
		case isBlank(value) && hiddenIn(e.cmd, f):
			continue // it is nothing to this command
		case value == "":
			return &usageError{fmt.Errorf("%s is set but empty: unset it, or give it a value", name)}
		}
		return e.set(f, name, value)
	}
	return nil
}

// mayBeVariable reports whether a variable may give f.
func mayBeVariable(f *pflag.Flag) bool {
	var o location.Options
	return f.Annotations[fromEtcdctl] != nil || slices.Contains(variables, f.Name) ||
		slices.ContainsFunc(o.Settings(), func(s location.Setting) bool { return s.Section+"-"+s.Key == f.Name })
}

// weakening reports whether f lets others listen, or answer in etcd's place. The variables of
// etcdctl give such a flag, because they do for etcdctl; ours do not.
func weakening(f *pflag.Flag) bool { return strings.HasPrefix(f.Name, "insecure-") }

// overruled reports whether a flag on the command line overrules that a variable gives
// name. A variable of ours overrules those of etcdctl in the same way.
func (e *environment) overruled(name, variable string) bool {
	for by, names := range overruled {
		_, ours := e.lookup(prefix + suffix(by))
		ours = ours && !strings.HasPrefix(variable, prefix)
		if slices.Contains(names, name) && (ours || slices.Contains(e.given, by)) {
			return true
		}
	}
	return false
}

// prefix is of the variables that are ours.
const prefix = "BACKUPD_"

func suffix(flag string) string { return strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) }

func (e *environment) set(f *pflag.Flag, name, value string) error {
	err := e.cmd.Flags().Set(f.Name, value)
	if err == nil {
		if f.Name == "insecure-skip-tls-verify" && f.Value.String() == "true" && !hiddenIn(e.cmd, f) {
			e.warnings = append(e.warnings, name+" is set: no server's certificate is verified, so any host that answers "+
				"could send any database")
		}
		annotate(e.cmd.Flags(), f.Name, fromEnv)
		return checkNotEmpty(name, f)
	}
	numeric := slices.Contains([]string{"duration", "int"}, f.Value.Type())
	if !numeric || strings.HasPrefix(name, prefix) {
		return flagError(fmt.Errorf("%s: %w", name, err))
	}
	// As etcdctl does. The flag must have its default again.
	e.warnings = append(e.warnings, fmt.Sprintf("%s is not usable and is ignored: %v", name, errors.Unwrap(err)))
	return f.Value.Set(f.DefValue)
}

// splitUser settles which of two passwords counts, the one of --user NAME:PASSWORD or
// --password: that on the command line.
func (e *environment) splitUser() error {
	user, password := e.cmd.Flags().Lookup("user"), e.cmd.Flags().Lookup("password")
	name, _, both := strings.Cut(user.Value.String(), ":")
	switch {
	case !both || slices.Contains(e.given, user.Name) == slices.Contains(e.given, password.Name):
		return nil
	case slices.Contains(e.given, user.Name):
		return password.Value.Set("")
	}
	return user.Value.Set(name)
}

// flagError makes a usage error of a flag's. It repeats no value that may hold a secret.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	switch {
	case !errors.As(err, &invalid):
	case invalid.GetFlag().Name == "endpoints" && strings.Contains(invalid.GetValue(), "@"):
		err = cluster.ErrCredentials
	case invalid.GetFlag().Name == "endpoints" && strings.ContainsAny(invalid.GetValue(), "?#"):
		err = endpoint.ErrMore
	case secret.Holds(invalid.GetValue()):
		err = fmt.Errorf("invalid argument %q for --%s", secret.Show(invalid.GetValue()), invalid.GetFlag().Name)
	}
	return &usageError{err}
}

// givenCluster returns the clusters of a configuration that --cluster names. The
// variable of the flag is there for other commands: it must not silently narrow what is
// done for a configuration.
func givenCluster(cmd *cobra.Command, value string) string {
	if cmd.Flags().Lookup("cluster").Annotations[fromEnv] != nil {
		return ""
	}
	return value
}

// excludeConfig refuses flags for what a configuration file says. Variables give
// way to the file: they are there for other commands.
func excludeConfig(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Annotations[fromEnv] == nil {
			return &usageError{fmt.Errorf("--%s and --config exclude each other: the file says it", name)}
		}
	}
	return nil
}
