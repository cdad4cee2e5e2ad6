package settings_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

func mount(inside, host string) members.Mount {
	return members.Mount{
		Inside: members.Word{Text: inside, At: members.Position{File: "c", Line: 1}},
		Host:   members.Word{Text: host, At: members.Position{File: "c", Line: 1}},
	}
}

func TestResolve_Contained(t *testing.T) {
	volume := mount("/data", "")
	volume.Volume = "etcd-data"
	reading := mount("/data", "/srv/m1")
	reading.ReadOnly = true
	for _, c := range []struct {
		args   string
		mounts []members.Mount
		want   string // the place, or what the error says
	}{
		{"--data-dir /data", []members.Mount{mount("/data", "/srv/m1")}, "/srv/m1 -"},
		{"--data-dir /data/", []members.Mount{mount("/data/", "/srv/m1/")}, "/srv/m1 -"},
		{"--data-dir /data/m1", []members.Mount{mount("/data", "/srv/m1")}, "/srv/m1/m1 -"},
		{"--data-dir d", []members.Mount{mount("/srv/etcd", "/host")}, "/host/d -"},
		{"--data-dir /data", []members.Mount{mount("/", "/host")}, "/host/data -"},
		{"--data-dir /a/b/c", []members.Mount{mount("/a", "/x"), mount("/a/b", "/y")}, "/y/c -"},
		{"--data-dir /data/m --wal-dir /wal", []members.Mount{mount("/data", "/x"), mount("/wal", "/y")}, "/x/m /y"},
		{"--data-dir /data2", []members.Mount{mount("/data", "/srv/m1")}, "no mount holds it"},
		{"--data-dir /data", nil, "no mount holds it"},
		{"--data-dir /data", []members.Mount{volume}, `the volume "etcd-data"`},
		{"--data-dir /data", []members.Mount{reading}, "read-only"},
		{"--data-dir /data", []members.Mount{mount("/data", "rel")}, "not an absolute path"},
		{"--data-dir /data", []members.Mount{mount("/data", "/a"), mount("/data/", "/b")}, "two mounts"},
		{"--data-dir /data", []members.Mount{mount("/data", "/a"), mount("/data/member/wal", "/b")}, "two pieces"},
		{"--data-dir /data/m --wal-dir /wal", []members.Mount{mount("/data", "/x")}, "no mount holds it"},
		{"--config-file /etc/etcd.yml", []members.Mount{mount("/data", "/x")}, "the configuration file /etc/etcd.yml is"},
	} {
		s := start(words(c.args), nil)
		s.Contained, s.Mounts = true, c.mounts
		h, err := settings.Resolve(s, options())
		got := ""
		if err == nil {
			got = h.DataDir.Text + " " + or(h.WALDir.Text)
		}
		if err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s in %v: got %q, %v, want %q", c.args, c.mounts, got, err, c.want)
		}
	}
}
