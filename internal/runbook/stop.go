package runbook

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// manifests is the folder from which kubeadm's kubelet starts pods.
const manifests = "/etc/kubernetes/manifests"

func stopAll(b *book) {
	b.heading(2, "1. Stop everything, on all hosts")
	b.text("Nobody may write while the members are restored, and no old member may be left: it would go on with what " +
		"was lost. backupd refuses to restore while one of them answers. No member may start again before step 3, also if " +
		"its host reboots: what starts it at boot is turned off, too.")
	if b.plan.Source.Kubernetes != nil || b.is(members.StaticPod) {
		stopAPIServers(b)
	}
	for i, n := range b.nodes {
		if n.place.Means == members.StatefulSet {
			if set := b.setOf(n); b.nodes[i].Name == set.first {
				b.heading(3, "StatefulSet %s", plain(set.name))
				b.commands(set.stop()...)
			}
			continue
		}
		b.host(n, n.stopText(), n.stop())
	}
}

func stopAPIServers(b *book) {
	b.heading(3, "The API servers first")
	b.text("What they hold in memory is newer than the data that you restore. On each host that runs one:")
	if b.is(members.StaticPod) {
		dir, aside := b.manifests()
		b.text("`%s` is taken for the kubelet's folder, its `staticPodPath`.", plain(dir))
		b.commands(moveAway(dir, aside, "kube-apiserver.yaml", false), closed("sport = :6443"))
		return
	}
	b.text("With systemd `systemctl disable --now kube-apiserver`; with kubeadm:")
	b.commands(moveAway(manifests, manifests+".stopped", "kube-apiserver.yaml", false), closed("sport = :6443"))
}

// manifests are the folder of the kubelet, and the one beside it for what is stopped.
func (b *book) manifests() (dir, aside string) {
	for _, n := range b.nodes {
		if n.place.Means == members.StaticPod {
			dir, _ := n.manifest()
			return dir, dir + ".stopped"
		}
	}
	return manifests, manifests + ".stopped"
}

// manifest is where the kubelet finds that of the member. A file elsewhere is a copy.
func (n node) manifest() (dir, name string) {
	dir, name = filepath.Split(n.place.File)
	dir = filepath.Clean(dir)
	system := strings.HasPrefix(dir, "/etc/") || strings.HasPrefix(dir, "/var/lib/")
	if system && strings.HasSuffix(dir, "manifests") {
		return dir, name
	}
	return manifests, "etcd.yaml"
}

// moveAway moves a manifest out of the folder of the kubelet, which then ends the pod. If it is
// not demanded, it may have been moved away before, or never have been there.
func moveAway(dir, aside, name string, demanded bool) string {
	line := q("mv", filepath.Join(dir, name), aside+"/")
	if !demanded {
		line = "[ ! -e " + q(filepath.Join(dir, name)) + " ] || " + line
	}
	return q("mkdir", "-p", aside) + "\n" + line
}

// closed waits until nobody listens.
func closed(filter string) string {
	return "until [ -z \"$(ss -Hltn " + q(filter) + ")\" ]; do sleep 1; done"
}

// opened waits until somebody listens.
func opened(filter string) string {
	return "until [ -n \"$(ss -Hltn " + q(filter) + ")\" ]; do sleep 1; done"
}

// kill ends the etcd that listens there, and no other.
func kill(filter string) string {
	return "for pid in $(ss -Hltnp " + q(filter) + " | grep -o '\"etcd\",pid=[0-9]*' | cut -d= -f2 | sort -u); " +
		"do kill \"$pid\"; done"
}

