package manifests

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// compose loads a file as Docker Compose does: by its schema, which allows no
// unknown key, and by its rules.
func compose(t *testing.T, content string) (*types.Project, error) {
	t.Helper()
	return loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: []byte(content)}},
	})
}

func TestCompose(t *testing.T) {
	content := read(t, deploy+"/compose/compose.yaml")
	project, err := compose(t, content)
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Services) != 1 {
		t.Fatalf("%d services, want 1", len(project.Services))
	}
	s := project.Services["backupd"]
	if want := "ghcr.io/etcd-backupd/backupd:" + appVersion(t); s.Image != want {
		t.Errorf("image %s, the chart's is %s", s.Image, want)
	}
	if s.User != "65532:65532" || !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
		!slices.Contains(s.SecurityOpt, "no-new-privileges:true") || len(s.CapAdd) > 0 || s.Privileged || len(s.Ports) > 0 {
		t.Errorf("it may do more than it needs: %+v", s)
	}
	if s.Restart != "on-failure" || s.StopGracePeriod == nil || s.MemLimit < 512<<20 {
		t.Errorf("restart %q, grace period %v, memory %d", s.Restart, s.StopGracePeriod, s.MemLimit)
	}
	if out, err := run(t, backupd(t), append(s.Command, "--help")...); err != nil || !strings.Contains(out, "Usage:") {
		t.Errorf("backupd %s: %v\n%s", s.Command, err, out)
	}
	if test := s.HealthCheck.Test; !slices.Equal(test, []string{"CMD", "/usr/bin/backupd", "status"}) {
		t.Errorf("health check %q: there is no shell in the image", test)
	}
	if _, err := compose(t, strings.Replace(content, "read_only: true", "readonly: true", 1)); err == nil {
		t.Error("an unknown key is accepted")
	}
}

// TestComposeConfiguration has backupd check the configuration with the folders that
// the container sees.
func TestComposeConfiguration(t *testing.T) {
	project, err := compose(t, read(t, deploy+"/compose/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	root, c := t.TempDir(), newContents(t)
	move := strings.NewReplacer("/etc/backupd", root+"/etc/backupd", "/var/lib/backupd", root+"/var/lib/backupd")
	for _, v := range project.Services["backupd"].Volumes {
		if v.Type == types.VolumeTypeBind && v.Source != v.Target {
			t.Errorf("%s of the host is %s in the container: the page's paths would be wrong", v.Source, v.Target)
		}
		write(t, filepath.Join(move.Replace(v.Target), "mounted"), nil)
	}
	config := filepath.Join(root, "etc/backupd")
	for _, name := range []string{"s3-credentials", "etcd/ca.crt", "etcd/client.crt", "etcd/client.key"} {
		write(t, filepath.Join(config, name), c.of(filepath.Base(name)))
	}
	write(t, filepath.Join(config, "backupd.yaml"), []byte(move.Replace(read(t, deploy+"/compose/backupd.yaml"))))
	for _, folder := range []string{config, filepath.Join(root, "var/lib/backupd/spool")} {
		if _, err := os.Stat(filepath.Join(folder, "mounted")); err != nil {
			t.Errorf("%s is not mounted", folder)
		}
	}
	configCheck(t, filepath.Join(config, "backupd.yaml"), nil)
}
