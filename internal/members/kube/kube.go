// Package kube reads how Kubernetes starts etcd: the manifest of a static pod, such as
// kubeadm's, and a StatefulSet, as written by hand and as "kubectl get -o yaml" gives them.
// It does what the controller, the kubelet and the container runtime do with the file, by
// their rules, and refuses with its line what these take from somewhere else, if it could
// decide who the member is or where its data is.
package kube

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// Options are what the reading depends on besides the file. Nothing is followed from it.
type Options = members.ReadOptions

// maxReplicas is the largest size of a cluster that is taken for one.
const maxReplicas = 99

var (
	apiVersionKey = regexp.MustCompile(`(?m)(^[ \t{-]*|[{,]\s*)["']?apiVersion["']?\s*:`)
	kindKey       = regexp.MustCompile(`(?m)(^[ \t{-]*|[{,]\s*)["']?kind["']?\s*:`)
)

// Recognize reports whether a file is one of Kubernetes, be it understood or not.
func Recognize(_ string, raw []byte) bool { return apiVersionKey.Match(raw) && kindKey.Match(raw) }

// Whole reports whether a file is objects of Kubernetes and nothing else: no script that writes
// some, though a shell would find commands in it.
func Whole(raw []byte) bool {
	r := &reader{}
	docs := r.documents(raw)
	for _, doc := range docs {
		if !doc.null() && (doc.get("apiVersion").absent() || doc.get("kind").absent()) {
			return false
		}
	}
	return len(docs) > 0 && r.err == nil
}

// Read returns one start for each pod that runs etcd, in the order of the file and of the
// ordinals. It fails with a [*members.FileError].
func Read(file string, raw []byte, o Options) ([]members.Start, error) {
	whole := members.Position{File: file}
	if !Recognize(file, raw) {
		return nil, whole.Errorf("not a file of Kubernetes: it needs apiVersion and kind")
	}
	r := &reader{file: file}
	objects := r.objects(r.documents(raw))
	f := &manifest{reader: r, options: o, configMaps: map[string]value{}}
	for _, obj := range objects {
		if obj.get("kind").text() == "ConfigMap" {
			f.configMaps[obj.get("metadata").get("name").text()] = obj
		}
	}
	var out []members.Start
	for _, obj := range objects {
		if r.err != nil {
			break
		}
		out = append(out, f.starts(obj)...)
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(out) == 0 {
		return nil, whole.Errorf("no container runs etcd: want a Pod or a StatefulSet whose command is etcd, or a " +
			"shell's that starts it")
	}
	return out, nil
}

// manifest is a file that is read.
type manifest struct {
	*reader
	options    Options
	configMaps map[string]value // by name
}

// templates say where kinds that run pods keep the template of them.
var templates = map[string][]string{
	"DaemonSet":             {"spec", "template"},
	"Deployment":            {"spec", "template"},
	"ReplicaSet":            {"spec", "template"},
	"ReplicationController": {"spec", "template"},
	"Job":                   {"spec", "template"},
	"CronJob":               {"spec", "jobTemplate", "spec", "template"},
	"PodTemplate":           {"template"},
}

// starts returns those of one object.
func (f *manifest) starts(obj value) []members.Start {
	kind := obj.get("kind").text()
	switch kind {
	case "Pod":
		return f.pod(obj)
	case "StatefulSet":
		return f.set(obj)
	}
	path, ok := templates[kind]
	if !ok {
		return nil
	}
	template := obj
	for _, key := range path {
		template = template.get(key)
	}
	if c, ok := f.looksLikeEtcd(template.get("spec")); ok {
		c.failf("%s %s runs etcd: names and addresses of its pods are not in the file: give the files of the members, "+
			"or what \"kubectl get pod -o yaml\" says", kind, obj.get("metadata").get("name").text())
	}
	return nil
}

// pod returns the start of a Pod: a static one, or one that is running.
func (f *manifest) pod(obj value) []members.Start {
	meta, spec := obj.get("metadata"), obj.get("spec")
	p := &pod{
		manifest: f, means: members.StaticPod, name: meta.get("name").word(), namespace: meta.get("namespace").word(),
		labels: meta.get("labels"), annotations: meta.get("annotations"), spec: spec,
	}
	c, runs := f.looksLikeEtcd(spec)
	if !runs {
		return nil
	}
	for _, owner := range meta.get("ownerReferences").items() {
		switch kind := owner.get("kind").text(); kind {
		case "Node": // the API's picture of a static pod
		case "StatefulSet":
			p.means = members.StatefulSet
		default:
			c.failf("the pod %s belongs to %s %s: only those of a StatefulSet and of a kubelet keep their names",
				p.name.Text, kind, owner.get("name").text())
		}
	}
	// Before it was in the API, nobody can say what the kubelet adds to the name, and
	// which namespace somebody gives it.
	p.written = meta.get("uid").absent()
	return p.starts()
}

// set returns the starts of a StatefulSet, one for each ordinal.
func (f *manifest) set(obj value) []members.Start {
	meta, spec := obj.get("metadata"), obj.get("spec")
	template := spec.get("template")
	if _, runs := f.looksLikeEtcd(template.get("spec")); !runs {
		return nil
	}
	name := meta.get("name").word()
	if name.Text == "" {
		meta.failf("the StatefulSet has no name")
		return nil
	}
	replicas, first := spec.get("replicas"), spec.get("ordinals").get("start").number(0)
	n := replicas.number(1)
	switch {
	case n == 0 && f.err == nil:
		replicas.failf("the StatefulSet %s is scaled to 0, and so the file does not say how many members it had: write "+
			"this number as replicas", name.Text)
	case n > maxReplicas:
		replicas.failf("%d replicas: no etcd cluster has so many members", n)
	}
	var out []members.Start
	for i := range n {
		if f.err != nil {
			return nil
		}
		out = append(out, f.ordinal(obj, first+i, n)...)
	}
	return append(out, f.above(obj, first+n, n)...)
}

// above returns the start of the pod that is asked for, if the set has been scaled above the
// number of replicas that the file has.
func (f *manifest) above(obj value, next, replicas int) []members.Start {
	name := obj.get("metadata").get("name").text()
	ordinal, err := strconv.Atoi(strings.TrimPrefix(f.options.Name, name+"-"))
	if err != nil || ordinal < next || ordinal >= maxReplicas || f.options.Name != fmt.Sprintf("%s-%d", name, ordinal) {
		return nil
	}
	out := f.ordinal(obj, ordinal, replicas)
	for i := range out {
		out[i].Above = true
		out[i].Notes = append(out[i].Notes, members.Note{At: obj.get("spec").get("replicas").at(), Text: fmt.Sprintf(
			"%s is above the %d replicas of the file: the set must have %d", f.options.Name, replicas, ordinal+1)})
	}
	return out
}
