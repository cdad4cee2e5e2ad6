package main

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
)

func printFinished(a *app, s restore.Summary) error {
	if !a.forMachines() {
		fmt.Fprintf(a.stdout, "Finished the interrupted restore of %s\n", s.Source)
	}
	return printRestored(a, s)
}

func printRestored(a *app, s restore.Summary) error {
	for _, t := range s.Targets { // scripts look for etcdutl's line
		a.log.slog.Info("restored snapshot", "path", strings.TrimPrefix(s.Source, "file "),
			"wal-dir", cmp.Or(t.WALDir, filepath.Join(t.DataDir, "member", "wal")), "data-dir", t.DataDir,
			"snap-dir", filepath.Join(t.DataDir, "member", "snap"))
	}
	if printed, err := a.document(kindRestore, s); printed {
		return err
	}
	for _, t := range s.Targets {
		fmt.Fprintf(a.stdout, "Restored member %s to %s\n", t.Name, t.DataDir)
		for _, dir := range t.OldData {
			fmt.Fprintf(a.stdout, "Its old data is in %s\n", dir)
		}
		if len(t.Strays) > 0 {
			fmt.Fprintf(a.stdout, "There is also what is not etcd's: %s\n", shellquote.Join(t.Strays...))
		}
	}
	from := s.Source
	if !s.Taken.IsZero() {
		from += ", taken " + age(s.Taken, time.Now()) + " ago"
	}
	fmt.Fprintf(a.stdout, "From %s\n", from)
	fmt.Fprintf(a.stdout, "Cluster token: %s\n", s.Token)
	for _, t := range s.Targets {
		if s.Start != "" {
			fmt.Fprintf(a.stdout, "Start %s on this host: %s\n", etcdToStart(s.EtcdVersion), s.Start)
			continue
		}
		fmt.Fprintf(a.stdout, "Start %s with its usual flags, as: %s ...\n", etcdToStart(s.EtcdVersion),
			shellquote.Join(startCommand(s, t)...))
	}
	if len(s.Members) > 1 {
		fmt.Fprintf(a.stdout, "Once a member has started, never restore it again with this token: it would have forgotten "+
			"what it has confirmed. Replace it then: backupd member replace\n")
	}
	if len(s.Others) > 0 {
		fmt.Fprintf(a.stdout, "Restore the other members that are not restored yet by these commands, each on its host. "+
			"Change nothing but the directories, the owner and the places of files. "+
			"A host that has old data needs --replace, too: look at it first.\n")
		for _, c := range s.Others {
			fmt.Fprintf(a.stdout, "  %s\n", c.Line)
		}
	}
	if s.Accept != "" {
		fmt.Fprintf(a.stdout, "Backups of the new cluster exit with 4 until its history is accepted:\n  %s\n", s.Accept)
	}
	return nil
}

// etcdToStart names the etcd that can be started on data of a version.
func etcdToStart(version string) string {
	parts := strings.SplitN(version, ".", 3)
	switch len(parts) {
	case 3:
		return fmt.Sprintf("etcd %s.%s (the data is of %s)", parts[0], parts[1], version)
	case 2:
		return "etcd " + version
	}
	return "it"
}

// startCommand begins the command line of a restored member.
func startCommand(s restore.Summary, t restore.SummaryTarget) []string {
	i := slices.IndexFunc(s.Members, func(m backup.Member) bool { return m.Name == t.Name })
	words := []string{"etcd", "--name", t.Name, "--data-dir", t.DataDir}
	if t.WALDir != "" {
		words = append(words, "--wal-dir", t.WALDir)
	}
	urls := s.Members[i].PeerURLs
	return append(words, "--initial-advertise-peer-urls", strings.Join(urls, ","),
		"--listen-peer-urls", strings.Join(listenURLs(urls), ","))
}

// listenURLs returns the URLs on which a member can listen that is known by these: etcd
// listens on addresses, and not on names.
func listenURLs(peerURLs []string) []string {
	var out []string
	for _, raw := range peerURLs {
		u, err := url.Parse(raw)
		if err == nil && !strings.HasPrefix(u.Scheme, "unix") && u.Hostname() != "localhost" &&
			net.ParseIP(u.Hostname()) == nil {
			raw = (&url.URL{Scheme: u.Scheme, Host: net.JoinHostPort("0.0.0.0", u.Port())}).String()
		}
		if !slices.Contains(out, raw) {
			out = append(out, raw)
		}
	}
	return out
}
