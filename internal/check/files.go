package check

import (
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
)

// spoolPath is the key of the spool folder, which has a check of its own.
const spoolPath = "daemon.spool.folder"

// checkFiles checks the files that the configuration names.
func checkFiles(conf *config.Config) []backup.Finding {
	l := list{section: SectionConfiguration, subject: "files"}
	for _, p := range conf.CheckFiles() {
		if p.Path == spoolPath {
			continue
		}
		where := ""
		if p.Line > 0 {
			where = fmt.Sprintf(" (line %d of %s)", p.Line, p.File)
		}
		without := "the cluster fails"
		switch {
		case strings.HasPrefix(p.Path, "daemon."):
			without = "backupd does not start"
		case strings.HasPrefix(p.Path, "repositories."):
			without = "the clusters of this repository fail"
		}
		l.fail(without+" before this is right; it must be readable by the user that backupd runs as",
			"%s: %s%s", p.Path, p.Message, where)
	}
	for _, s := range conf.SecretFiles() {
		info, err := os.Stat(s.File)
		if err != nil {
			continue // reported above
		}
		if who := othersMay(info.Mode()); who != "" {
			l.warn("run chmod 600 on it; for a Kubernetes secret set defaultMode: 0400",
				"%s: %s: %s (mode %04o)", s.Key, s.File, who, info.Mode().Perm())
		}
	}
	if len(l.findings) == 0 {
		if n := len(conf.Files()); n > 0 {
			l.ok("all files of the configuration (%d) can be read and are what they should be", n)
		} else {
			l.ok("the configuration names no files")
		}
	}
	return l.findings
}

// othersMay describes the access of every user of this machine to a secret.
func othersMay(mode fs.FileMode) string {
	switch {
	case mode&0o002 != 0:
		return "every user of this machine can change this secret"
	case mode&0o004 != 0:
		return "every user of this machine can read this secret"
	}
	return ""
}
