package from_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// TestRead_Copied: a unit that was copied to another host takes nothing from the files there that
// have the names of its own.
func TestRead_Copied(t *testing.T) {
	const member, file = "ETCD_NAME=m2\nETCD_DATA_DIR=/copied/m2\n", "EnvironmentFile=HERE/env\n"
	const wrong = " is a file of this host"
	const start, opt = "ExecStart=/usr/bin/etcd", "EnvironmentFile=-HERE/env\n"
	const flags, none = start + " --name m2 --data-dir /copied/m2 --wal-dir /w", "EnvironmentFile=-HERE/none\n"
	const yml, sh = "name: m2\ndata-dir: /copied/m2\n", "#!/bin/sh\nexec etcd --name m2 --data-dir /copied/m2\n"
	const asks = "#!/bin/bash\nexec etcd --name $(hostname) --data-dir /copied/m2\n"
	type files map[string]string
	for name, c := range map[string]struct {
		text  string
		files files  // of the copy; HERE is the folder of this host's files
		want  string // of the error
		note  string
	}{
		"this host's":          {file + start, nil, "HERE/env" + wrong, ""},
		"optional":             {opt + start, nil, "HERE/env" + wrong, ""},
		"flags":                {opt + flags, nil, "HERE/env" + wrong, ""},
		"beside":               {opt + start, files{"m2/env": member}, "", "m2/env, for HERE/env"},
		"tree":                 {file + start, files{"m2HERE/env": member}, "", "m2HERE/env, for HERE/env"},
		"both":                 {file + start, files{"m2/env": member, "m2HERE/env": "A=1\n"}, "which differ", ""},
		"both, the same":       {file + start, files{"m2/env": member, "m2HERE/env": member}, "", "m2HERE/env, for"},
		"a folder":             {file + start, files{"m2/env/x": member}, wrong, ""},
		"addition":             {start, files{"m2/etcd.service.d/a.conf": "[Service]\n" + file}, wrong, ""},
		"absent":               {"EnvironmentFile=HERE/none\n" + start, nil, "no such file", ""},
		"optional, absent":     {none + start, nil, "may set ETCD_NAME", ""},
		"flags, absent":        {none + flags, nil, "", "is not there"},
		"configuration":        {start + " --config-file HERE/yml", nil, "HERE/yml" + wrong, ""},
		"configuration, one":   {start + " --config-file=HERE/yml", nil, "HERE/yml" + wrong, ""},
		"configuration, set":   {"Environment=ETCD_CONFIG_FILE=HERE/yml\n" + start, nil, "HERE/yml" + wrong, ""},
		"configuration beside": {start + " --config-file=HERE/yml", files{"m2/yml": yml}, "", "was read as"},
		"script":               {"ExecStart=/bin/sh HERE/start.sh", nil, "HERE/start.sh" + wrong, ""},
		"script beside":        {"ExecStart=/bin/sh HERE/start.sh", files{"m2/start.sh": sh}, "", ""},
		"its host's name":      {start + " --name %H --data-dir /copied/m2", nil, "%H cannot be known", ""},
		"its host asked":       {"ExecStart=/bin/sh HERE/start.sh", files{"m2/start.sh": asks}, "hostname", ""},
		"whole tree": {file + start, files{
			"m2/etcd.service":                    "",
			"m2/etc/systemd/system/etcd.service": "[Service]\n" + file + start + "\n",
			"m2HERE/env":                         member,
		}, "", "m2HERE/env, for"},
		"a package's": {file + start, files{
			"m2/etcd.service": "", "m2/usr/lib/systemd/system/etcd.service": "[Service]\n" + file + start + "\n",
			"m2HERE/env": member,
		}, "", "m2HERE/env, for"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			here := filepath.Join(dir, "here")
			files := map[string]string{
				"here/env": "ETCD_NAME=m1\nETCD_DATA_DIR=/wrong\n", "here/yml": "name: m1\ndata-dir: /wrong\n",
				"here/start.sh":   "#!/bin/sh\nexec etcd --name m1 --data-dir /wrong\n",
				"m2/etcd.service": "[Service]\n" + c.text + "\n",
			}
			unit := "m2/etcd.service"
			for path, text := range c.files {
				files[path] = text
				if filepath.Base(path) == "etcd.service" && text != "" {
					unit = path
				}
			}
			for path, text := range files {
				path = filepath.Join(dir, strings.ReplaceAll(path, "HERE", here))
				text = strings.ReplaceAll(text, "HERE", here)
				err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600))
				if err != nil {
					t.Fatal(err)
				}
			}
			f, err := from.Read([]string{filepath.Join(dir, unit)}, from.Options{All: true})
			if c.want != "" {
				want := strings.ReplaceAll(c.want, "HERE", here)
				if !errors.As(err, new(*members.FileError)) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if m := f.All[0]; m.Name.Text != "m2" || m.DataDir.Text != "/copied/m2" {
				t.Errorf("got %s at %q", m.Name.Text, m.DataDir.Text)
			}
			var notes []string
			for _, n := range f.All[0].Notes {
				notes = append(notes, n.String())
			}
			if all := strings.Join(notes, "\n"); !strings.Contains(all, strings.ReplaceAll(c.note, "HERE", here)) {
				t.Errorf("notes %q, want %q", all, c.note)
			}
		})
	}
}

// TestCompare_Own: what a member advertises is compared, whatever list of members its file has.
func TestCompare_Own(t *testing.T) {
	recorded := []backup.Member{
		{Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}}, {Name: "m2", PeerURLs: []string{"http://10.0.0.2:2380"}},
	}
	const list = "initial-cluster: m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380\n"
	for url, want := range map[string]int{"http://10.0.0.1:2380": 0, "http://10.0.0.2:2380": 1} {
		f, err := from.Read(write(t, "name: m1\ndata-dir: /d\ninitial-advertise-peer-urls: "+url+"\n"+list),
			from.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Compare(recorded); len(got) != want {
			t.Errorf("%s: %q", url, got)
		}
	}
}
