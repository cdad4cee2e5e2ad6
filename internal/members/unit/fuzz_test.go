package unit_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/members/unit"
)

// checkPlaces fails for a member without a name, or with a place that is not on this host.
func checkPlaces(t *testing.T, s members.Start, o members.ReadOptions) {
	t.Helper()
	h, err := settings.Resolve(s, settings.Options{ReadOptions: o})
	if err != nil {
		return
	}
	if h.Name.Text == "" || !filepath.IsAbs(h.DataDir.Text) || h.DataDir.Text == "/" {
		t.Fatalf("name %q, data directory %q", h.Name.Text, h.DataDir.Text)
	}
	if h.WALDir.Text != "" && !filepath.IsAbs(h.WALDir.Text) {
		t.Fatalf("WAL directory %q", h.WALDir.Text)
	}
}

func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		service("ExecStart=/usr/bin/etcd --name m1 \\", "# c", "  --data-dir=d $A ${B} %n"),
		service("Environment=ETCD_NAME=m1 'ETCD_DATA_DIR=/d'", "EnvironmentFile=-/e", "ExecStart=@/usr/bin/etcd etcd"),
		service(`ExecStart=/bin/bash -c "exec /usr/bin/etcd --name=\"${ETCD_NAME}\" --wal-dir w"`, "WorkingDirectory=/w"),
		service("BindPaths=/a:/b", "PrivateTmp=yes", "ExecStart=/usr/bin/etcd --data-dir /b/c\\x20d"), "[", "a=\\", "\ufeff=",
	} {
		f.Add(seed, etcdConf)
	}
	f.Fuzz(func(t *testing.T, unitFile, envFile string) {
		h := host{file: unitFile, "/e": envFile, "/etc/etcd/etcd.conf": envFile}
		starts, err := unit.Read(file, []byte(unitFile), h.options())
		if err != nil {
			return
		}
		if !unit.Recognize(file, []byte(unitFile)) {
			t.Fatal("it is read and not recognised")
		}
		for _, s := range starts {
			checkPlaces(t, s, h.options())
		}
	})
}

func FuzzReadVariables(f *testing.F) {
	for _, seed := range []string{
		etcdConf, "ETCD_NAME='a'\"b\"c\\\nd\r\nETCD_DATA_DIR=/d", "=", "A=\"", "#\\\n", "export A=1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		starts, err := unit.ReadVariables("f", []byte(raw), members.ReadOptions{})
		if err != nil {
			return
		}
		lines := strings.Count(raw, "\n") + 1
		for _, s := range starts {
			for _, v := range s.Env {
				if v.Value.At.Line < 1 || v.Value.At.Line > lines {
					t.Fatalf("%s is in line %d of %d", v.Name, v.Value.At.Line, lines)
				}
			}
			checkPlaces(t, s, members.ReadOptions{})
		}
	})
}
