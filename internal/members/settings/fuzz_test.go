package settings_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// checkHost fails for a member without a name, or with a place that is not on this host.
func checkHost(t *testing.T, h *settings.Host) {
	t.Helper()
	if h.Name.Text == "" || !filepath.IsAbs(h.DataDir.Text) || h.DataDir.Text == "/" {
		t.Fatalf("name %q, data directory %q", h.Name.Text, h.DataDir.Text)
	}
	if h.WALDir.Text != "" && !filepath.IsAbs(h.WALDir.Text) {
		t.Fatalf("WAL directory %q", h.WALDir.Text)
	}
	for _, s := range h.Settings {
		if s.Name == "" || s.Spelled == "" {
			t.Fatalf("setting %+v", s)
		}
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("--name m1\n--data-dir\nd", "ETCD_WAL_DIR=w", "/srv", "/srv/x", "/host")
	f.Add("--name=m1", "ETCD_DATA_DIR=../..\nETCD_NAME=x", "", "/", "")
	f.Add("--config-file=/etc/etcd.yml", "", "/", "/etc", "/h")
	f.Fuzz(func(t *testing.T, args, env, dir, inside, outside string) {
		s := start(strings.FieldsFunc(args, func(r rune) bool { return r == '\n' }), strings.Fields(env))
		s.Dir.Text = dir
		if inside != "" {
			s.Contained, s.Mounts = true, []members.Mount{mount(inside, outside)}
		}
		if h, err := settings.Resolve(s, options()); err == nil {
			checkHost(t, h)
		}
	})
}

func FuzzResolveFile(f *testing.F) {
	f.Add(sample)
	f.Add("name: a\ndata-dir: ../x\n")
	f.Add("{\"name\": \"a\", \"data-dir\": \"/d\"}")
	f.Fuzz(func(t *testing.T, raw string) {
		if h, err := resolveFile("/f", raw); err == nil {
			checkHost(t, h)
		}
	})
}
