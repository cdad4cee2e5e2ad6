package manifests

import (
	"errors"
	"fmt"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	disruption "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

type object = meta.Object

// kinds are all that may be in a set.
var kinds = map[string]func() object{
	"v1/ConfigMap":                             func() object { return &core.ConfigMap{} },
	"v1/Namespace":                             func() object { return &core.Namespace{} },
	"v1/PersistentVolumeClaim":                 func() object { return &core.PersistentVolumeClaim{} },
	"v1/Pod":                                   func() object { return &core.Pod{} },
	"v1/Secret":                                func() object { return &core.Secret{} },
	"v1/Service":                               func() object { return &core.Service{} },
	"v1/ServiceAccount":                        func() object { return &core.ServiceAccount{} },
	"apps/v1/DaemonSet":                        func() object { return &apps.DaemonSet{} },
	"apps/v1/Deployment":                       func() object { return &apps.Deployment{} },
	"apps/v1/StatefulSet":                      func() object { return &apps.StatefulSet{} },
	"batch/v1/CronJob":                         func() object { return &batch.CronJob{} },
	"policy/v1/PodDisruptionBudget":            func() object { return &disruption.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy":       func() object { return &networking.NetworkPolicy{} },
	"rbac.authorization.k8s.io/v1/Role":        func() object { return &rbac.Role{} },
	"rbac.authorization.k8s.io/v1/RoleBinding": func() object { return &rbac.RoleBinding{} },
	"monitoring.coreos.com/v1/PodMonitor":      func() object { return &monitoring.PodMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule":  func() object { return &monitoring.PrometheusRule{} },
}

// decode decodes one object; a field that its type does not have is an error.
func decode(doc []byte) (object, error) {
	var what meta.TypeMeta
	if err := yaml.Unmarshal(doc, &what); err != nil {
		return nil, err
	}
	kind := what.APIVersion + "/" + what.Kind
	empty, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("kind %q is not expected", kind)
	}
	o := empty()
	raw, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	// As the API server does it: encoding/json would not mind the case of letters.
	strict, err := json.UnmarshalStrict(raw, o)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, fmt.Errorf("decode %s: %w", kind, err)
	}
	return o, nil
}

func (s set) objects(t *testing.T) []object {
	t.Helper()
	var out []object
	seen := map[string]bool{}
	for _, doc := range s.docs {
		o, err := decode(doc)
		if err != nil {
			t.Fatalf("%s: %v\n%s", s.name, err, doc)
		}
		key := fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())
		if seen[key] {
			t.Errorf("%s: %s is there twice", s.name, key)
		}
		seen[key] = true
		if _, isNamespace := o.(*core.Namespace); !isNamespace && !s.chart && o.GetNamespace() != s.namespace {
			t.Errorf("%s: %s is in namespace %q, want %q", s.name, key, o.GetNamespace(), s.namespace)
		}
		out = append(out, o)
	}
	return out
}

// of returns the objects of one type.
func of[T object](objects []object) []T {
	var out []T
	for _, o := range objects {
		if v, ok := o.(T); ok {
			out = append(out, v)
		}
	}
	return out
}

// pod is a pod that a set makes.
type pod struct {
	of       string
	labels   map[string]string
	spec     core.PodSpec
	selector *meta.LabelSelector          // of its controller
	claims   []core.PersistentVolumeClaim // made with it
	test     bool                         // by "helm test" only
}

func pods(objects []object) []pod {
	var out []pod
	add := func(o object, t core.PodTemplateSpec, selector *meta.LabelSelector) *pod {
		out = append(out, pod{of: fmt.Sprintf("%T %s", o, o.GetName()), labels: t.Labels, spec: t.Spec,
			selector: selector})
		return &out[len(out)-1]
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *apps.Deployment:
			add(o, o.Spec.Template, o.Spec.Selector)
		case *apps.DaemonSet:
			add(o, o.Spec.Template, o.Spec.Selector)
		case *apps.StatefulSet:
			add(o, o.Spec.Template, o.Spec.Selector).claims = o.Spec.VolumeClaimTemplates
		case *batch.CronJob:
			add(o, o.Spec.JobTemplate.Spec.Template, nil)
		case *core.Pod:
			p := add(o, core.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}, nil)
			p.test = o.Annotations["helm.sh/hook"] == "test"
		}
	}
	return out
}

// containers returns all of a pod's containers.
func (p pod) containers() []core.Container {
	return append(append([]core.Container(nil), p.spec.InitContainers...), p.spec.Containers...)
}

// backupd returns the container that runs it.
func (p pod) backupd(t *testing.T) core.Container {
	t.Helper()
	for _, c := range p.containers() {
		if c.Name == "backupd" {
			return c
		}
	}
	t.Fatalf("%s has no container backupd", p.of)
	return core.Container{}
}
