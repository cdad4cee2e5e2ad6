package runbook

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

func startAll(b *book) {
	b.heading(2, "3. Start all members")
	b.text("Start one after the other, without waiting for the first to be ready: a member is ready when most are "+
		"there. %s"+
		"Flags `--initial-cluster…` have no effect on restored data; names and peer URLs must be those of the plan.",
		version(b))
	for _, n := range b.nodes {
		if n.place.Means == members.StatefulSet {
			if set := b.setOf(n); set.first == n.Name {
				b.heading(3, "StatefulSet %s", plain(set.name))
				b.text("The members of the plan are %d. Scale further up only when all is verified: more pods join by etcd's own "+
					"means. If the pods start one by one and are ready only with a quorum, the set needs "+
					"`podManagementPolicy: Parallel`.", len(set.pods))
				b.commands(set.kubectl("scale", "statefulset/"+set.name, fmt.Sprintf("--replicas=%d", len(set.pods))))
			}
			continue
		}
		b.host(n, n.startText(), n.start())
	}
}

// host writes what is done on the host of a member: words, if there are any, and commands.
func (b *book) host(n node, text string, commands []string) {
	b.heading(3, "%s", n.title())
	for _, t := range []string{caution(n), text} {
		if t != "" {
			b.text("%s", t)
		}
	}
	if len(commands) > 0 {
		b.commands(commands...)
	}
}

// version says which etcd can be started on the data.
func version(b *book) string {
	parts := strings.SplitN(b.plan.Source.EtcdVersion, ".", 3)
	if len(parts) < 2 {
		return ""
	}
	return plain(fmt.Sprintf("Start etcd %s.%s: the data is of %s. ", parts[0], parts[1], b.plan.Source.EtcdVersion))
}

func (n node) startText() string {
	switch n.place.Means {
	case members.Systemd, members.StaticPod:
		return ""
	case members.Supervisord:
		return "Take `autostart=false` out of the configuration again."
	case members.Container:
		return plain("If the container is gone (`--rm`, `down`), make it again as " + n.place.File + " does.")
	case members.Script:
		return plain("Run " + n.place.File + " as the user and in the folder in which it ran before. Then wait until it " +
			"listens:")
	}
	return "Start etcd as it was started before, and let it start at boot again: systemd `systemctl enable UNIT`. " +
		"Then wait until it listens:"
}

// start are the commands that start a member, and wait until it listens for the others.
func (n node) start() []string {
	var out []string
	switch n.place.Means {
	case members.Systemd:
		unit := orAsk(n.place.Unit, "UNIT", "unit that starts etcd here")
		out = append(out, "systemctl enable "+unit, "systemctl start --no-block "+unit)
	case members.Supervisord:
		out = append(out, "supervisorctl start "+orAsk(n.place.Unit, "PROGRAM", "program of supervisord"))
	case members.Container:
		out = append(out, "docker update --restart=\"$(cat "+n.policy()+")\" "+n.container()+" && rm "+n.policy(),
			"docker start "+n.container())
	case members.StaticPod:
		dir, name := n.manifest()
		out = append(out, q("mv", filepath.Join(dir+".stopped", name), dir+"/"))
	}
	if filter := listening(n.PeerURLs...); filter != "" {
		out = append(out, opened(filter))
	}
	return out
}

func verify(b *book) {
	b.heading(2, "4. Verify, before any client writes")
	b.text("On one host that reaches all members, with the plan. It compares members, cluster id, voters, HashKV, " +
		"leases and alarms with the plan, and writes one key. Exit code 0: all is as planned. 4: a member holds other " +
		"data. 6: another cluster answers, for example an old member. In these cases let no client write, and go to step 7.")
	if b.is(members.StatefulSet) {
		s := b.setOf(b.nodes[0])
		args := []string{"verify-cluster", "--plan=/restore/" + b.file(), "--endpoints=" + b.endpoints(), "--wait=5m"}
		b.text("%s", "The members are known by names of the cluster's DNS: a pod asks them. With TLS or auth add the "+
			"flags, and their files to the Secret.")
		b.commands(s.run(pod{name: "verify-cluster", args: args})...)
		b.commands(s.kubectl("delete", "secret", "backupd-restore"))
		return
	}
	if b.plan.Source.AuthEnabled {
		b.text("Auth is enabled: the password of root is asked for, that of the time of the snapshot.")
	}
	b.commands(q("backupd", "verify-cluster", "--plan", b.file(), "--wait", "5m") + " " + b.connection())
}

// connection are the flags that reach all members, for a shell.
func (b *book) connection() string {
	endpoints := b.endpoints()
	out := "--endpoints " + orAsk(endpoints, "ENDPOINTS", "client URLs of all members")
	switch {
	case b.is(members.StaticPod):
		const pki = "/etc/kubernetes/pki/etcd/"
		out += " \\\n  --cacert " + pki + "ca.crt --cert " + pki + "healthcheck-client.crt --key " + pki +
			"healthcheck-client.key"
	case strings.Contains(endpoints, "https:"):
		out += " \\\n  --cacert " + ask("CACERT", "CA of the client port of etcd") + " --cert " +
			ask("CERT", "certificate of a client") + " --key " + ask("KEY", "key of the certificate")
	}
	if b.plan.Source.AuthEnabled {
		out += " --user root"
	}
	return out
}

// endpoints are the client URLs of the old members, each at the address that the others reach.
// They are empty if one is not known.
func (b *book) endpoints() string {
	var out []string
	for _, n := range b.nodes {
		if len(n.clients) == 0 {
			return ""
		}
		own := n.clients[0]
		for _, c := range n.clients {
			if u, err := url.Parse(c); err == nil && u.Hostname() == n.host {
				own = c
			}
		}
		u, err := url.Parse(own)
		if err != nil {
			return ""
		}
		here := u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
		if n.host != "" && (here || u.Hostname() == n.oldHost) {
			u.Host = net.JoinHostPort(n.host, u.Port())
		}
		out = append(out, (&url.URL{Scheme: u.Scheme, Host: u.Host}).String())
	}
	return strings.Join(out, ",")
}
