package runbook

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/restore"
)

func restoreAll(b *book) {
	b.heading(2, "2. Restore each member")
	b.text("First the dry run, which does all but the restore, and leaves everything as it is. "+
		"`--replace` moves old data that lies there aside, to "+
		"`DIR%sTIME`, and deletes nothing. A command that was interrupted is run again as it is.", restore.AsidePrefix)
	if b.is(members.StatefulSet) {
		b.text("A wait does not end early if its pod fails: `kubectl get pods` shows it, and `kubectl logs` says why. " +
			"Delete the pod then, and begin its block again.")
	}
	for _, n := range b.nodes {
		b.heading(3, "%s", n.title())
		if text := caution(n); text != "" {
			b.text("%s", text)
		}
		if n.place.Means == members.StatefulSet {
			restoreInPod(b, n)
			continue
		}
		restoreHere(b, n)
	}
}

// restoreHere restores on the host.
func restoreHere(b *book, n node) {
	for _, text := range n.restoreTexts() {
		b.text("%s", text)
	}
	if n.place.Stored != "" {
		b.text("Put its files back first: this extracts them into a new folder. Compare them with those of this host, and " +
			"copy what is not there, or is another file, to its place.")
		b.commands(extract(b, n))
	}
	lines, words := n.directory()
	command := q("backupd", "restore", "--plan", b.file(), "--name", n.Name) + words
	if owner := n.owner(); owner != "" && !n.plannedOwner {
		command += " --chown " + owner
	}
	if n.like == "" && n.place.Means != "" {
		command += " --replace"
	}
	if b.plan.Stored.New {
		command += " --new"
	}
	b.commands(append(lines, command+" --dry-run")...)
	b.text(compare)
	b.commands(append(lines, command)...)
}

// extract is the command that extracts the files of a member's host.
func extract(b *book, n node) string {
	s := b.plan.Stored
	words := []string{"backupd", "companions", n.place.Stored, "--repo=" + s.Repository, "--cluster=" + s.Cluster}
	for _, setting := range s.Settings {
		words = append(words, "--"+setting)
	}
	return q(append(words, "--output-dir=companions-"+strings.ReplaceAll(plain(n.Name), "/", "_"))...)
}

// compare stands between a dry run and the restore, so that nobody runs both at once.
const compare = "Compare the data directory, the name and the peer URLs with what you know. If they are right:"

// restoreTexts are what the commands do not say.
func (n node) restoreTexts() []string {
	var out []string
	p := n.place
	if p.DataDir != "" {
		text := "Data directory `" + plain(p.DataDir) + "`"
		if p.WALDir != "" && p.WALDir != unknownWAL {
			text += ", WAL `" + plain(p.WALDir) + "`"
		}
		out = append(out, text+".")
	}
	if n.like != "" || p.Means == "" {
		out = append(out, "If the dry run is refused because old data lies there, look at it, and add `--replace` to both "+
			"commands.")
	}
	if !n.planned && p.WALDir == "" && (n.like != "" || p.DataDir == "" && p.Volume == nil) {
		out = append(out, "If etcd is started with `--wal-dir` here, add the same `--wal-dir`: a server that finds its old "+
			"WAL replays it over the restored data.")
	}
	if p.Owner == "" {
		out = append(out, "The owner is not known: the data will belong to the owner of the directory that is replaced, "+
			"and to root if there is none. If etcd runs as another user, add `--chown USER:GROUP`.")
	}
	return out
}

// directory returns commands that find the directories, and the flags that name them. The
// restore knows those that the plan has.
func (n node) directory() (lines []string, flags string) {
	p := n.place
	switch {
	case n.planned:
		return nil, ""
	case p.Volume != nil && p.Means == members.Container:
		v := p.Volume
		format := fmt.Sprintf("{{range .Mounts}}{{if eq .Destination %q}}{{.Source}}{{end}}{{end}}", v.MountPath)
		lines = []string{"VOLUME=\"$(docker inspect --format " + q(format) + " " + n.container() + ")\""}
		within := func(path string) string {
			rest := strings.Trim(strings.TrimPrefix(path, v.MountPath), "/")
			return `"${VOLUME:?volume of the data}"` + suffix(rest)
		}
		flags = " --data-dir " + within(v.DataDir)
		if v.WALDir != "" {
			flags += " --wal-dir " + within(v.WALDir)
		}
		return lines, flags
	}
	flags = " --data-dir " + orAsk(p.DataDir, "DATA_DIR", "data directory of etcd here")
	switch p.WALDir {
	case "":
	case unknownWAL:
		flags += " --wal-dir " + ask("WAL_DIR", "WAL directory of etcd here")
	default:
		flags += " --wal-dir " + q(p.WALDir)
	}
	return nil, flags
}

