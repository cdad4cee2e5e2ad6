package manifests

import (
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
)

// TestAPIServer has a real API server accept everything there is: strict validation,
// its admission with Pod Security, and, in a second pass, the definitions that the
// Prometheus operator has of its kinds.
func TestAPIServer(t *testing.T) {
	k := startKube(t)
	// What clusters have that the examples name.
	k.apply(t, "default", documents(t, []byte(
		"{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 1000}")))
	t.Run("what Pod Security is for", k.refusesRoot)
	t.Run("without the operator", k.everything(false))
	t.Run("the kinds of the operator are not there", k.knowsNoMonitors)
	k.operator(t)
	t.Run("with the operator", k.everything(true))
	t.Run("companion Secrets", k.companionSecrets)
	t.Run("page", k.walk)
}

// everything applies the sets that need the operator, or those that do not.
func (k kube) everything(operator bool) func(*testing.T) {
	return func(t *testing.T) {
		for _, s := range sets(t) {
			switch {
			case s.chart && (!operator || s.needsOperator(t)):
				t.Run(s.name, func(t *testing.T) { k.install(t, s, operator) })
			case !s.chart && s.operator == operator:
				t.Run(s.name, func(t *testing.T) { k.overlay(t, s) })
			}
		}
	}
}

// needsOperator reports whether objects are of the operator's kinds.
func (s set) needsOperator(t *testing.T) bool {
	t.Helper()
	objects := s.objects(t)
	return len(of[*monitoring.PodMonitor](objects))+len(of[*monitoring.PrometheusRule](objects)) > 0
}

// overlay applies one, makes its pods, and removes all but the namespace, which only a
// controller could end.
func (k kube) overlay(t *testing.T, s set) {
	var namespaces, others [][]byte
	for _, doc := range s.docs {
		if o, err := decode(doc); err != nil {
			t.Fatal(err)
		} else if _, is := o.(*core.Namespace); is {
			namespaces = append(namespaces, doc)
		} else {
			others = append(others, doc)
		}
	}
	k.apply(t, s.namespace, namespaces)
	k.apply(t, s.namespace, others)
	k.makePods(t, s)
	if s.mode == "sidecar" {
		k.restorePod(t)
	}
	k.remove(t, s.namespace, others)
}

// restorePod makes the pods that restore the members of the overlay sidecar.
func (k kube) restorePod(t *testing.T) {
	t.Helper()
	for _, block := range blocks(t, "kubernetes.md", "yaml") {
		if strings.Contains(block, "name: restore-etcd-0\n") {
			doc := [][]byte{[]byte(block)}
			// A controller makes this account in every namespace.
			k.apply(t, "etcd", [][]byte{[]byte("{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")})
			k.apply(t, "etcd", doc)
			k.remove(t, "etcd", doc)
			return
		}
	}
	t.Fatal("the page shows no pod that restores")
}

// install does what people do with a chart.
func (k kube) install(t *testing.T, s set, operator bool) {
	level := "restricted"
	if s.mode == "kubeadm" {
		level = "privileged"
	}
	k.namespace(t, s.namespace, level)
	for _, o := range s.objects(t) {
		if space := o.GetNamespace(); space != "" { // of a Role for Secrets elsewhere
			k.namespace(t, space, "restricted")
		}
	}
	given := s.given(t)
	var accounts [][]byte
	for _, doc := range given {
		if o, err := decode(doc); err != nil {
			t.Fatal(err)
		} else if _, is := o.(*core.Pod); !is {
			accounts = append(accounts, doc)
		}
	}
	if len(accounts) > 0 {
		k.apply(t, s.namespace, accounts)
	}
	args := []string{"install", "backupd", chartDir, "--namespace=" + s.namespace, "--values=" + s.file}
	if !operator {
		args = append(args, "--set=podMonitor.enabled=false,prometheusRule.enabled=false")
	}
	k.run(t, nil, "helm", append(slices.Clone(args), "--dry-run=server")...)
	k.run(t, nil, "helm", args...)
	k.makePods(t, s)
	if s.mode != "sidecar" {
		k.helmTest(t, s.namespace)
	}
	k.run(t, nil, "helm", "uninstall", "backupd", "--namespace="+s.namespace, "--wait")
	k.remove(t, s.namespace, accounts)
}

// namespace makes one with a level of Pod Security, or gives it that level.
func (k kube) namespace(t *testing.T, name, level string) {
	t.Helper()
	k.apply(t, "default", [][]byte{[]byte("{apiVersion: v1, kind: Namespace, metadata: {name: " + name + ", labels: {" +
		"pod-security.kubernetes.io/enforce: " + level + ", pod-security.kubernetes.io/warn: " + level + "}}}")})
}

// refusesRoot: the server that accepts everything refuses what it should.
func (k kube) refusesRoot(t *testing.T) {
	k.namespace(t, "backups", "restricted")
	const pod = "{apiVersion: v1, kind: Pod, metadata: {name: root, namespace: backups}, " +
		"spec: {serviceAccountName: sa, securityContext: {runAsUser: 0}, containers: [{name: a, image: b, ports: [%s]}]}}"
	k.apply(t, "backups", [][]byte{[]byte("{apiVersion: v1, kind: ServiceAccount, metadata: {name: sa}}")})
	for ports, want := range map[string]string{
		"":                   `violates PodSecurity "restricted`,
		"{containerPrt: 80}": `unknown field "spec.containers[0].ports[0].containerPrt"`,
	} {
		doc := strings.Replace(pod, "%s", ports, 1)
		out, err := k.try(t, []byte(doc), "kubectl", "create", "--validate=strict", "-f", "-")
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v, want %q: %s", err, want, out)
		}
	}
}

// knowsNoMonitors: it was the overlays, and not the server, that left them out.
func (k kube) knowsNoMonitors(t *testing.T) {
	s := overlayWithOperator(t, "daemon")
	k.namespace(t, s.namespace, "restricted")
	out, err := k.try(t, join(s.docs), "kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-")
	if err == nil || !strings.Contains(out, `no matches for kind "PodMonitor"`) {
		t.Errorf("%v: %s", err, out)
	}
}
