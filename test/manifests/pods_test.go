package manifests

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	security "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// appVersion is the tag of the image.
func appVersion(t *testing.T) string {
	t.Helper()
	var chart struct{ AppVersion string }
	if err := yaml.Unmarshal([]byte(read(t, deploy+"/charts/backupd/Chart.yaml")), &chart); err != nil ||
		chart.AppVersion == "" {
		t.Fatalf("version of the application %q, %v", chart.AppVersion, err)
	}
	return chart.AppVersion
}

func TestPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sets(t) {
		objects := s.objects(t)
		level := security.LevelRestricted
		if s.mode == "kubeadm" {
			level = security.LevelPrivileged
		}
		for _, ns := range of[*core.Namespace](objects) {
			if got := ns.Labels[security.EnforceLevelLabel]; got != string(level) {
				t.Errorf("%s: namespace %s enforces %q, want %q", s.name, ns.Name, got, level)
			}
		}
		for _, p := range pods(objects) {
			if s.mode == "kubeadm" {
				// The host's files and the user root are the only excuses.
				p.spec.Volumes = slices.DeleteFunc(p.spec.Volumes,
					func(v core.Volume) bool { return v.HostPath != nil })
				p.spec.SecurityContext.RunAsUser, p.spec.SecurityContext.RunAsNonRoot = nil, new(true)
			}
			v := security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(v, &meta.ObjectMeta{Labels: p.labels},
				&p.spec))
			if !result.Allowed {
				t.Errorf("%s: %s is not %s: %s", s.name, p.of, v.Level, result.ForbiddenDetail())
			}
		}
	}
}

func TestContainers(t *testing.T) {
	image := "ghcr.io/etcd-backupd/backupd:" + appVersion(t)
	pinned := regexp.MustCompile(`^[a-z0-9./-]+(:v[0-9]+\.[0-9]+\.[0-9]+|@sha256:[0-9a-f]{64})$`)
	for _, s := range sets(t) {
		for _, p := range pods(s.objects(t)) {
			if p.spec.AutomountServiceAccountToken == nil || *p.spec.AutomountServiceAccountToken {
				t.Errorf("%s: %s gets a token of the API", s.name, p.of)
			}
			if p.spec.HostNetwork || p.spec.HostPID || p.spec.HostIPC {
				t.Errorf("%s: %s is in a namespace of the host", s.name, p.of)
			}
			for _, c := range p.containers() {
				where := s.name + ": " + p.of + ": " + c.Name
				if !pinned.MatchString(c.Image) {
					t.Errorf("%s: image %s is not pinned to a version", where, c.Image)
				}
				if c.Name == "backupd" && c.Image != image && !strings.Contains(c.Image, "@") {
					t.Errorf("%s: image %s, want %s", where, c.Image, image)
				}
				checkContainer(t, where, c)
			}
			checkProbes(t, s, p)
		}
	}
}

// leastMemory is what backupd and the children that inspect two databases at once, which
// is the default, may hold: the limit of Go's runtime is 128 MiB in each of the three, and
// soft. The database is a file, whose pages the kernel takes back.
const leastMemory = 2 * 3 * 128 << 20

func checkContainer(t *testing.T, where string, c core.Container) {
	t.Helper()
	sc := c.SecurityContext
	if sc == nil || sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
		t.Errorf("%s: the root file system can be written to", where)
	}
	if sc == nil || sc.Capabilities == nil || !slices.Contains(sc.Capabilities.Drop, "ALL") ||
		len(sc.Capabilities.Add) > 0 {
		t.Errorf("%s: has capabilities", where)
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() ||
		c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s: want requests of CPU and memory, and a limit of memory", where)
	}
	if limit := c.Resources.Limits.Memory().Value(); c.Name == "backupd" && limit < leastMemory {
		t.Errorf("%s: a limit of %d bytes of memory, want at least %d", where, limit, leastMemory)
	}
	if !c.Resources.Limits.Cpu().IsZero() {
		t.Errorf("%s: a limit of CPU slows the stream that etcd cannot free pages for", where)
	}
	for _, m := range c.VolumeMounts {
		if m.SubPath != "" {
			t.Errorf("%s: %s is mounted by subPath, which does not follow changes", where, m.Name)
		}
	}
}

