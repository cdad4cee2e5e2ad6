package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// replaced describes what a replacement has done, or would do.
type replaced struct {
	DryRun bool `json:"dryRun"`
	replace.Report
	// Line begins the command line that starts the new member. Start is how it is started, if
	// the operator's own files say it.
	Line  string `json:"line,omitempty"`
	Start string `json:"start,omitempty"`
}

func runMemberReplace(cmd *cobra.Command, a *app, o replaceOptions) (err error) {
	host, err := o.readFiles()
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if err := checkStanding(restore.Site{DataDir: o.DataDir, WALDir: o.WALDir}); err != nil {
		return err
	}
	if o.PeerURLs, err = peerURLs(o.Name, o.PeerURLs); err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close() // returns none
	people := io.Writer(a.stdout)
	if a.forMachines() {
		people = a.stderr // the answer has standard output for itself
	}
	o.Log = a.log.slog
	o.Tell = func(_ replace.Step, text string) {
		if o.DryRun {
			text = "Would " + text
		} else {
			text = strings.ToUpper(text[:1]) + text[1:] + " ..."
		}
		fmt.Fprintln(people, secret.ShowText(text))
	}
	o.Ready = func(s replace.Settings) error { return checkReady(people, host, o.exec, s) }
	o.Waiting = func(text string) { fmt.Fprintf(people, "Waiting: %s\n", secret.ShowText(text)) }
	o.Starter = func(_ context.Context, s replace.Settings) (<-chan error, error) {
		if o.exec != "" {
			fmt.Fprintf(people, "Running: %s\n", secret.ShowText(o.exec))
			return start(o.exec, startFlags(s))
		}
		printStart(people, host, s)
		fmt.Fprintln(people, "Waiting for it. Interrupt this if you like: the same command goes on from here.")
		return nil, nil
	}
	o.Done = func(r *replace.Report) error {
		return printReplaced(a, host, describeReplaced(o.DryRun, host, r))
	}
	_, err = replace.Run(cmd.Context(), c, o.Options)
	return explainUnknown(cmd, explainURLs(cmd, err))
}

// readFiles takes from the files of --from what no flag says, and returns their member, or nil
// without any.
func (o *replaceOptions) readFiles() (*settings.Host, error) {
	if o.chown != "" {
		owner, err := parseOwner(o.chown)
		if err != nil {
			return nil, &usageError{fmt.Errorf("--chown %q: %w", o.chown, err)}
		}
		o.Owner = (*replace.Owner)(owner)
	}
	t := targetFlags{name: o.Name, dataDir: o.DataDir, walDir: o.WALDir}
	found, err := o.from.read(&t, false)
	if err != nil || found == nil {
		return nil, err
	}
	h := found.Host
	o.Name, o.DataDir, o.WALDir = t.name, t.dataDir, t.walDir
	o.FromFiles = true
	if h.PeerURLsAt.File != "" {
		o.Advertised = h.PeerURLs
	}
	if o.Removed && len(o.PeerURLs) == 0 {
		o.PeerURLs = o.Advertised
	}
	if o.Owner == nil {
		owner, err := ownerOf(h)
		if err != nil {
			return nil, err
		}
		o.Owner = (*replace.Owner)(owner)
	}
	var kept []inuse.Kept
	for _, file := range found.Files {
		kept = append(kept, inuse.Kept{What: "a file of --from", Path: file})
	}
	return h, errors.Join(inuse.Apart("--data-dir", o.DataDir, kept), inuse.Apart("--wal-dir", o.WALDir, kept))
}

// explainURLs adds both commands where the cluster and the files differ.
func explainURLs(cmd *cobra.Command, err error) error {
	var urls *replace.URLsError
	if !errors.As(err, &urls) {
		return err
	}
	return withHints(err,
		"to keep those of the cluster, set them in the member's settings, too: "+
			commandWith(cmd, nil, "--peer-urls="+strings.Join(urls.Cluster, ",")),
		"to give the new member those of its settings: "+
			commandWith(cmd, nil, "--peer-urls="+strings.Join(urls.Advertised, ",")))
}

