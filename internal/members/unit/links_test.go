package unit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
	"github.com/etcd-backupd/backupd/internal/members/unit"
)

// tree makes files and, where the content begins with "->", links below a folder, and returns
// options that show it as /.
func tree(t *testing.T, files map[string]string) members.ReadOptions {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(content, "->"); ok {
			if filepath.IsAbs(to) && to != "/dev/null" {
				to = root + to
			}
			err = os.Symlink(to, at)
		} else {
			err = os.WriteFile(at, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return members.ReadOptions{
		ReadFile: func(p string) ([]byte, error) { return os.ReadFile(root + p) },
		ReadDir:  func(p string) ([]os.DirEntry, error) { return os.ReadDir(root + p) },
		Follow: func(p string) (string, error) {
			to, err := filepath.EvalSymlinks(root + p)
			return strings.TrimPrefix(to, root), err
		},
	}
}

// TestRead_Links: the additions to a unit are found by all the names that links give it, and
// which unit a file is, too.
func TestRead_Links(t *testing.T) {
	const etc, usr = "/etc/systemd/system/", "/usr/lib/systemd/system/"
	start := func(dir string) string { return service("ExecStart=/e/etcd --name m1 --data-dir " + dir) }
	other := service("ExecStart=", "ExecStart=/e/etcd --name m1 --data-dir /right/%n")
	for name, c := range map[string]struct {
		file  string
		files map[string]string
		want  string
	}{
		"wanted": {etc + "multi-user.target.wants/etcd.service", map[string]string{
			etc + "multi-user.target.wants/etcd.service": "->" + usr + "etcd.service", usr + "etcd.service": start("/wrong"),
			etc + "etcd.service.d/a.conf": other,
		}, "/right/etcd.service"},
		"required, and hidden": {etc + "a.target.requires/etcd.service", map[string]string{
			etc + "a.target.requires/etcd.service": "->" + usr + "etcd.service", usr + "etcd.service": start("/wrong"),
			etc + "etcd.service": start("/right"),
		}, "/right"},
		"wanted instance": {etc + "m.target.wants/etcd@m1.service", map[string]string{
			etc + "m.target.wants/etcd@m1.service": "->../etcd@.service", etc + "etcd@.service": start("/wrong"),
			etc + "etcd@m1.service.d/a.conf": other, etc + "etcd@m2.service.d/b.conf": service("ExecStart=/e/etcd"),
		}, "/right/etcd@m1.service"},
		"wanted, and not there": {etc + "m.target.wants/etcd.service", map[string]string{
			etc + "m.target.wants/etcd.service": "->/opt/etcd.service", "/opt/etcd.service": start("/wrong"),
		}, "give the unit"},
		"wanted in a copy": {"/c/m.target.wants/etcd.service", map[string]string{
			"/c/m.target.wants/etcd.service": "->" + etc + "etcd.service", etc + "etcd.service": start("/wrong"),
			"/c/etcd.service": start("/right"),
		}, "/right"},
		"linked": {"/opt/lk.service", map[string]string{
			"/opt/lk.service": start("/wrong"), etc + "lk.service": "->/opt/lk.service", usr + "lk.service.d/a.conf": other,
		}, "/right/lk.service"},
		"linked by another name": {"/opt/lk.service", map[string]string{
			"/opt/lk.service": start("/wrong"), etc + "kv.service": "->/opt/lk.service", etc + "kv.service.d/a.conf": other,
		}, "/right/kv.service"},
		"linked twice": {"/opt/lk.service", map[string]string{
			"/opt/lk.service": start("/wrong"), etc + "kv.service": "->/opt/lk.service", etc + "lk.service": "->/opt/lk.service",
		}, etc + "lk.service lead to one file"},
		"link that is linked twice": {etc + "lk.service", map[string]string{
			"/opt/lk.service": start("/wrong"), etc + "kv.service": "->/opt/lk.service", etc + "lk.service": "->/opt/lk.service",
		}, etc + "kv.service lead to one file"},
		"linked, and hidden": {"/opt/lk.service", map[string]string{
			"/opt/lk.service": start("/wrong"), usr + "lk.service": "->/opt/lk.service", etc + "lk.service": start("/x"),
		}, "systemd takes " + etc + "lk.service instead"},
		"alias": {etc + "kv.service", map[string]string{
			etc + "kv.service": "->etcd.service", etc + "etcd.service": start("/wrong"), etc + "kv.service.d/20.conf": other,
			etc + "etcd.service.d/10.conf": start("/x"),
		}, "/right/etcd.service"},
		"unit with an alias": {etc + "etcd.service", map[string]string{
			etc + "kv.service": "->" + etc + "etcd.service", etc + "etcd.service": start("/wrong"),
			etc + "kv.service.d/a.conf": other,
		}, "/right/etcd.service"},
		"additions of one name": {etc + "etcd.service", map[string]string{
			etc + "kv.service": "->" + etc + "etcd.service", etc + "etcd.service": start("/wrong"),
			etc + "kv.service.d/a.conf": other, etc + "etcd.service.d/a.conf": other,
		}, etc + "kv.service.d/a.conf: this addition and " + etc + "etcd.service.d/a.conf have one name"},
		"masked": {etc + "etcd.service", map[string]string{etc + "etcd.service": "->/dev/null"}, "masked"},
		"link from elsewhere": {"/root/etcd.service", map[string]string{
			"/root/etcd.service": "->" + etc + "etcd.service", etc + "etcd.service": start("/wrong"),
			etc + "etcd.service.d/a.conf": other,
		}, "/right/etcd.service"},
		"link of another name": {"/root/x.service", map[string]string{
			"/root/x.service": "->" + etc + "etcd.service", etc + "etcd.service": start("/wrong"),
		}, "it is a link to " + etc + "etcd.service"},
		"link outside": {"/root/etcd.service", map[string]string{
			"/root/etcd.service": "->/srv/etcd.service", "/srv/etcd.service": start("/wrong"),
			"/srv/etcd.service.d/a.conf": other,
		}, "it is a link to /srv/etcd.service"},
	} {
		t.Run(name, func(t *testing.T) {
			o := tree(t, c.files)
			raw, _ := o.ReadFile(c.file)
			got := ""
			starts, err := unit.Read(c.file, raw, o)
			if err == nil {
				h, failed := settings.Resolve(starts[0], settings.Options{ReadOptions: o})
				if err = failed; err == nil {
					got = h.DataDir.Text
				}
			}
			if err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %s, %v, want %s", got, err, c.want)
			}
		})
	}
}
