package kube

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// pod is one pod, as the controller of a set makes it or as it is in the file.
type pod struct {
	*manifest
	means           members.Means
	name, namespace members.Word
	labels          value
	annotations     value
	made            map[string]string // labels that the controller adds, by the path of a fieldRef
	spec            value
	at              members.Position
	claims          map[string]string // names of the claims that the controller makes, by the volume's
	replicas        int
	// written is true for a Pod that somebody wrote: it has no name for certain.
	written bool
	notes   []members.Note
}

// ordinal returns the starts of one pod of a StatefulSet.
func (f *manifest) ordinal(obj value, ordinal, replicas int) []members.Start {
	meta, spec := obj.get("metadata"), obj.get("spec")
	set, template := meta.get("name").word(), spec.get("template")
	name := fmt.Sprintf("%s-%d", set.Text, ordinal)
	const label = "metadata.labels['%s']"
	p := &pod{
		manifest: f, means: members.StatefulSet, name: members.Word{Text: name, At: set.At},
		namespace: meta.get("namespace").word(), labels: template.get("metadata").get("labels"),
		annotations: template.get("metadata").get("annotations"), spec: template.get("spec"), replicas: replicas,
		claims: map[string]string{}, made: map[string]string{
			fmt.Sprintf(label, "statefulset.kubernetes.io/pod-name"): name,
			fmt.Sprintf(label, "apps.kubernetes.io/pod-index"):       fmt.Sprint(ordinal),
		},
	}
	for _, claim := range spec.get("volumeClaimTemplates").items() {
		volume := claim.get("metadata").get("name").text()
		p.claims[volume] = volume + "-" + name
	}
	out := p.starts()
	for i := range out {
		out[i].Notes = append(out[i].Notes, p.service(spec.get("serviceName").word(), out[i])...)
	}
	return out
}

// service compares the service of the set with the peer URLs that a member gives to others.
func (p *pod) service(service members.Word, s members.Start) []members.Note {
	for _, u := range peerURLs(s) {
		_, host, _ := strings.Cut(u.Text, "://")
		host, _, _ = strings.Cut(host, ":")
		labels := strings.Split(host, ".")
		if labels[0] != p.name.Text || len(labels) < 2 {
			continue
		}
		if labels[1] != service.Text {
			return []members.Note{{At: u.At, Text: fmt.Sprintf("the pods of this set have names in the service %q "+
				"(line %d), and not in %s of %s", service.Text, service.At.Line, labels[1], u.Text)}}
		}
		if len(labels) > 2 && p.namespace.Text != "" && labels[2] != p.namespace.Text {
			return []members.Note{{At: u.At, Text: fmt.Sprintf("the pods of this set are in the namespace %s, and not "+
				"in %s of %s", p.namespace.Text, labels[2], u.Text)}}
		}
	}
	return nil
}

// starts returns one start for each container that runs etcd.
func (p *pod) starts() []members.Start {
	p.at = p.spec.at()
	var out []members.Start
	var guess error // of a container that only may run etcd
	for _, container := range p.spec.get("containers").items() {
		like := likeEtcd(container)
		if p.err != nil {
			return nil
		}
		if like == no {
			continue
		}
		s := p.start(container)
		switch {
		case p.err == nil:
			out = append(out, s)
		case like == maybe:
			if guess == nil {
				guess = p.err
			}
			p.err = nil
		}
	}
	if len(out) == 0 && p.err == nil {
		p.err = guess
	}
	return out
}

// start returns that of one container.
func (p *pod) start(container value) members.Start {
	s := members.Start{
		Means: p.means, Unit: p.name.Text, Of: container.at(), Contained: true, Replicas: p.replicas,
		Namespace: p.namespace.Text, Dir: container.get("workingDir").word(), Hostname: p.hostname(),
		Node: p.spec.get("nodeName").word(),
	}
	p.notes = nil
	env := p.environment(container, &unknowns{})
	s.Mounts = p.mounts(container, env)
	s.User, s.Group = p.owner(container, "runAsUser"), p.owner(container, "runAsGroup")
	s.Notes = p.notes
	c := &command{pod: p, container: container, env: env, start: &s, scripts: scripts{}}
	c.read()
	return s
}

