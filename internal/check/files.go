package check

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
)

// spoolPath is the key of the spool folder, which has a check of its own.
const spoolPath = "daemon.spool.folder"

// checkFiles looks at the files that the configuration names.
func (c *checker) checkFiles(context.Context) []backup.Finding {
	l := list{section: SectionConfiguration, subject: "files"}
	for _, p := range c.conf.CheckFiles() {
		if p.Path == spoolPath {
			continue
		}
		where := ""
		if p.Line > 0 {
			where = fmt.Sprintf(" (line %d of %s)", p.Line, p.File)
		}
		l.fail("backupd does not start before this is right; it must be readable by the user it runs as", "%s: %s%s", p.Path, p.Message, where)
	}
	for _, s := range secretFiles(c.conf) {
		info, err := os.Stat(s.file)
		if err != nil {
			continue // told above
		}
		if who := othersMay(info.Mode()); who != "" {
			l.warn("chmod 600 it; of a Kubernetes secret set defaultMode: 0400", "%s: %s: %s (mode %04o)", s.path, s.file, who, info.Mode().Perm())
		}
	}
	if len(l.findings) == 0 {
		if n := len(c.conf.Files()); n > 0 {
			l.ok("all files that are named (%d) can be read and are what they should be", n)
		} else {
			l.ok("no files are named")
		}
	}
	return l.findings
}

// othersMay says what everybody on this machine may do with a secret.
func othersMay(mode fs.FileMode) string {
	switch {
	case mode&0o002 != 0:
		return "every user of this machine can change this secret"
	case mode&0o004 != 0:
		return "every user of this machine can read this secret"
	}
	return ""
}

// secret is a file that holds one.
type secret struct{ path, file string }

// secretFiles returns the files of a configuration whose content is a secret,
// by the keys that name them. One file is returned once.
func secretFiles(conf *config.Config) []secret {
	var out []secret
	add := func(path string, files ...string) {
		for _, file := range files {
			if file != "" && !slices.ContainsFunc(out, func(s secret) bool { return s.file == file }) {
				out = append(out, secret{path, file})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(conf.Repositories)) {
		s := conf.Repositories[name].S3
		add("repositories."+name+".s3.credentials-file", s.CredentialsFile)
		add("repositories."+name+".s3.sse-c-key-file", s.SSECKeyFile)
	}
	for i := range conf.Clusters {
		c := &conf.Clusters[i]
		path := fmt.Sprintf("clusters[%d].", i)
		add(path+"tls.key-file", c.TLS.KeyFile)
		add(path+"password-file", c.PasswordFile)
		add(path+"verify.identity-files", c.Verify.IdentityFiles...)
	}
	s := conf.Daemon.Server
	add("daemon.server.key-file", s.KeyFile)
	add("daemon.server.read-tokens-file", s.ReadTokensFile)
	add("daemon.server.operate-tokens-file", s.OperateTokensFile)
	for i, n := range conf.Daemon.Notifications {
		path := fmt.Sprintf("daemon.notifications[%d].", i)
		if n.Webhook != nil {
			add(path+"webhook.url-file", n.Webhook.URLFile)
			add(path+"webhook.bearer-token-file", n.Webhook.BearerTokenFile)
		}
		if n.Slack != nil {
			add(path+"slack.url-file", n.Slack.URLFile)
		}
		if n.Healthchecks != nil {
			add(path+"healthchecks.url-file", n.Healthchecks.URLFile)
		}
	}
	return out
}