func suffix(rest string) string {
	if rest == "" {
		return ""
	}
	return "/" + q(rest)
}

// owner is the value of --chown, for a shell; empty if it is not known.
func (n node) owner() string {
	user, group, ok := strings.Cut(n.place.Owner, ":")
	if !ok || group != "" {
		return strings.TrimSpace(quoted(n.place.Owner))
	}
	return q(user) + `:"$(id -gn ` + q(user) + `)"`
}

func quoted(text string) string {
	if text == "" {
		return ""
	}
	return q(text)
}

// restoreInPod is by a pod that has the claim of the member.
func restoreInPod(b *book, n node) {
	v := n.place.Volume
	if v == nil {
		b.text("No claim of a volume with the data is found in the file: the data of this pod is gone with it, or lies " +
			"where this runbook cannot say.")
		return
	}
	b.text("The claim `%s` is mounted at `%s`, and the data is in `%s`. The dry run:", plain(v.Name),
		plain(v.MountPath), plain(v.DataDir))
	args := []string{
		"restore", "--plan=/restore/" + b.file(), "--name=" + n.Name, "--data-dir=" + v.DataDir, "--replace",
	}
	if v.WALDir != "" {
		args = append(args, "--wal-dir="+v.WALDir)
	}
	if b.plan.Stored.New {
		args = append(args, "--new")
	}
	args = append(args, access(b)...)
	s := b.setOf(n)
	for _, dry := range []bool{true, false} {
		pod := pod{name: "restore-" + n.place.Unit, args: args, volume: v, owner: n.place.Owner}
		if dry {
			pod.name, pod.args = "try-"+n.place.Unit, append(args[:len(args):len(args)], "--dry-run")
		}
		b.commands(s.run(pod)...)
		if dry {
			b.text(compare)
		}
	}
}

// access are the flags that lead a pod to the snapshot.
func access(b *book) []string {
	var out []string
	for _, s := range b.secrets() {
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(s.variable, "BACKUPD_"), "_", "-"))
		out = append(out, "--"+flag+"=/restore/"+s.file)
	}
	return out
}

// pod runs backupd once.
type pod struct {
	name   string
	args   []string
	volume *members.Volume // nil for none
	owner  string          // UID:GID, or empty for root
}

// run are the commands that run a pod to its end.
func (s set) run(p pod) []string {
	return []string{
		s.kubectl("apply", "-f", "-") + " <<EOF\n" + p.manifest() + "EOF",
		s.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/"+p.name, "--timeout=30m"),
		s.kubectl("logs", p.name), s.kubectl("delete", "pod", p.name),
	}
}

// manifest is read by a shell that replaces IMAGE.
func (p pod) manifest() string {
	uid, gid, ok := strings.Cut(p.owner, ":")
	if !ok {
		uid, gid = "0", "0"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsUser: %s, runAsGroup: %s, fsGroup: %s}
  containers:
    - name: backupd
      image: ${IMAGE:?image of backupd}
      args:
`, p.name, uid, cmp.Or(gid, "0"), cmp.Or(gid, "0"))
	for _, arg := range p.args {
		fmt.Fprintf(&b, "        - %s\n", inHeredoc(arg))
	}
	b.WriteString("      volumeMounts:\n        - {name: restore, mountPath: /restore, readOnly: true}\n" +
		"        - {name: tmp, mountPath: /tmp}\n")
	if p.volume != nil {
		fmt.Fprintf(&b, "        - name: data\n          mountPath: %s\n", inHeredoc(p.volume.MountPath))
		if p.volume.Below != "" {
			fmt.Fprintf(&b, "          subPath: %s\n", inHeredoc(filepath.Clean(p.volume.Below)))
		}
	}
	b.WriteString("  volumes:\n    - {name: restore, secret: {secretName: backupd-restore, defaultMode: 0440}}\n" +
		"    - {name: tmp, emptyDir: {}}\n")
	if p.volume != nil {
		fmt.Fprintf(&b, "    - {name: data, persistentVolumeClaim: {claimName: %s}}\n", inHeredoc(p.volume.Name))
	}
	return b.String()
}

// inHeredoc is text in quotes of YAML, in which a shell replaces nothing.
func inHeredoc(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	return strings.NewReplacer(`\`, `\\`, "$", `\$`, "`", "\\`").Replace(quoted)
}
