package manifests

import (
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	disruption "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestCheckIsNotAdopted: a DaemonSet takes a pod that its selector matches for one of
// its own, and deletes it where it has another one on the node. So no selector but that
// of the policy matches the pod of "helm test".
func TestCheckIsNotAdopted(t *testing.T) {
	found := 0
	for _, s := range sets(t) {
		objects := s.objects(t)
		selectors := map[string]meta.LabelSelector{}
		for _, p := range pods(objects) {
			if p.selector != nil {
				selectors[p.of] = *p.selector
			}
		}
		for _, service := range of[*core.Service](objects) {
			selectors["Service "+service.Name] = meta.LabelSelector{MatchLabels: service.Spec.Selector}
		}
		for _, monitor := range of[*monitoring.PodMonitor](objects) {
			selectors["PodMonitor "+monitor.Name] = monitor.Spec.Selector
		}
		for _, p := range pods(objects) {
			if !p.test {
				continue
			}
			found++
			for name, selector := range selectors {
				if selects(t, selector, p) {
					t.Errorf("%s: %s selects %s", s.name, name, p.of)
				}
			}
			for _, policy := range of[*networking.NetworkPolicy](objects) {
				if !selects(t, policy.Spec.PodSelector, p) {
					t.Errorf("%s: the policy does not hold for %s", s.name, p.of)
				}
			}
		}
	}
	if found != 5 {
		t.Errorf("%d pods of \"helm test\", want 5", found)
	}
}

// TestOpenShift: its admission takes no id that is not of the namespace's range, and
// its DNS listens elsewhere.
func TestOpenShift(t *testing.T) {
	for _, file := range chartValues(t) {
		if strings.Contains(file, "kubeadm") {
			continue // no OpenShift is made by kubeadm
		}
		for _, openshift := range []bool{false, true} {
			s := chartSet(t, file)
			if openshift {
				s = chartSet(t, file, "security.openshift.io/v1")
			}
			asked := strings.Contains(file, "quiet")
			objects := s.objects(t)
			for _, p := range pods(objects) {
				contexts := []*core.SecurityContext{}
				for _, c := range p.containers() {
					contexts = append(contexts, c.SecurityContext)
				}
				pod := p.spec.SecurityContext
				if pod == nil {
					pod = &core.PodSecurityContext{}
				}
				if slices.ContainsFunc(contexts, func(c *core.SecurityContext) bool {
					return c.RunAsUser != nil || c.RunAsGroup != nil
				}) || (pod.RunAsUser != nil) != asked || pod.RunAsGroup != nil {
					t.Errorf("%s: %s has a fixed user", s.name, p.of)
				}
				// Beside your etcd, the group is not the chart's.
				want := asked || !openshift && s.mode != "sidecar"
				if (pod.FSGroup != nil) != want {
					t.Errorf("%s: OpenShift %v: %s has the group %v", s.name, openshift, p.of, pod.FSGroup)
				}
			}
			for _, policy := range of[*networking.NetworkPolicy](objects) {
				if slices.ContainsFunc(policy.Spec.Egress, func(rule networking.NetworkPolicyEgressRule) bool {
					return opens(rule.Ports, "UDP", 5353)
				}) != openshift {
					t.Errorf("%s: OpenShift %v: port 5353 of its DNS", s.name, openshift)
				}
			}
		}
	}
}

// TestRoomIsRequested: where the spool is on the node's disk, a node without the room
// is not chosen.
func TestRoomIsRequested(t *testing.T) {
	for _, s := range sets(t) {
		objects := s.objects(t)
		for _, p := range pods(objects) {
			room, node := spoolVolume(t, p, objects)
			requests := p.backupd(t).Resources.Requests
			if got := requests.StorageEphemeral(); p.test || !node {
				if !got.IsZero() {
					t.Errorf("%s: %s requests %s of the node's disk, and keeps nothing there", s.name, p.of, got)
				}
			} else if got.Cmp(room) != 0 {
				t.Errorf("%s: %s requests %s of the node's disk for a spool of %s", s.name, p.of, got, room.String())
			}
		}
	}
}

// TestExistingClaim: the spool is in it, and the chart makes none beside it.
func TestExistingClaim(t *testing.T) {
	s := chartSet(t, chartDir+"/ci/quiet-values.yaml")
	claims := of[*core.PersistentVolumeClaim](s.objects(t))
	if len(claims) != 1 || claims[0].Name != "a-claim-of-ours" {
		t.Errorf("claims %v, want the one that is there", names(claims, func(o meta.Object) string { return o.GetName() }))
	}
}

// TestNothingWithoutListener: with the listener off nobody asks, and no Secret for it
// is needed.
func TestNothingWithoutListener(t *testing.T) {
	s := chartSet(t, chartDir+"/ci/quiet-values.yaml")
	objects := s.objects(t)
	if services, monitors := of[*core.Service](objects), of[*monitoring.PodMonitor](objects); len(services) > 0 ||
		len(monitors) > 0 {
		t.Errorf("%d Services and %d PodMonitors for a listener that is off", len(services), len(monitors))
	}
	for _, p := range pods(objects) {
		c := p.backupd(t)
		if c.LivenessProbe != nil || c.ReadinessProbe != nil || len(c.Ports) > 0 {
			t.Errorf("%s has probes or ports", p.of)
		}
		for _, v := range p.spec.Volumes {
			if v.Secret != nil {
				t.Errorf("%s needs the Secret %s", p.of, v.Secret.SecretName)
			}
		}
	}
}

// TestPort: probes, Service and policy follow the address that backupd listens at.
func TestPort(t *testing.T) {
	values := func(listen string) map[string]any {
		return map[string]any{"config": map[string]any{
			"repositories": map[string]any{"main": map[string]any{"url": "s3://example-backups/etcd"}},
			"clusters":     []any{map[string]any{"name": "a", "endpoints": []any{"http://etcd:2379"}}},
			"daemon":       map[string]any{"server": map[string]any{"listen": listen}},
		}}
	}
	for listen, port := range map[string]string{
		":1234": "1234", "0.0.0.0:1234": "1234", "[::]:1234": "1234", "10.1.2.3:1234": "1234",
		"127.0.0.1:1234": "", "localhost:1234": "", "[::1]:1234": "", "127.1.2.3:1234": "", "off": "",
	} {
		rendered, err := renderChart(values(listen))
		if err != nil {
			t.Fatal(err)
		}
		for file, mark := range map[string]string{
			"deployment.yaml": "containerPort: ", "service.yaml": "port: ", "networkpolicy.yaml": "port: 1234",
		} {
			text := rendered["backupd/templates/"+file]
			if got := strings.Contains(text, mark); got != (port != "") ||
				got && !strings.Contains(text, strings.TrimSuffix(mark, "1234")+port) {
				t.Errorf("listen %s: %s shows a port: %v, want %q", listen, file, got, port)
			}
		}
		if strings.Contains(rendered["backupd/templates/deployment.yaml"], "Probe:") != (port != "") {
			t.Errorf("listen %s: probes", listen)
		}
	}
}

// TestSidecarIsApart: the members of the overlay are not drained together, and the
// account of their pods, which is etcd's too, is not the one that may reach the bucket.
func TestSidecarIsApart(t *testing.T) {
	s := overlay(t, "sidecar")
	objects := s.objects(t)
	budgets := of[*disruption.PodDisruptionBudget](objects)
	if len(budgets) != 1 {
		t.Fatalf("%d budgets, want one", len(budgets))
	}
	if most := budgets[0].Spec.MaxUnavailable; most == nil || most.IntValue() != 1 {
		t.Errorf("%v members may be away at once, want 1", most)
	}
	for _, p := range pods(objects) {
		if !selects(t, *budgets[0].Spec.Selector, p) {
			t.Errorf("the budget is not for %s", p.of)
		}
		if p.spec.ServiceAccountName != "etcd" {
			t.Errorf("%s has the account %s", p.of, p.spec.ServiceAccountName)
		}
	}
	for _, account := range of[*core.ServiceAccount](append(objects,
		chartSet(t, chartDir+"/ci/sidecar-values.yaml").objects(t)...)) {
		if account.Name == "backupd" || len(account.Annotations) > 0 {
			t.Errorf("account %s with %v", account.Name, account.Annotations)
		}
	}
}
