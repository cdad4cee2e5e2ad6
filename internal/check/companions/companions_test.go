package companions_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/companions"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := put("pki/ca.key", "parsley")
	unit := put("etcd.service",
		"[Service]\nEnvironment=PASSWORD=parsley\nExecStart=/usr/bin/etcd --name m1 --data-dir /d\n")
	bad := put("bad.yaml", "name: m1\ninitial-cluster-token: parsley\ndata-dir: parsley.etcd\n")
	torn := put("torn.service", "[Service]\nEnvironment=PASSWORD=\"parsley\n")
	gone, empty := filepath.Join(dir, "gone"), filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	kube := testserver.StartFakeKube(t)
	kube.Set("prod/certs", map[string]string{"tls.key": "parsley"})
	const refused = ": a restore would refuse it: "
	for name, c := range map[string]struct {
		paths, from, secrets []string
		plain                bool
		want                 []string // each a level and a part of the text
	}{
		"none": {nil, nil, nil, true, nil},
		"all": {[]string{key}, []string{unit}, nil, false, []string{
			"ok 2 companion files with 94 B of host ", "ok a restore by --from-snapshot would read 1 of them",
		}},
		"plain": {[]string{filepath.Dir(key)}, nil, nil, true, []string{
			"ok 1 companion file with 7 B", "warning plain text",
		}},
		"gone": {[]string{key, gone}, nil, nil, false, []string{
			"failure " + gone + ": no such file", "ok 1 companion file ",
		}},
		"empty":  {[]string{empty}, nil, nil, true, []string{"failure " + empty + ": the folder holds no file"}},
		"starts": {nil, []string{bad}, nil, false, []string{"failure " + bad + refused, "ok 1 companion "}},
		"torn":   {nil, []string{torn}, nil, false, []string{"failure " + torn + refused, "ok 1 companion "}},
		"second": {nil, []string{unit, gone}, nil, false, []string{"failure " + gone + ": no such file"}},
		"Secrets": {nil, nil, []string{"prod/gone", "prod/certs"}, true, []string{
			"failure Secret prod/gone: not found", "ok Secret prod/certs can be read", "warning plain text",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a file that was just written is waited for
			got := companions.Check(t.Context(), companion.Of(companion.Files{
				Paths: c.paths, From: c.from, Trace: from.Trace, Secrets: c.secrets, Kubeconfig: kube.Kubeconfig,
			}), "prod", c.plain)
			var lines []string
			for _, f := range got {
				lines = append(lines, string(f.Level)+" "+f.Text)
				if f.Section != companions.Section || f.Subject != "prod" || (f.Level == backup.LevelOK) != (f.Hint == "") {
					t.Errorf("%+v", f)
				}
			}
			all := strings.Join(lines, "\n")
			for _, want := range c.want {
				level, text, _ := strings.Cut(want, " ")
				found := false
				for _, l := range lines {
					found = found || strings.HasPrefix(l, level+" ") && strings.Contains(l, text)
				}
				if !found {
					t.Errorf("no %q in:\n%s", want, all)
				}
			}
			if c.want == nil && len(got) > 0 || strings.Contains(all, "parsley") {
				t.Errorf("got:\n%s", all)
			}
			// Nobody believes that a restore has what it needs while something is missing.
			if strings.Contains(all, "failure ") && strings.Contains(all, "a restore by --from-snapshot would") {
				t.Errorf("got:\n%s", all)
			}
		})
	}
}
