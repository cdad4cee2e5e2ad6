package from_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// TestRead_Secrets: nothing that is printed of a file, an error or a note, has a value in it that
// may be a secret.
func TestRead_Secrets(t *testing.T) {
	const etcd = "etcd --name m1 --data-dir /d --listen-peer-urls http://10.0.0.1:2380"
	unit := func(lines string) string { return "[Service]\n" + lines + "\nExecStart=/b/" + etcd + "\n" }
	for name, text := range map[string]string{
		"alias":       "#!/bin/sh\nalias put='etcdctl --user root:SECRET'\n" + etcd + "\n",
		"curl":        "#!/bin/sh\nD=$(curl -u root:SECRET http://x)\n" + etcd + "$D\n",
		"word":        "#!/bin/sh\n" + etcd + " SECRET\n",
		"flag":        "#!/bin/sh\n" + etcd + " --bogus-password=SECRET\n",
		"default":     "#!/bin/sh\n" + etcd + "${X:?SECRET}\n",
		"declaration": "#!/bin/sh\nexport PW=SECRET =x\n" + etcd + "\n",
		"escape":      unit(`Environment="PW=SECRET\q"`),
		"assignment":  unit(`Environment="root:SECRET"`),
		"line":        unit("PASSWORD SECRET foo"),
		"head":        unit("[SECRET"),
		"dollar":      "[Service]\nExecStart=/b/" + etcd + " $PW/SECRET\n",
		"variables":   "ETCD_NAME=m1\nETCD_DATA_DIR=/d\nexport PW=SECRET\nPW='SEC\\RET SECRET'\n",
		"advertised":  "#!/bin/sh\n" + etcd + " --initial-advertise-peer-urls http://u:SECRET@10.0.0.1:2380\n",
		"listed":      "ETCD_NAME=m1\nETCD_DATA_DIR=/d\nETCD_INITIAL_CLUSTER=m1=http://u:SECRET@10.0.0.1:2380\n",
		"note": "ETCD_NAME=m1\nETCD_DATA_DIR=/d\nETCD_DISCOVERY=https://u:SECRET@x/y\n" +
			"ETCD_UNKNOWN=https://u:SECRET@x/y\n",
		"compose":     "services:\n  e:\n    image: etcd\n    command: etcd --name m1 ${SECRET!}\n",
		"quotes":      "services:\n  e:\n    image: etcd\n    command: etcd --name m1 'SECRET\n",
		"supervisord": "[program:etcd]\ncommand=" + etcd + "\nenvironment=A=\"SECRET\" B=SECRET\n",
	} {
		f, err := from.Read(write(t, text), from.Options{})
		var shown []string
		if err != nil {
			shown = append(shown, secret.Show(err.Error()))
		} else {
			for _, n := range f.Host.Notes {
				shown = append(shown, n.String())
			}
		}
		if all := strings.Join(shown, "\n"); strings.Contains(all, "SECRET") {
			t.Errorf("%s: %s", name, all)
		}
		if (name == "advertised" || name == "listed") && (err == nil || !strings.Contains(err.Error(), "login")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	note := members.Note{Text: "a URL: https://u:SECRET@x/y"}
	if strings.Contains(note.String(), "SECRET") {
		t.Error(note)
	}
}
