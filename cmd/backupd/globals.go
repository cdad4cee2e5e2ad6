package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

// globalFlags are etcdctl's global flags, which may come before any command, and
// backupd's own.
type globalFlags struct {
	cluster.Config
	dialTimeout    time.Duration
	commandTimeout time.Duration
	writeOut       string
	logFormat      string
	logLevel       string
}

// Annotations on flags.
const (
	fromEtcdctl = "etcdctl"     // ETCDCTL_<NAME> is honoured
	noEffect    = "ignored"     // accepted because etcd's tools have it
	fromEnv     = "environment" // the value comes from a variable
)

func (g *globalFlags) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringSliceVar(&g.Endpoints, "endpoints", []string{"127.0.0.1:2379"}, "etcd endpoints, separated by commas")
	f.DurationVar(&g.dialTimeout, "dial-timeout", 2*time.Second, "how long connecting may take")
	f.DurationVar(&g.commandTimeout, "command-timeout", 5*time.Second,
		"how long a short request may take; if it is given, also how long a whole 'snapshot save' may take")
	f.DurationVar(&g.KeepAliveTime, "keepalive-time", 2*time.Second,
		"keepalive time of connections (at least 10s is used, because etcd refuses less)")
	f.DurationVar(&g.KeepAliveTimeout, "keepalive-timeout", 6*time.Second, "keepalive timeout of connections")
	f.IntVar(&g.MaxCallSendBytes, "max-request-bytes", 0, "maximum bytes that are sent in one request")
	f.IntVar(&g.MaxCallRecvBytes, "max-recv-bytes", 0, "maximum bytes that are received in one answer")
	f.BoolVar(&g.InsecureTransport, "insecure-transport", true, "allow endpoints without TLS")
	f.BoolVar(&g.InsecureDiscovery, "insecure-discovery", true, "accept SRV records for endpoints without TLS")
	f.BoolVar(&g.InsecureSkipVerify, "insecure-skip-tls-verify", false, "do not verify server certificates")
	f.StringVar(&g.CertFile, "cert", "", "client certificate file")
	f.StringVar(&g.KeyFile, "key", "", "client key file")
	f.StringVar(&g.CAFile, "cacert", "", "CA bundle that server certificates are verified against")
	f.StringVar(&g.Token, "auth-jwt-token", "", "JWT instead of user and password")
	f.StringVar(&g.Username, "user", "", "etcd user, as name or name:password; needs the role root")
	f.StringVar(&g.Password, "password", "", "password of --user")
	f.StringVarP(&g.DiscoverySRV, "discovery-srv", "d", "", "domain whose SRV records name the endpoints")
	f.StringVar(&g.DiscoverySRVName, "discovery-srv-name", "", "service name for --discovery-srv")
	f.DurationVar(&g.StallTimeout, "stall-timeout", 30*time.Second,
		"how long a snapshot stream may be silent before another member is asked")
	f.StringVarP(&g.writeOut, "write-out", "w", "simple", "output format: simple, table, json, fields")
	f.StringVar(&g.logFormat, "log-format", "text", "format of log lines: text, json")
	f.StringVar(&g.logLevel, "log-level", "info", "lowest level of log lines: debug, info, warn, error")
	f.Bool("debug", false, "")
	f.Bool("hex", false, "")
	f.Duration("timeout", 0, "")
	for _, name := range []string{"debug", "hex", "timeout"} {
		annotate(f, name, noEffect)
		_ = f.MarkHidden(name) // it exists
	}
	f.VisitAll(func(fl *pflag.Flag) { annotate(f, fl.Name, fromEtcdctl) })
	mustRegister(root.RegisterFlagCompletionFunc("write-out", fixed(outputFormats...)))
	mustRegister(root.RegisterFlagCompletionFunc("log-format", fixed("text", "json")))
	mustRegister(root.RegisterFlagCompletionFunc("log-level", fixed("debug", "info", "warn", "error")))
}

var outputFormats = []string{"simple", "table", "json", "fields"}

// outputFlags are the global flags that every command has a use for.
var outputFlags = []string{"write-out", "log-format", "log-level"}

// hiddenIn reports whether f is a flag for etcd, perhaps a password from the
// environment, and cmd does not talk to etcd.
func hiddenIn(cmd *cobra.Command, f *pflag.Flag) bool {
	return !talksToEtcd(cmd) && f.Annotations[fromEtcdctl] != nil && !slices.Contains(outputFlags, f.Name)
}

func talksToEtcd(cmd *cobra.Command) bool { return cmd.Annotations[fromEtcdctl] != "" }

// needsEtcd marks a command that talks to etcd.
var needsEtcd = map[string]string{fromEtcdctl: "yes"}

func fixed(values ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// mustRegister panics if a flag that was just defined does not exist.
func mustRegister(err error) {
	if err != nil {
		panic("backupd: internal error: " + err.Error())
	}
}

func annotate(f *pflag.FlagSet, name, key string) {
	mustRegister(f.SetAnnotation(name, key, []string{"yes"}))
}

// ignoresFormat lists the commands that do so in etcd's tools.
var ignoresFormat = []string{"backupd snapshot save", "backupd snapshot restore"}

func (g *globalFlags) check(cmd *cobra.Command) error {
	known := slices.Contains(outputFormats, g.writeOut)
	if !known && slices.Contains(ignoresFormat, cmd.CommandPath()) {
		g.writeOut = "simple"
		return nil
	}
	if !known {
		return &usageError{fmt.Errorf("output format %q is not supported: want simple, table, json or fields", g.writeOut)}
	}
	return nil
}

// ignored lists the flags that were given and have no effect.
func (g *globalFlags) ignored(cmd *cobra.Command) []string {
	var out []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Annotations[noEffect] != nil {
			out = append(out, f.Name)
		}
	})
	return out
}

// connect makes the cluster that the flags describe. It connects to nothing.
func (a *app) connect() (*cluster.Cluster, error) {
	conf := a.global.Config
	conf.RequestTimeout = max(a.global.dialTimeout, a.global.commandTimeout)
	conf.Log = a.log.slog
	if conf.Username != "" && conf.Password == "" {
		name, password, given := strings.Cut(conf.Username, ":")
		if !given {
			var err error
			if password, err = a.askPassword(name); err != nil {
				return nil, err
			}
		}
		conf.Username, conf.Password = name, password
	}
	conf, err := conf.Discover()
	if err != nil {
		return nil, err
	}
	c, err := cluster.New(conf)
	if err != nil {
		return nil, &usageError{err}
	}
	return c, nil
}

func (a *app) askPassword(user string) (string, error) {
	password, err := a.askSecret("Password for " + user)
	if errors.Is(err, errNoTerminal) {
		return "", &usageError{fmt.Errorf(
			"no password for user %s: give --password (ETCDCTL_PASSWORD) or --user NAME:PASSWORD", user)}
	}
	return password, err
}

var errNoTerminal = errors.New("nobody can be asked: the standard input is no terminal")

// askSecret asks the person at the terminal for a secret, which is not shown.
func (a *app) askSecret(prompt string) (string, error) {
	in, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errNoTerminal
	}
	fmt.Fprint(a.stderr, prompt+": ")
	raw, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(a.stderr)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", strings.ToLower(prompt), err)
	}
	return string(raw), nil
}
