package kube

import (
	"regexp"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// serviceName is a variable that the kubelet makes of a service in the namespace.
var serviceName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|` +
	`PORT(_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?)$`)

// environment is that of a container.
type environment struct {
	p        *pod
	unknowns *unknowns
	vars     []members.Variable
	// from are sources of which the file does not say what they set.
	from []unknownSource
	// services is true if the kubelet adds variables of all services.
	services bool
}

type unknownSource struct {
	prefix, what string
	at           members.Position
}

// environment does what the kubelet does: sources first, then the variables in their order.
func (p *pod) environment(container value, u *unknowns) *environment {
	e := &environment{p: p, unknowns: u, services: true}
	if links := p.spec.get("enableServiceLinks"); !links.absent() {
		e.services = links.truth()
	}
	for _, source := range container.get("envFrom").items() {
		e.source(source)
	}
	for _, item := range container.get("env").items() {
		name, plain, from := item.get("name").text(), item.get("value"), item.get("valueFrom")
		value := plain.word()
		switch {
		case name == "":
			item.failf("a variable has no name")
		case value.Text != "":
			value.Text = expand(value.Text, e.lookup)
		case !from.absent():
			var set bool
			if value, set = e.valueFrom(name, from); !set {
				continue
			}
		default:
			value.At = item.at()
		}
		e.set(name, value)
	}
	return e
}

func (e *environment) set(name string, value members.Word) {
	for i := range e.vars {
		if e.vars[i].Name == name {
			e.vars[i].Value = value
			return
		}
	}
	e.vars = append(e.vars, members.Variable{Name: name, Value: value})
}

// source takes all that a ConfigMap has. What a Secret has is nobody's business here.
func (e *environment) source(source value) {
	prefix, ref := source.get("prefix").text(), source.get("configMapRef")
	if configMap, ok := e.p.configMaps[ref.get("name").text()]; ok && !ref.absent() {
		data := configMap.get("data")
		for _, key := range data.keys() {
			e.set(prefix+key, data.get(key).word())
		}
		return
	}
	what := "the ConfigMap " + ref.get("name").text() + " sets: put it into the same file, behind a line of ---"
	if ref.absent() {
		what = "the Secret " + source.get("secretRef").get("name").text() + " sets"
	}
	e.from = append(e.from, unknownSource{prefix, what, source.at()})
}

// lookup returns a variable for a reference to it.
func (e *environment) lookup(name string) (string, bool) {
	for _, v := range e.vars {
		if v.Name == name {
			return v.Value.Text, true
		}
	}
	for _, from := range e.from {
		if strings.HasPrefix(name, from.prefix) {
			return e.unknowns.add(name, "it may be what "+from.what, from.at), true
		}
	}
	if serviceName.MatchString(name) && (e.services || strings.HasPrefix(name, "KUBERNETES_")) {
		return e.unknowns.add(name, "it is made of a service that the cluster has", e.p.at), true
	}
	return "", false
}

// given reports whether a source that is not known may set the variable of a setting.
func (e *environment) mayGive(name string) (unknownSource, bool) {
	for _, v := range e.vars {
		if v.Name == name {
			return unknownSource{}, false
		}
	}
	for _, from := range e.from {
		if strings.HasPrefix(name, from.prefix) {
			return from, true
		}
	}
	return unknownSource{}, false
}

// valueFrom returns the value that a reference has. It is not set if an optional key is
// missing.
func (e *environment) valueFrom(name string, from value) (w members.Word, set bool) {
	w.At = from.at()
	if field := from.get("fieldRef"); !field.absent() {
		path := field.get("fieldPath").word()
		value, why := e.p.field(path.Text)
		if why != "" {
			value = e.unknowns.add(name, why, path.At)
		}
		return members.Word{Text: value, At: path.At}, true
	}
	if ref := from.get("configMapKeyRef"); !ref.absent() {
		key := ref.get("key").text()
		if configMap, ok := e.p.configMaps[ref.get("name").text()]; ok {
			data := configMap.get("data").get(key)
			if data.absent() && !ref.get("optional").truth() {
				ref.failf("the ConfigMap %s has no key %s", ref.get("name").text(), key)
			}
			return data.word(), !data.absent()
		}
		w.Text = e.unknowns.add(name, "it is "+key+" of the ConfigMap "+ref.get("name").text()+": put it into the same "+
			"file, behind a line of ---", ref.at())
		return w, true
	}
	what := "it comes from something that is not in the file"
	switch ref, resource := from.get("secretKeyRef"), from.get("resourceFieldRef"); {
	case !ref.absent():
		what = "it is " + ref.get("key").text() + " of the Secret " + ref.get("name").text()
	case !resource.absent():
		what = "it is " + resource.get("resource").text() + " of the container"
	}
	w.Text = e.unknowns.add(name, what, from.at())
	return w, true
}

var mapField = regexp.MustCompile(`^metadata\.(labels|annotations)\['(.*)'\]$`)

// field returns what a fieldRef gives, or why that is not known.
func (p *pod) field(path string) (text, why string) {
	if m := mapField.FindStringSubmatch(path); m != nil {
		of := p.labels
		if m[1] == "annotations" {
			of = p.annotations
		}
		if made, ok := p.made[path]; ok {
			return made, ""
		}
		if v := of.get(m[2]); !v.absent() || !p.written {
			return v.text(), ""
		}
		return "", "it is " + path + ", which the file does not have"
	}
	switch path {
	case "metadata.name":
		if p.written {
			return "", "it is the name of the pod, to which a kubelet adds that of its node: give what \"kubectl get " +
				"pod -o yaml\" says"
		}
		return p.name.Text, ""
	case "metadata.namespace":
		if p.namespace.Text == "" {
			return "", "it is the namespace, which the file does not say: write metadata.namespace, or give what " +
				"\"kubectl get -o yaml\" says"
		}
		return p.namespace.Text, ""
	case "spec.nodeName", "spec.serviceAccountName":
		if v := p.spec.get(strings.TrimPrefix(path, "spec.")); !v.absent() {
			return v.text(), ""
		}
	}
	return "", "it is " + path + " of the running pod, which the file does not say"
}
