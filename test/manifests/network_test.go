package manifests

import (
	"net/netip"
	"slices"
	"strings"
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

// reaches reports whether a policy lets a pod connect to a port of an address outside
// of the pods, which only a rule for addresses, or one for everything, does.
func reaches(t *testing.T, policy *networking.NetworkPolicy, address, protocol string, port int) bool {
	t.Helper()
	to := netip.MustParseAddr(address)
	return slices.ContainsFunc(policy.Spec.Egress, func(rule networking.NetworkPolicyEgressRule) bool {
		return opens(rule.Ports, protocol, port) && (len(rule.To) == 0 ||
			slices.ContainsFunc(rule.To, func(peer networking.NetworkPolicyPeer) bool {
				return peer.IPBlock != nil && netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(to)
			}))
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
			checkEgress(t, s, policy)
		}
	}
	if found != 16 {
		t.Errorf("%d network policies, want 16: of twelve overlays, and of four files of values", found)
	}
}

func checkEgress(t *testing.T, s set, policy *networking.NetworkPolicy) {
	t.Helper()
	const anywhere = "203.0.113.7"
	for _, want := range []struct {
		address, protocol string
		port              int
		reached           bool
	}{
		{"169.254.20.10", "UDP", 53, true}, // NodeLocal DNSCache
		{"169.254.20.10", "TCP", 53, true},
		{anywhere, "UDP", 53, false},
		{anywhere, "TCP", 443, true},
		{anywhere, "TCP", 6443, s.secrets},
		{anywhere, "TCP", 80, strings.Contains(s.name, "quiet")},
		// An etcd of the overlay is not to have the identity of the node.
		{"169.254.170.23", "TCP", 80, s.mode != "sidecar"},
		{"169.254.169.254", "TCP", 80, s.mode != "sidecar"},
		{"fd00:ec2::23", "TCP", 80, s.mode != "sidecar"},
	} {
		if got := reaches(t, policy, want.address, want.protocol, want.port); got != want.reached {
			t.Errorf("%s: %s %s:%d is reached: %v, want %v", s.name, want.protocol, want.address, want.port, got,
				want.reached)
		}
	}
	for _, pods := range []struct {
		protocol string
		port     int
	}{{"UDP", 53}, {"TCP", 53}, {"TCP", 2379}} {
		if !slices.ContainsFunc(policy.Spec.Egress, func(rule networking.NetworkPolicyEgressRule) bool {
			return opens(rule.Ports, pods.protocol, pods.port)
		}) {
			t.Errorf("%s: policy forbids %s %d", s.name, pods.protocol, pods.port)
		}
	}
	if slices.ContainsFunc(policy.Spec.Egress,
		func(rule networking.NetworkPolicyEgressRule) bool { return len(rule.Ports) == 0 }) {
		t.Errorf("%s: policy lets everything out", s.name)
	}
}

// TestConfiguredPortsAreOpen: a URL in the configuration of the chart is not shut off
// by its own policy.
func TestConfiguredPortsAreOpen(t *testing.T) {
	s := chartSet(t, chartDir+"/ci/quiet-values.yaml")
	policy := of[*networking.NetworkPolicy](s.objects(t))[0]
	for what, port := range map[string]int{"store": 9000, "etcd": 12379, "webhook": 8443, "ping": 80} {
		if !reaches(t, policy, "203.0.113.7", "TCP", port) {
			t.Errorf("the policy shuts off the %s at port %d", what, port)
		}
	}
}