// hostname is what the processes of the pod are told.
func (p *pod) hostname() members.Word {
	network, given := p.spec.get("hostNetwork"), p.spec.get("hostname")
	switch {
	case network.truth() && p.means == members.StatefulSet:
		return members.Word{At: network.at()} // of nodes, which the file does not say
	case network.truth():
		w := members.Word{Text: p.options.Hostname, At: network.at()}
		if node := p.spec.get("nodeName"); !node.absent() && node.text() != w.Text {
			w.Text = "" // it is of another host, or the node has another name
		}
		return w
	case p.spec.get("setHostnameAsFQDN").truth():
		return members.Word{At: p.spec.get("setHostnameAsFQDN").at()}
	case !given.absent():
		return given.word()
	case p.written:
		return members.Word{At: p.name.At}
	}
	name := p.name
	name.Text = strings.TrimRight(name.Text[:min(len(name.Text), 63)], "-.")
	return name
}

// owner is a number of the security context: the container's, or else the pod's.
func (p *pod) owner(container value, key string) members.Word {
	for _, of := range []value{container, p.spec} {
		if v := of.get("securityContext").get(key); !v.absent() {
			return members.Word{Text: fmt.Sprint(v.number(0)), At: v.at()}
		}
	}
	return members.Word{}
}

// mounts returns those of a container.
func (p *pod) mounts(container value, env *environment) []members.Mount {
	volumes := map[string]value{}
	for _, v := range p.spec.get("volumes").items() {
		volumes[v.get("name").text()] = v
	}
	var out []members.Mount
	for _, m := range container.get("volumeMounts").items() {
		name, inside := m.get("name").text(), m.get("mountPath").word()
		if !path.IsAbs(inside.Text) {
			m.get("mountPath").failf("want an absolute mountPath")
			return nil
		}
		inside.Text = path.Clean(inside.Text)
		mount := members.Mount{Inside: inside, ReadOnly: m.get("readOnly").truth()}
		below, ok := p.below(m, env)
		volume, there := volumes[name]
		claim, claimed := p.claims[name]
		hostPath := volume.get("hostPath")
		switch {
		case claimed:
			mount.Volume, mount.Claim = claim, true
		case !there:
			m.failf("there is no volume %s", name)
			return nil
		case !hostPath.absent():
			mount.Host = hostPath.get("path").word()
			if !path.IsAbs(mount.Host.Text) {
				hostPath.failf("want an absolute path of the host")
				return nil
			}
			mount.Host.Text = path.Join(mount.Host.Text, below)
			if !ok {
				mount.Host, mount.Volume = members.Word{}, name
			}
		default:
			mount.Volume = name
			if claim := volume.get("persistentVolumeClaim").get("claimName"); !claim.absent() {
				mount.Volume, mount.Claim = claim.text(), true
			}
			given := []string{"configMap", "secret", "projected", "downwardAPI", "image"}
			mount.ReadOnly = mount.ReadOnly || slices.ContainsFunc(given, func(k string) bool {
				return !volume.get(k).absent()
			})
		}
		if mount.Volume != "" && below != "" && ok {
			mount.Below = below
			p.notes = append(p.notes, members.Note{At: inside.At, Text: fmt.Sprintf("%s is the folder %s of the volume %s",
				inside.Text, below, mount.Volume)})
		}
		out = append(out, mount)
	}
	return out
}

// below is the folder of a volume that is mounted. It is not ok if it is not known.
func (p *pod) below(m value, env *environment) (string, bool) {
	sub, expr := m.get("subPath").word(), m.get("subPathExpr").word()
	text := sub.Text
	if expr.Text != "" {
		text = expand(expr.Text, env.lookup)
		if _, unknown := env.unknowns.in(text); unknown || strings.Contains(text, "$(") {
			p.notes = append(p.notes, members.Note{At: expr.At, Text: "subPathExpr is not known: " +
				env.unknowns.show(text)})
			return "", false
		}
	}
	if path.IsAbs(text) || slices.Contains(strings.Split(text, "/"), "..") {
		m.failf("a path below the volume must not be absolute or go up: %s", text)
	}
	return text, true
}