// checkProbes wants what a daemon may be asked, and of a sidecar nothing that
// would hold etcd up or make it look unready.
func checkProbes(t *testing.T, s set, p pod) {
	t.Helper()
	c := p.backupd(t)
	if !s.serves(t, p) {
		if c.LivenessProbe != nil || c.ReadinessProbe != nil || len(c.Ports) > 0 {
			t.Errorf("%s: %s serves nothing and has probes or ports", s.name, p.of)
		}
		return
	}
	if c.StartupProbe != nil {
		t.Errorf("%s: %s: a startup probe would hold etcd up", s.name, p.of)
	}
	if (c.ReadinessProbe == nil) != (s.mode == "sidecar") {
		t.Errorf("%s: %s: readiness probe %v", s.name, p.of, c.ReadinessProbe)
	}
	for probe, path := range map[*core.Probe]string{c.LivenessProbe: "/healthz", c.ReadinessProbe: "/readyz"} {
		if probe == nil {
			continue
		}
		get := probe.HTTPGet
		if get == nil || get.Path != path || get.Scheme != core.URISchemeHTTPS {
			t.Errorf("%s: %s: probe %+v, want https %s", s.name, p.of, get, path)
			continue
		}
		if !slices.ContainsFunc(c.Ports, func(port core.ContainerPort) bool { return port.Name == get.Port.StrVal }) {
			t.Errorf("%s: %s: there is no port %q", s.name, p.of, get.Port.StrVal)
		}
	}
	if c.LivenessProbe == nil {
		t.Errorf("%s: %s has no liveness probe", s.name, p.of)
	}
	if s.mode == "sidecar" && (c.RestartPolicy == nil || *c.RestartPolicy != core.ContainerRestartPolicyAlways) {
		t.Errorf("%s: %s: backupd is no native sidecar", s.name, p.of)
	}
}

// serves reports whether somebody outside of a pod may ask its backupd.
func (s set) serves(t *testing.T, p pod) bool {
	t.Helper()
	var conf struct {
		Daemon struct{ Server struct{ Listen string } }
	}
	for _, c := range of[*core.ConfigMap](s.objects(t)) {
		if text, ok := c.Data["backupd.yaml"]; ok {
			if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
				t.Fatal(err)
			}
		}
	}
	return p.backupd(t).Args[0] == "run" && conf.Daemon.Server.Listen != "off"
}

// TestReferences follows every name to what it names.
func TestReferences(t *testing.T) {
	for _, s := range sets(t) {
		objects := s.objects(t)
		named := func(o meta.Object) string { return o.GetName() }
		configMaps := names(of[*core.ConfigMap](objects), named)
		claims := names(of[*core.PersistentVolumeClaim](objects), named)
		accounts := names(of[*core.ServiceAccount](objects), named)
		for _, p := range pods(objects) {
			where := s.name + ": " + p.of
			if !slices.Contains(accounts, p.spec.ServiceAccountName) {
				t.Errorf("%s: there is no service account %q", where, p.spec.ServiceAccountName)
			}
			if p.selector != nil {
				selector, err := meta.LabelSelectorAsSelector(p.selector)
				if err != nil || selector.Empty() || !selector.Matches(labels.Set(p.labels)) {
					t.Errorf("%s: selects %s, its pods are %v (%v)", where, selector, p.labels, err)
				}
			}
			volumes := map[string]bool{} // to whether it is mounted
			for _, c := range p.claims {
				volumes[c.Name] = false
			}
			for _, v := range p.spec.Volumes {
				volumes[v.Name] = false
				switch {
				case v.ConfigMap != nil && !slices.Contains(configMaps, v.ConfigMap.Name):
					t.Errorf("%s: there is no ConfigMap %s", where, v.ConfigMap.Name)
				case v.PersistentVolumeClaim != nil && !slices.Contains(claims, v.PersistentVolumeClaim.ClaimName):
					t.Errorf("%s: there is no claim %s", where, v.PersistentVolumeClaim.ClaimName)
				case v.EmptyDir != nil && v.EmptyDir.SizeLimit == nil:
					t.Errorf("%s: volume %s may fill the node's disk", where, v.Name)
				case v.HostPath != nil && s.mode != "kubeadm":
					t.Errorf("%s: volume %s is of the host", where, v.Name)
				}
			}
			for _, c := range p.containers() {
				for _, m := range c.VolumeMounts {
					if _, ok := volumes[m.Name]; !ok {
						t.Errorf("%s: %s mounts %s, which does not exist", where, c.Name, m.Name)
					}
					volumes[m.Name] = true
				}
			}
			for name, mounted := range volumes {
				if !mounted {
					t.Errorf("%s: volume %s is mounted nowhere", where, name)
				}
			}
		}
		for _, service := range of[*core.Service](objects) {
			if !service.Spec.PublishNotReadyAddresses {
				t.Errorf("%s: Service %s hides the pods that are not ready", s.name, service.Name)
			}
			for _, port := range service.Spec.Ports {
				if !slices.ContainsFunc(pods(objects), func(p pod) bool {
					return labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(p.labels)) &&
						hasPort(p, port.TargetPort.StrVal)
				}) {
					t.Errorf("%s: Service %s: no pod has port %s", s.name, service.Name, port.TargetPort.StrVal)
				}
			}
		}
	}
}

func names[T any](list []T, name func(meta.Object) string) []string {
	var out []string
	for _, o := range list {
		out = append(out, name(any(o).(meta.Object)))
	}
	return out
}

func hasPort(p pod, name string) bool {
	for _, c := range p.containers() {
		if slices.ContainsFunc(c.Ports, func(port core.ContainerPort) bool { return port.Name == name }) {
			return true
		}
	}
	return false
}
