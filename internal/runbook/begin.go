package runbook

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/members"
)

func introduce(b *book) {
	p := b.plan
	b.heading(1, "Restore cluster %s", plain(p.Stored.Cluster))
	b.text("Written by `backupd runbook` on %s UTC for the plan `%s`. Commands are for root, in bash. Do each step on "+
		"all hosts before the next one. A word in capitals is not known: set it, or the shell refuses the command.",
		b.o.Now.UTC().Format(time.DateTime), plain(b.file()))
	b.text("The cluster becomes what it was in %s%s. **Everything that was written after it is "+
		"lost.**", plain(p.Source.Name),
		age(b))
	rows := [][]string{{"member", "host", "started by", "data directory", "WAL"}}
	for _, n := range b.nodes {
		rows = append(rows, row(n))
	}
	b.table(rows)
	if p.Source.Kubernetes != nil {
		b.text("It holds %d objects of Kubernetes.", p.Source.Kubernetes.Objects)
		if len(p.Source.Kubernetes.Keys) > 0 {
			b.text("**Some are encrypted. Look for these keys now**, in the files of the API servers' " +
				"`--encryption-provider-config`; without them nobody reads these objects again:")
			b.list(keysOf(p.Source.Kubernetes)...)
		}
	}
	var notes []string
	for _, note := range slices.Concat(p.Notes, b.o.Notes) {
		if p.Source.Kubernetes == nil || !slices.Contains(p.Source.Kubernetes.Notes(), note) {
			notes = append(notes, note)
		}
	}
	if len(notes) > 0 {
		b.text("Know before you begin:")
		b.list(notes...)
	}
}

// age of the snapshot.
func age(b *book) string {
	taken := b.plan.Source.Taken
	if taken.IsZero() {
		return ""
	}
	return fmt.Sprintf(", taken on %s UTC, %s before this was written", taken.UTC().Format(time.DateTime),
		span(b.o.Now.Sub(taken)))
}

// span is a time in words.
func span(d time.Duration) string {
	hours, minutes := int(d.Hours()), int(d.Minutes())%60
	if hours >= 48 {
		return fmt.Sprintf("%d days and %d hours", hours/24, hours%24)
	}
	if d < time.Minute {
		return "less than a minute"
	}
	return fmt.Sprintf("%d hours and %d minutes", hours, minutes)
}

// row is that of a member in the table.
func row(n node) []string {
	p := n.place
	by := string(p.Means)
	if p.Unit != "" {
		by += " " + p.Unit
	}
	data, wal := p.DataDir, p.WALDir
	if p.Volume != nil {
		data, wal = p.Volume.DataDir+" in the volume "+p.Volume.Name, p.Volume.WALDir
	}
	cells := []string{n.Name, n.host, by, data, wal}
	for i := range cells {
		if i >= 2 && i < 4 && cells[i] == "" {
			cells[i] = "NOT KNOWN"
		}
		if n.like != "" && i >= 2 && cells[i] != "" && cells[i] != "NOT KNOWN" {
			cells[i] += " (assumed)"
		}
	}
	return cells
}

// table has its columns aligned, for a terminal.
func (p *page) table(rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.ReplaceAll(plain(cell), "|", `\|`)
			widths[i] = max(widths[i], len([]rune(row[i])))
		}
	}
	line := func(row []string, fill string) {
		for i, cell := range row {
			p.WriteString("| " + cell + strings.Repeat(fill, widths[i]-len([]rune(cell))) + " ")
		}
		p.WriteString("|\n")
	}
	line(rows[0], " ")
	line(make([]string, len(widths)), "-")
	for _, row := range rows[1:] {
		line(row, " ")
	}
	p.WriteString("\n")
}

// carry brings the plan, and what else a restore needs, to each host.
func carry(b *book) {
	b.heading(2, "0. Carry the plan to each host")
	if b.is(members.StatefulSet) {
		carryToPods(b)
		return
	}
	b.text("Each host needs the program `backupd`, the plan, and what leads to the snapshot. The commands of the next " +
		"steps are run in the folder that has the plan, here the home of root.")
	b.commands(copies(b)...)
	needs(b)
	if lines := exports(b); len(lines) > 0 {
		b.text("On each host, in the shell of the next steps:")
		b.commands(lines...)
	}
}

// needs are said where no command can help.
func needs(b *book) {
	s := b.plan.Stored
	if s.Encryption != "" {
		b.text("**The snapshot is encrypted.** It takes the age identity (the private key) of one of: %s",
			plain("`"+strings.Join(s.Recipients, "`, `")+"`"))
	}
	if strings.HasPrefix(s.Repository, "s3:") {
		b.text("A host that reaches the bucket without a file, by its own role, needs none.")
	}
	if path, ok := strings.CutPrefix(s.Repository, "file://"); ok {
		b.text("The repository is the folder `%s`: mount it on each host, or copy it there. At another place it takes "+
			"`--repo=file:///PLACE` with each restore.", plain(path))
	}
}

func copies(b *book) []string {
	var lines []string
	for _, host := range b.hosts() {
		to := "root@" + host + ":"
		if strings.Contains(host, ":") {
			to = "root@[" + host + "]:"
		}
		lines = append(lines, q("scp", b.o.File, to))
		for _, s := range b.secrets() {
			lines = append(lines, "scp "+s.word()+" "+q(to+s.file))
		}
	}
	return lines
}

// secretFile is one that a restore needs, and that no plan has.
type secretFile struct {
	file           string // its name on each host
	variable, what string
}

// word is the file where the runbook begins.
func (s secretFile) word() string { return ask(s.variable, s.what) }

// secrets are the files that lead to the snapshot.
func (b *book) secrets() []secretFile {
	var out []secretFile
	if b.plan.Stored.Encryption != "" {
		out = append(out, secretFile{"identity.txt", "BACKUPD_IDENTITY", "file of the age identity"})
	}
	if strings.HasPrefix(b.plan.Stored.Repository, "s3:") {
		out = append(out, secretFile{
			"s3-credentials", "BACKUPD_S3_CREDENTIALS_FILE", "file with a key of the bucket that may read",
		})
	}
	return out
}

// exports are the settings of each host's shell.
func exports(b *book) []string {
	var out []string
	for _, s := range b.secrets() {
		out = append(out, "export "+s.variable+`="$PWD/`+s.file+`"`)
	}
	return out
}

func carryToPods(b *book) {
	b.text("Pods do the restore. They need an image of backupd, and the plan with what leads to the snapshot, in a " +
		"Secret for the time of the restore.")
	needs(b)
	line := b.setOf(b.nodes[0]).kubectl("create", "secret", "generic", "backupd-restore",
		"--from-file="+b.file()+"="+b.o.File)
	for _, s := range b.secrets() {
		line += " \\\n  --from-file=" + s.file + "=" + s.word()
	}
	b.commands("export "+`IMAGE="${IMAGE:?image of backupd}"`, line)
}
