package from_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// TestRead_Needs: what the start mounts or links over the data has to be there already.
func TestRead_Needs(t *testing.T) {
	mounts, err := disk.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	there := ""
	for _, m := range mounts {
		if info, err := os.Stat(m.Point); err == nil && info.IsDir() && strings.Count(m.Point, "/") == 1 && m.Point != "/" {
			there = m.Point
		}
	}
	if there == "" {
		t.Fatal("this host mounts nothing but /")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/disk2", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	const below = "/no-such-folder-of-a-test" // the folder of the tests may be a mount
	const etcd = "etcd --name m1 --data-dir %[1]s/d/etcd"
	service := func(lines string) string { return lines + "\n[Service]\nExecStart=/bin/" + etcd + "\n" }
	script := func(lines string) string { return "#!/bin/sh\n" + lines + "\nexec " + etcd + "\n" }
	for name, c := range map[string]struct {
		text string
		line int // 0: it is not refused
	}{
		"nothing":               {service("[Unit]\nDescription=x"), 0},
		"requires":              {service("[Unit]\nRequiresMountsFor=/x %[1]s/d"), 2},
		"requires another":      {service("[Unit]\nRequiresMountsFor=/x %[1]s/dd"), 0},
		"requires nothing":      {service("[Unit]\nRequiresMountsFor=%[1]s/d\nRequiresMountsFor="), 0},
		"requires below":        {service("[Unit]\nRequiresMountsFor=%[1]s/d/etcd/member"), 2},
		"requires what is here": {strings.ReplaceAll(service("[Unit]\nRequiresMountsFor=%[1]s/d"), "%[1]s", there), 0},
		"wants":                 {service("[Unit]\nWantsMountsFor=%[1]s/d/etcd"), 2},
		"requires the root":     {service("[Unit]\nRequiresMountsFor=/"), 0},
		"requires unknown":      {service("[Unit]\nRequiresMountsFor=%%b"), 2},
		"a unit":                {service("[Unit]\nRequires=a.service %[2]s.mount"), 2},
		"another unit":          {service("[Unit]\nRequires=a.service x.mount"), 0},
		"before":                {service("[Service]\nExecStartPre=/bin/mount /dev/sdb %[1]s/d"), 2},
		"before, by a shell": {service("[Service]\nExecStartPre=-/bin/sh -c 'mountpoint -q /d || mount /dev/sdb %[1]s/d'"),
			2},
		"before, in a root of its own": {
			service("[Service]\nExecStartPre=/bin/mount /dev/sdb /elsewhere\nRootDirectory=/jail"), 2},
		"before, elsewhere": {service("[Service]\nExecStartPre=/bin/mount /dev/sdb /elsewhere"), 0},
		"with etcd":         {"[Service]\nExecStart=/bin/sh -c 'mount -o noatime /dev/sdb %[1]s/d; exec " + etcd + "'\n", 2},
		"script":            {script("mount --bind /disk2 %[1]s/d"), 2},
		"script, what is":   {strings.ReplaceAll(script("mount --bind /disk2 %[1]s\nln -sfn /disk2 /q"), "%[1]s", there), 0},
		"script, below":     {script("mount -t tmpfs none %[1]s/d/etcd/member/wal"), 2},
		"script, target":    {script("mount --target %[1]s/d --source /dev/sdb"), 2},
		"script, label":     {script("sudo mount -L data %[1]s/d"), 2},
		"script, if":        {script("if ! mountpoint -q %[1]s/d; then mount $DISK %[1]s/d; fi"), 2},
		"script, unknown":   {script("mount /dev/sdb $(cat /place)"), 2},
		"script, remount":   {script("mount -o remount,rw %[1]s/d; mount --make-rprivate /"), 0},
		"script, systemctl": {script("systemctl start x.mount '%[2]s.mount'"), 2},
		"script, cd":        {script("cd %[1]s\nmount /dev/sdb d"), 3},
		"link":              {script("ln -s /disk2 %[1]s/d"), 2},
		"link in a folder":  {script("cd %[1]s && ln -sfn /other/d"), 2},
		"hard link":         {script("ln /disk2 %[1]s/d"), 0},
		"link that is":      {strings.ReplaceAll(script("ln -sfn /disk2 %[1]s/d"), "%[1]s/d", dir+"/link"), 0},
		"link elsewhere":    {strings.ReplaceAll(script("ln -sfn /disk3 %[1]s/d"), "%[1]s/d", dir+"/link"), 2},
		"after":             {script("true") + "mount /dev/sdb %[1]s/d\n", 0},
		"docker": {"#!/bin/sh\nmount /dev/sdb %[1]s/d\ndocker run -v %[1]s/d:/x etcd etcd --name m1 --data-dir /x/etcd\n",
			2},
	} {
		t.Run(name, func(t *testing.T) {
			escaped := strings.ReplaceAll(strings.ReplaceAll(strings.Trim(below+"/d", "/"), "-", `\x2d`), "/", "-")
			text := c.text
			if strings.Contains(text, "%[") {
				text = strings.TrimSuffix(fmt.Sprintf(text+"%[3]s%[1]s%[2]s", below, escaped, "\x00"), "\x00"+below+escaped)
			}
			file := filepath.Join(t.TempDir(), "etcd.service")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := from.Read([]string{file}, from.Options{})
			var refused *backup.RefusedError
			at := fmt.Sprintf("%s:%d: ", file, c.line)
			if (c.line > 0) != errors.As(err, &refused) || c.line == 0 && err != nil ||
				c.line > 0 && !strings.Contains(err.Error(), at) {
				t.Errorf("%s\ngot %v, want line %d", text, err, c.line)
			}
			if c.line > 0 {
				if _, err := from.Read([]string{file}, from.Options{DataDir: below + "/d/etcd"}); err != nil {
					t.Errorf("with a place that is given: %v", err)
				}
			}
		})
	}
}
