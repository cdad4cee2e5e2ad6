package kube_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// kubelet is the controller of StatefulSets and the kubelet, made of what their
// documentation says and of the library that Kubernetes reads YAML with. It knows what the
// files of these tests have, and the values that are in no file: those of field, and the
// text hidden for all of a Secret.
type kubelet struct{ hidden string }

type object struct {
	Kind     string
	Items    []json.RawMessage
	Metadata struct{ Name, Namespace string }
	Data     map[string]string
	Spec     struct {
		Replicas             *int
		Ordinals             struct{ Start int }
		Template             struct{ Spec podSpec }
		VolumeClaimTemplates []struct{ Metadata struct{ Name string } }
		podSpec
	}
}

type podSpec struct {
	Containers []container
	Volumes    []struct {
		Name     string
		HostPath *struct{ Path string }
	}
	HostNetwork bool
}

type container struct {
	Name, Image   string
	Command, Args []string
	WorkingDir    string
	EnvFrom       []struct {
		Prefix       string
		ConfigMapRef *struct{ Name string }
	}
	Env []struct {
		Name, Value string
		ValueFrom   *struct {
			FieldRef        *struct{ FieldPath string }
			ConfigMapKeyRef *struct{ Name, Key string }
		}
	}
	VolumeMounts []struct{ Name, MountPath, SubPath, SubPathExpr string }
}

// process is what a kubelet starts.
type process struct {
	pod, host string
	image     string
	words     []string
	env       map[string]string
	// mounts are the places on the host by those in the container, "" for a claim's.
	mounts map[string]string
}

// processes returns one for each container of the file.
func (k kubelet) processes(raw []byte) ([]process, error) {
	var objects []object
	for doc := range strings.SplitSeq("\n"+strings.ReplaceAll(string(raw), "\r\n", "\n"), "\n---\n") {
		list, err := decode([]byte(doc))
		if err != nil {
			return nil, err
		}
		objects = append(objects, list...)
	}
	data := map[string]map[string]string{}
	for _, o := range objects {
		if o.Kind == "ConfigMap" {
			data[o.Metadata.Name] = o.Data
		}
	}
	var out []process
	for _, o := range objects {
		switch o.Kind {
		case "Pod":
			for _, c := range o.Spec.Containers {
				out = append(out, k.process(o, o.Spec.podSpec, c, o.Metadata.Name, 0, data))
			}
		case "StatefulSet":
			n := 1
			if o.Spec.Replicas != nil {
				n = *o.Spec.Replicas
			}
			for i := o.Spec.Ordinals.Start; i < o.Spec.Ordinals.Start+n; i++ {
				for _, c := range o.Spec.Template.Spec.Containers {
					out = append(out, k.process(o, o.Spec.Template.Spec, c, fmt.Sprintf("%s-%d", o.Metadata.Name, i), i, data))
				}
			}
		}
	}
	return out, nil
}

// decode reads one document as Kubernetes does: YAML into JSON, and JSON into types.
func decode(doc []byte) ([]object, error) {
	text, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return nil, err
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	if o.Kind != "List" {
		return []object{o}, nil
	}
	var out []object
	for _, item := range o.Items {
		list, err := decode(item)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

func (k kubelet) process(o object, spec podSpec, c container, pod string, i int, data map[string]map[string]string,
) process {
	p := process{pod: pod, host: pod, image: c.Image, env: map[string]string{}, mounts: map[string]string{}}
	if spec.HostNetwork {
		p.host = "host7"
	}
	for _, from := range c.EnvFrom {
		for key, value := range data[from.ConfigMapRef.Name] {
			p.env[from.Prefix+key] = value
		}
	}
	for _, e := range c.Env {
		value := expandByHand(e.Value, p.env)
		switch {
		case e.Value != "" || e.ValueFrom == nil:
		case e.ValueFrom.FieldRef != nil:
			value = map[string]string{
				"metadata.name": pod, "metadata.namespace": o.Metadata.Namespace,
				"metadata.labels['statefulset.kubernetes.io/pod-name']": pod,
				"metadata.labels['apps.kubernetes.io/pod-index']":       fmt.Sprint(i),
			}[e.ValueFrom.FieldRef.FieldPath]
			if value == "" {
				value = k.hidden
			}
		case e.ValueFrom.ConfigMapKeyRef != nil && data[e.ValueFrom.ConfigMapKeyRef.Name] != nil:
			value = data[e.ValueFrom.ConfigMapKeyRef.Name][e.ValueFrom.ConfigMapKeyRef.Key]
		default:
			value = k.hidden
		}
		p.env[e.Name] = value
	}
	for _, w := range slices.Concat(c.Command, c.Args) {
		p.words = append(p.words, expandByHand(w, p.env))
	}
	for _, m := range c.VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name == m.Name && v.HostPath != nil {
				p.mounts[path.Clean(m.MountPath)] = path.Join(v.HostPath.Path, m.SubPath)
			}
		}
	}
	return p
}

// expandByHand is the rule of the documentation: "Variable references $(VAR_NAME) are
// expanded using the container's environment. If a variable cannot be resolved, the
// reference in the input string will be unchanged. Double $$ are reduced to a single $".
func expandByHand(text string, env map[string]string) string {
	out := ""
	for i := 0; i < len(text); i++ {
		if text[i] == '$' && i+1 < len(text) && text[i+1] == '$' {
			out += "$"
			i++
			continue
		}
		if text[i] == '$' && i+1 < len(text) && text[i+1] == '(' {
			if end := strings.IndexByte(text[i:], ')'); end > 0 {
				value, ok := env[text[i+2:i+end]]
				if !ok {
					value = text[i : i+end+1]
				}
				out += value
				i += end
				continue
			}
		}
		out += text[i : i+1]
	}
	return out
}

// flagOf returns the last value of a flag as Go's flag package takes it, or that of its
// variable.
func flagOf(args []string, env map[string]string, name string) (string, error) {
	value, given := "", false
	for i := 0; i < len(args); i++ {
		word := args[i]
		if len(word) < 2 || word[0] != '-' {
			return "", errors.New("not a flag: " + word)
		}
		key, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(word, "-"), "-"), "=")
		if !ok && !slices.Contains([]string{"client-cert-auth", "peer-client-cert-auth"}, key) {
			if i++; i == len(args) {
				return "", errors.New("no value: " + word)
			}
			v = args[i]
		}
		if key == name {
			value, given = v, true
		}
	}
	if !given {
		value = env["ETCD_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))]
	}
	return value, nil
}
