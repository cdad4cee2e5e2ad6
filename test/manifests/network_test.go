package manifests

import (
	"slices"
	"testing"

	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func selects(t *testing.T, s meta.LabelSelector, p pod) bool {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(&s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(p.labels))
}

// opens reports whether rules let traffic through at a port. An empty list of
// ports would be all of them, which no rule here means.
func opens(ports []networking.NetworkPolicyPort, protocol string, port int) bool {
	return slices.ContainsFunc(ports, func(p networking.NetworkPolicyPort) bool {
		return string(*p.Protocol) == protocol && p.Port.IntValue() == port && p.EndPort == nil
	})
}

func TestNetworkPolicies(t *testing.T) {
	found := 0
	for _, s := range sets(t) {
		objects := s.objects(t)
		for _, policy := range of[*networking.NetworkPolicy](objects) {
			found++
			spec := policy.Spec
			if len(spec.PolicyTypes) != 2 {
				t.Errorf("%s: policy is for %v only", s.name, spec.PolicyTypes)
			}
			if labels.SelectorFromSet(spec.PodSelector.MatchLabels).Empty() {
				t.Errorf("%s: policy is for every pod of the namespace", s.name)
			}
			serves := false
			for _, p := range pods(objects) {
				if !selects(t, spec.PodSelector, p) {
					t.Errorf("%s: policy is not for %s", s.name, p.of)
				}
				serves = serves || hasPort(p, "backupd")
			}
			var asked bool
			for _, rule := range spec.Ingress {
				if len(rule.From) == 0 || len(rule.Ports) == 0 {
					t.Errorf("%s: policy lets everybody in", s.name)
				}
				asked = asked || opens(rule.Ports, "TCP", 9387)
			}
			if asked != serves {
				t.Errorf("%s: port 9387 is open: %v, and served: %v", s.name, asked, serves)
			}
			for _, want := range []struct {
				protocol string
				port     int
			}{{"UDP", 53}, {"TCP", 53}, {"TCP", 2379}, {"TCP", 443}} {
				if !slices.ContainsFunc(spec.Egress, func(rule networking.NetworkPolicyEgressRule) bool {
					return opens(rule.Ports, want.protocol, want.port)
				}) {
					t.Errorf("%s: policy forbids %s %d", s.name, want.protocol, want.port)
				}
			}
			if slices.ContainsFunc(spec.Egress,
				func(rule networking.NetworkPolicyEgressRule) bool { return len(rule.Ports) == 0 }) {
				t.Errorf("%s: policy lets everything out", s.name)
			}
		}
	}
	if found != 7 {
		t.Errorf("%d network policies, want 7: of four overlays, and of three files of values", found)
	}
}
