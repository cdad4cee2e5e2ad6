package manifests

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
)

// restoreOf returns the container of a set that restores.
func restoreOf(t *testing.T, s set) core.Container {
	t.Helper()
	for _, p := range pods(s.objects(t)) {
		for _, c := range p.containers() {
			if c.Name == "restore" {
				return c
			}
		}
	}
	t.Fatalf("%s restores nothing", s.name)
	return core.Container{}
}

// TestRestoreInPods: the init container restores before etcd starts, once, to where etcd has
// its data, and etcd never begins a cluster of its own.
func TestRestoreInPods(t *testing.T) {
	s := overlay(t, "sidecar-restore")
	restore := restoreOf(t, s)
	for _, set := range of[*apps.StatefulSet](s.objects(t)) {
		spec := set.Spec.Template.Spec
		if spec.InitContainers[0].Name != "restore" {
			t.Errorf("%s begins with %s", set.Name, spec.InitContainers[0].Name)
		}
		etcd := spec.Containers[0]
		dir := "--data-dir=/var/lib/etcd/data"
		if !slices.Contains(etcd.Command, dir) || !slices.Contains(restore.Args, dir) ||
			!slices.Contains(etcd.Command, "--initial-cluster-state=existing") {
			t.Errorf("restored with %q, started by %q", restore.Args, etcd.Command)
		}
		for _, m := range restore.VolumeMounts {
			if m.Name == "data" && !slices.ContainsFunc(etcd.VolumeMounts, func(o core.VolumeMount) bool {
				return reflect.DeepEqual(m, o)
			}) {
				t.Errorf("the restore mounts %+v, etcd %+v", m, etcd.VolumeMounts)
			}
		}
	}
	checkRestore(t, s)

	chart := chartSet(t, chartDir+"/ci/sidecar-restore-values.yaml")
	checkRestore(t, chart)
	if !strings.Contains(chart.notes, "--initial-cluster-state=existing") {
		t.Errorf("the notes do not say how etcd is started:\n%s", chart.notes)
	}
	maps := of[*core.ConfigMap](chart.objects(t))
	if len(maps) != 1 || !strings.Contains(maps[0].Data["plan.yaml"], "\nformat: backupd/plan/v1") {
		t.Errorf("the chart keeps no plan: %+v", maps)
	}
	for key, values := range map[string]map[string]any{
		"sidecar": {"mode": "daemon", "restore": map[string]any{"plan": "x"}},
		"dataDir": {"restore": map[string]any{"dataDir": "relative"}},
	} {
		values["config"] = map[string]any{
			"repositories": map[string]any{"main": map[string]any{"url": "s3://b"}},
			"clusters":     []any{map[string]any{"name": "a"}},
		}
		if _, err := renderChart(values); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%v: %v", values, err)
		}
	}
}

// checkRestore asks the program itself about the arguments: what it refuses first is the plan
// that is not there.
func checkRestore(t *testing.T, s set) {
	t.Helper()
	c := restoreOf(t, s)
	for _, want := range []string{"--if-empty", "--name=$(POD_NAME)"} {
		if !slices.Contains(c.Args, want) {
			t.Errorf("%s: %q without %s", s.name, c.Args, want)
		}
	}
	out, err := run(t, backupd(t), c.Args...)
	if err == nil || !strings.Contains(out, "--plan: open /etc/backupd/") {
		t.Errorf("%s: backupd %q: %v\n%s", s.name, c.Args, err, out)
	}
	if c.RestartPolicy != nil {
		t.Errorf("%s: etcd does not wait for the restore", s.name)
	}
	raw, err := json.Marshal(c.Env)
	if err != nil || !strings.Contains(string(raw), `"fieldPath":"metadata.name"`) {
		t.Errorf("%s: the restore has the environment %s, %v", s.name, raw, err)
	}
	for _, arg := range c.Args {
		_, path, is := strings.Cut(arg, "=/")
		if !is {
			continue
		}
		if !slices.ContainsFunc(c.VolumeMounts, func(m core.VolumeMount) bool {
			return strings.HasPrefix("/"+path, m.MountPath+"/")
		}) {
			t.Errorf("%s: %s is mounted nowhere", s.name, arg)
		}
	}
}
