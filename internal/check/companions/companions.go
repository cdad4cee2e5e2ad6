// Package companions reads the companion files of this host, and the Secrets of Kubernetes among them,
// as a backup would, and says which of them no snapshot would have.
package companions

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/companion"
)

// Section is that of all findings.
const Section = "companions"

const (
	readable = "let backupd read it where it is expected, correct it, or take it off the list of companions: until then " +
		"each snapshot is stored without it, and each backup fails"
	allowed = "let backupd read it, or take it off the list of companions: until then each snapshot is stored without " +
		"it, and each backup fails"
	encrypt = "give the snapshots recipients, unless everybody who reads the repository may have these files"
)

// Check collects the files, and stores nothing. It reports nothing if none are asked for. plain says
// that they would be stored in plain text.
func Check(
	ctx context.Context, files companion.Files, subject string, plain bool,
) (out []backup.Finding) {
	if files.None() {
		return nil
	}
	add := func(level backup.Level, hint, format string, args ...any) {
		out = append(out, backup.Finding{
			Section: Section, Subject: subject, Level: level, Text: fmt.Sprintf(format, args...), Hint: hint,
		})
	}
	about := files.Collect(ctx).About
	for _, m := range about.Missing {
		what, hint := m.Path, readable
		if name, _ := backup.SecretOf(m.Path); name != "" {
			what, hint = "Secret "+name, allowed
		}
		add(backup.LevelFailure, hint, "%s: %s", what, m.Reason)
	}
	bytes, n, secrets := int64(0), 0, map[string]bool{}
	for _, f := range about.Files {
		if name, _ := backup.SecretOf(f.Path); name != "" {
			secrets[name] = true
			continue
		}
		bytes += f.Bytes
		n++
	}
	for _, name := range about.Secrets {
		if secrets[name] {
			add(backup.LevelOK, "", "Secret %s can be read", name)
		}
	}
	if n > 0 {
		what := "companion files with %s of host %s can be read"
		if n == 1 {
			what = "companion file with %s of host %s can be read"
		}
		add(backup.LevelOK, "", "%d "+what, n, humanize.IBytes(uint64(bytes)), about.Host)
	}
	if len(about.From) > 0 && len(about.Missing) == 0 {
		add(backup.LevelOK, "", "a restore by --from-snapshot would read %d of them to find name and places of the member",
			len(about.From))
	}
	if plain && len(about.Files) > 0 {
		add(backup.LevelWarning, encrypt, "they would be stored in plain text, and may be keys")
	}
	return out
}