// stopText says what a command cannot.
func (n node) stopText() string {
	switch n.place.Means {
	case members.Systemd:
		return "If a timer, another unit or a tool that manages the host starts the unit, stop that first."
	case members.StaticPod, members.Container:
		return ""
	case members.Supervisord:
		return "supervisord starts the program again when it is started itself, as at boot: write `autostart=false` into " +
			"its section of the configuration now, and take it out in step 3. supervisord ends only what it has " +
			"started itself: if that is a shell script, etcd runs on, and the " +
			"second command ends it."
	case members.Script:
		return plain("etcd was started by " + n.place.File + ": see that nothing runs it again. This ends etcd:")
	}
	return "How etcd is started on this host is not known. Stop it, and keep it from starting again: systemd `systemctl " +
		"disable --now UNIT`; supervisord `autostart=false` and `supervisorctl stop PROGRAM`, and then the etcd that runs " +
		"on; kubeadm: move `etcd.yaml` out of `" + manifests + "`; docker `docker update --restart=no CONTAINER` and " +
		"`docker stop CONTAINER`. Then wait until its ports are closed:"
}

// stop are the commands that stop a member.
func (n node) stop() []string {
	var out []string
	filter := n.sockets()
	switch n.place.Means {
	case members.Systemd:
		unit := orAsk(n.place.Unit, "UNIT", "unit that starts etcd here")
		out = append(out, "systemctl disable "+unit, "systemctl stop "+unit)
	case members.Supervisord:
		out = append(out, "supervisorctl stop "+orAsk(n.place.Unit, "PROGRAM", "program of supervisord"))
		if filter != "" {
			out = append(out, kill(filter))
		}
	case members.Script:
		if filter != "" {
			out = append(out, kill(filter))
		}
	case members.Container:
		const format = "{{with .HostConfig.RestartPolicy}}{{.Name}}{{if .MaximumRetryCount}}:{{.MaximumRetryCount}}" +
			"{{end}}{{end}}"
		out = append(out, "[ -s "+n.policy()+" ] || docker inspect --format "+q(format)+" "+n.container()+" > "+n.policy(),
			"docker update --restart=no "+n.container(), "docker stop "+n.container())
	case members.StaticPod:
		dir, name := n.manifest()
		out = append(out, moveAway(dir, dir+".stopped", name, true))
	}
	if filter != "" {
		out = append(out, closed(filter))
	}
	return out
}

// policy is the file that keeps when docker started the container by itself.
func (n node) policy() string {
	return q("restart-policy-" + strings.ReplaceAll(plain(n.Name), "/", "_"))
}

// container is a shell's word for that of the member, running or not. If the service has several,
// it is none.
func (n node) container() string {
	if n.place.Service != "" {
		return `"$(docker ps -aq --filter ` + q("label=com.docker.compose.service="+n.place.Service) + `)"`
	}
	return orAsk(n.place.Unit, "CONTAINER", "name of the container of etcd here")
}

// set is a StatefulSet.
type set struct {
	namespace, name string
	first           string   // member
	pods            []string // of members of the plan
}

// setOf returns the set that a member is a pod of.
func (b *book) setOf(n node) set {
	name := func(pod string) string { return pod[:max(0, strings.LastIndex(pod, "-"))] }
	s := set{namespace: n.place.Namespace, name: name(n.place.Unit)}
	for _, o := range b.nodes {
		if o.place.Means == members.StatefulSet && o.place.Namespace == s.namespace && name(o.place.Unit) == s.name {
			if s.first == "" {
				s.first = o.Name
			}
			s.pods = append(s.pods, o.place.Unit)
		}
	}
	return s
}

// kubectl is the command in the namespace of the set.
func (s set) kubectl(words ...string) string {
	namespace := ask("NAMESPACE", "namespace of the StatefulSet")
	if s.namespace != "" {
		namespace = q(s.namespace)
	}
	return "kubectl -n " + namespace + " " + q(words...)
}

func (s set) stop() []string {
	wait := []string{"wait", "--for=delete", "--timeout=5m"}
	for _, pod := range s.pods {
		wait = append(wait, "pod/"+pod)
	}
	return []string{s.kubectl("scale", "statefulset/"+s.name, "--replicas=0"), s.kubectl(slices.Clip(wait)...)}
}
