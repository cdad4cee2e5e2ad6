package manifests

import (
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// TestSpoolFits: the spool fits into its volume, or the kubelet would evict the pod and
// lose what waits. On the disk of a node, where etcd's data may lie too, more stays free
// than the kubelet's eviction thresholds ask for.
func TestSpoolFits(t *testing.T) {
	for _, s := range sets(t) {
		objects := s.objects(t)
		for _, p := range pods(objects) {
			where := s.name + ": " + p.of
			if strings.HasSuffix(p.of, "-check") {
				continue // it takes no snapshot
			}
			room, node := spoolVolume(t, p, objects)
			conf := spoolOf(t, p, objects)
			most, err := resource.ParseQuantity(strings.TrimSuffix(conf.MaxBytes, "B"))
			if err != nil || most.Sign() <= 0 || most.AsApproximateFloat64() > 0.91*room.AsApproximateFloat64() {
				t.Errorf("%s: max-bytes is %q in a volume of %s (%v)", where, conf.MaxBytes, room.String(), err)
			}
			if node && conf.MinFree != "20%" || !node && conf.MinFree != "512MiB" {
				t.Errorf("%s: min-free is %q", where, conf.MinFree)
			}
		}
	}
}

// spoolVolume returns the size of the volume of the spool, and whether it is the node's
// disk.
func spoolVolume(t *testing.T, p pod, objects []object) (room resource.Quantity, node bool) {
	t.Helper()
	for _, v := range p.spec.Volumes {
		if !strings.HasSuffix(v.Name, "spool") {
			continue
		}
		if v.EmptyDir != nil {
			return *v.EmptyDir.SizeLimit, true
		}
		for _, claim := range of[*core.PersistentVolumeClaim](objects) {
			if v.PersistentVolumeClaim != nil && claim.Name == v.PersistentVolumeClaim.ClaimName {
				return claim.Spec.Resources.Requests[core.ResourceStorage], false
			}
		}
	}
	t.Fatalf("%s: no volume for the spool", p.of)
	return room, false
}

// spoolOf returns what the configuration of a pod says of the spool.
func spoolOf(t *testing.T, p pod, objects []object) (out struct {
	MaxBytes string `json:"max-bytes"`
	MinFree  string `json:"min-free"`
}) {
	t.Helper()
	for _, c := range of[*core.ConfigMap](objects) {
		text, ok := c.Data["backupd.yaml"]
		if !ok {
			continue
		}
		conf := struct{ Daemon struct{ Spool any } }{}
		conf.Daemon.Spool = &out
		if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Fatalf("%s: no configuration", p.of)
	return out
}