// explainUnknown adds the command for a member that an earlier call, with another folder, has
// added already.
func explainUnknown(cmd *cobra.Command, err error) error {
	var unknown *replace.UnknownError
	if !errors.As(err, &unknown) || len(unknown.Added) == 0 {
		return err
	}
	var hints []string
	for _, m := range unknown.Added {
		urls := strings.Join(m.PeerURLs, ",")
		hints = append(hints, fmt.Sprintf("a learner at %s (%s) was added, and has never started; if that is to be %s: %s",
			secret.ShowText(urls), m.ID, unknown.Member, commandWith(cmd, nil, "--removed", "--peer-urls="+urls)))
	}
	return withHints(err, hints...)
}

func describeReplaced(dryRun bool, host *settings.Host, r *replace.Report) replaced {
	out := replaced{DryRun: dryRun, Report: *r, Line: secret.ShowText(startLine(r.Settings))}
	if host == nil {
		return out
	}
	out.Line, out.Start = "", startOf(host) // the paths of a container are not those of this host
	for _, n := range host.Notes {
		out.Notes = append(out.Notes, n.String())
	}
	return out
}

// peerURLs checks URLs as etcd would read them in the list of members.
func peerURLs(name string, urls []string) ([]string, error) {
	if len(urls) == 0 {
		return nil, nil
	}
	var pairs []string
	for _, u := range urls {
		pairs = append(pairs, name+"="+u)
	}
	parsed, err := members.Parse(strings.Join(pairs, ","))
	if err != nil || len(parsed) != 1 {
		return nil, &usageError{fmt.Errorf("--peer-urls %s: want URLs such as https://10.0.0.2:2380, separated by commas",
			secret.Show(strings.Join(urls, ",")))}
	}
	return parsed[0].PeerURLs, nil
}

// startFlags are the flags of etcd that a new member needs beside its usual ones.
func startFlags(s replace.Settings) []string {
	words := []string{"--name", s.Name, "--data-dir", s.DataDir}
	if s.WALDir != "" {
		words = append(words, "--wal-dir", s.WALDir)
	}
	return append(words, "--initial-advertise-peer-urls", strings.Join(s.PeerURLs, ","),
		"--listen-peer-urls", strings.Join(listenURLs(s.PeerURLs), ","),
		"--initial-cluster", s.InitialCluster, "--initial-cluster-state", "existing")
}

func startLine(s replace.Settings) string {
	if s.Name == "" {
		return ""
	}
	return shellquote.Join(append([]string{"etcd"}, startFlags(s)...)...)
}

// start runs the command that starts the member, in a session of its own: an etcd in it goes on
// when this process ends, however that is.
func start(command string, flags []string) (<-chan error, error) {
	cmd := exec.Command("sh", slices.Concat([]string{"-c", command, "sh"}, flags)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = withoutOurs(os.Environ())
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run the command that starts the member: %w", err)
	}
	failed := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("its command has ended: %w", err)
		}
		failed <- err
	}()
	return failed, nil
}

// withoutOurs leaves out of an environment what is for this process: passwords and keys, which a
// server that runs for months would show to everybody who may read its environment.
func withoutOurs(environ []string) []string {
	return slices.DeleteFunc(environ, func(v string) bool {
		return slices.ContainsFunc([]string{"ETCDCTL_", "BACKUPD_", "AWS_"}, func(p string) bool {
			return strings.HasPrefix(v, p)
		})
	})
}

func printReplaced(a *app, host *settings.Host, r replaced) error {
	if printed, err := a.document(kindMemberReplaced, r); printed {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintf(a.stdout, "Note: %s\n", n)
	}
	if r.DryRun {
		fmt.Fprintln(a.stdout, "It would say:")
		printStart(a.stdout, host, r.Settings)
		fmt.Fprintln(a.stdout, "Nothing was changed.")
		return nil
	}
	for _, dir := range r.OldData {
		fmt.Fprintf(a.stdout, "The old data is in %s\n", dir)
	}
	fmt.Fprintf(a.stdout, "Replaced member %s: it is %s now, votes, and holds the same keys as member %s, by HashKV\n",
		r.Member, r.MemberID, r.ComparedWith)
	return nil
}
