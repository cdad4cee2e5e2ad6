// Package runbook writes down how one cluster is restored by its plan: every step, with the
// commands of each host. It is text for a terminal that is good Markdown as well. It reads and
// asks nothing: what the plan and the operator's files do not say stands in capitals.
package runbook

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// Options are what a runbook depends on besides the plan.
type Options struct {
	// File is the absolute path of the plan on the host where the runbook is written.
	File string
	// Now is when it is written.
	Now time.Time
	// Places are more than the plan has, of files that were given later.
	Places []restore.Place
	// Notes are on those files.
	Notes []string
}

// node is one member on its host.
type node struct {
	backup.Member
	// host is that of the first peer URL, oldHost that of the old member of this name, and
	// clients are its client URLs.
	host, oldHost string
	clients       []string
	place         restore.Place
	// planned is true if the plan has the place: the restore finds it there.
	planned bool
	// plannedOwner is true if the plan has the owner, and the restore needs no --chown.
	plannedOwner bool
	// like is the member whose place this one may have; empty if nothing is assumed.
	like string
}

// book is a runbook that is being written.
type book struct {
	page
	plan  *restore.Plan
	o     Options
	nodes []node
}

// Write returns the runbook of a plan. It fails for a plan that was not sealed.
func Write(p *restore.Plan, o Options) (string, error) {
	if p.Stored.Snapshot == "" || len(p.Members) == 0 {
		return "", fmt.Errorf("the plan has no snapshot or no members")
	}
	b := &book{plan: p, o: o, nodes: nodesOf(p, o.Places)}
	introduce(b)
	carry(b)
	stopAll(b)
	restoreAll(b)
	startAll(b)
	verify(b)
	afterwards(b)
	conclude(b)
	return b.String(), nil
}

// nodesOf collects what is known of each member.
func nodesOf(p *restore.Plan, more []restore.Place) []node {
	var out []node
	for _, m := range p.Members {
		n := node{Member: m, place: p.PlaceOf(m.Name), host: hostOf(m.PeerURLs)}
		n.planned, n.plannedOwner = n.place.DataDir != "", n.place.Owner != ""
		i := slices.IndexFunc(more, func(at restore.Place) bool { return at.Member == m.Name })
		if i >= 0 {
			n.place = merge(n.place, more[i])
		}
		for _, old := range p.Source.Members {
			if old.Name == m.Name {
				n.clients, n.oldHost = old.ClientURLs, hostOf(old.PeerURLs)
			}
		}
		out = append(out, n)
	}
	var known []node
	for _, n := range out {
		if n.place.Means != "" {
			known = append(known, n)
		}
	}
	for i := range out {
		if len(known) > 0 && out[i].place.Means == "" {
			out[i].assume(known)
		}
	}
	return out
}

// merge fills what the plan does not say from a file that was given later.
func merge(plan, file restore.Place) restore.Place {
	if plan.DataDir != "" {
		file.DataDir, file.WALDir, file.Volume = plan.DataDir, plan.WALDir, nil
	}
	if plan.Volume != nil {
		file.Volume = plan.Volume
	}
	if plan.Means != "" {
		plan.DataDir, plan.WALDir, plan.Volume = file.DataDir, file.WALDir, file.Volume
		return plan
	}
	return file
}

// assume takes over from the members that are known what is the same for all of them, and
// has nothing of one of them in it.
func (n *node) assume(known []node) {
	var names []string
	for _, k := range known {
		names = append(names, k.Name)
	}
	alike := func(of func(restore.Place) string) string {
		text := of(known[0].place)
		for _, k := range known {
			if of(k.place) != text || strings.Contains(text, k.Name) {
				return ""
			}
		}
		return text
	}
	own := n.place
	n.like = strings.Join(names, ", ")
	n.place = restore.Place{
		Member:    n.Name,
		Means:     members.Means(alike(func(p restore.Place) string { return string(p.Means) })),
		Unit:      alike(func(p restore.Place) string { return p.Unit }),
		Service:   alike(func(p restore.Place) string { return p.Service }),
		Namespace: alike(func(p restore.Place) string { return p.Namespace }),
		File:      alike(func(p restore.Place) string { return p.File }),
		Owner:     alike(func(p restore.Place) string { return p.Owner }),
		DataDir:   alike(func(p restore.Place) string { return p.DataDir }),
		WALDir:    alike(func(p restore.Place) string { return p.WALDir }),
	}
	if n.place.WALDir == "" && !slices.ContainsFunc(known, func(k node) bool { return k.place.WALDir == "" }) {
		n.place.WALDir = unknownWAL
	}
	if own.DataDir != "" {
		n.place.DataDir, n.place.WALDir = own.DataDir, own.WALDir
	}
}

// unknownWAL stands for a WAL directory of which nothing is known but that there is one.
const unknownWAL = "?"

func hostOf(urls []string) string {
	for _, raw := range urls {
		if u, err := url.Parse(raw); err == nil && u.Hostname() != "" {
			return u.Hostname()
		}
	}
	return ""
}

// listening is the filter of ss for the sockets on which a member listens: at its own
// addresses, or at all of its host.
func listening(urls ...string) string {
	var terms []string
	add := func(term string) {
		if !slices.Contains(terms, term) {
			terms = append(terms, term)
		}
	}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Port() == "" {
			continue
		}
		if net.ParseIP(u.Hostname()) == nil {
			add("sport = :" + u.Port())
			continue
		}
		add("src = " + net.JoinHostPort(u.Hostname(), u.Port()))
		add("src = 0.0.0.0:" + u.Port())
		add("src = [::]:" + u.Port())
	}
	return strings.Join(terms, " or ")
}

// sockets is the filter for all of a member's.
func (n node) sockets() string { return listening(append(slices.Clone(n.PeerURLs), n.clients...)...) }

// title names a member, and what is assumed of it.
func (n node) title() string {
	text := n.Name
	if n.host != "" {
		text += " on " + n.host
	}
	switch n.place.Means {
	case "":
	case members.ByHand:
		text += ", started by hand"
	default:
		text += ", " + string(n.place.Means)
		if unit := n.place.Unit; unit != "" && unit != n.Name {
			text += " " + unit
		}
	}
	return plain(text)
}

// caution is said before the commands of a member of which not all is known.
func caution(n node) string {
	if n.like == "" {
		return ""
	}
	return fmt.Sprintf("**ASSUMED: as on %s: check.** No file of this host was given; what follows is what the files "+
		"of %s say.", plain(n.like), plain(n.like))
}

// is reports whether any member is started by one of these means.
func (b *book) is(means ...members.Means) bool {
	return slices.ContainsFunc(b.nodes, func(n node) bool { return slices.Contains(means, n.place.Means) })
}

// hosts are those of all members, each once.
func (b *book) hosts() []string {
	var out []string
	for _, n := range b.nodes {
		if n.host != "" && !slices.Contains(out, n.host) {
			out = append(out, n.host)
		}
	}
	return out
}

// file is the name under which the plan lies on each host.
func (b *book) file() string { return filepath.Base(b.o.File) }
