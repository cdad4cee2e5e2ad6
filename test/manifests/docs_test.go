package manifests

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	security "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

const docs = "../../docs/deploy"

// blocks returns the fenced blocks of a page in one language.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(read(t,
		filepath.Join(docs, page)), -1) {
		out = append(out, m[1])
	}
	return out
}

// heredoc returns what a command of a page writes to a file.
func heredoc(t *testing.T, page, file string) string {
	t.Helper()
	for _, block := range blocks(t, page, "sh") {
		if _, after, ok := strings.Cut(block, "cat > "+file+" <<'END'\n"); ok {
			content, _, _ := strings.Cut(after, "\nEND\n")
			return content + "\n"
		}
	}
	t.Fatalf("%s writes no %s", page, file)
	return ""
}

func TestObjectsInDocs(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, block := range blocks(t, "kubernetes.md", "yaml") {
		if strings.Contains(block, "cert-manager.io/v1") || !strings.Contains(block, "kind: ") {
			continue // no types of that here, or no object
		}
		o, err := decode([]byte(block))
		if err != nil {
			t.Fatalf("%v\n%s", err, block)
		}
		p := o.(*core.Pod)
		v := security.LevelVersion{Level: security.LevelRestricted, Version: security.LatestVersion()}
		if r := policy.AggregateCheckResults(evaluator.EvaluatePod(v, &meta.ObjectMeta{}, &p.Spec)); !r.Allowed {
			t.Errorf("%s is not restricted: %s", p.Name, r.ForbiddenDetail())
		}
		checkContainer(t, p.Name, p.Spec.Containers[0])
		// Help is shown only where every flag is known.
		out, _ := run(t, backupd(t), append(p.Spec.Containers[0].Args, "--help")...)
		if !strings.Contains(out, "Restore a snapshot") {
			t.Errorf("backupd %s:\n%s", p.Spec.Containers[0].Args, out)
		}
		found++

		// With the lines for encrypted snapshots it mounts what it reads.
		o, err = decode([]byte(regexp.MustCompile(`(?m)^( +)# - `).ReplaceAllString(block, "$1- ")))
		if err != nil {
			t.Fatal(err)
		}
		p = o.(*core.Pod)
		args := strings.Join(p.Spec.Containers[0].Args, " ")
		if len(p.Spec.Volumes) != 4 || !strings.Contains(args, " --identity=/etc/backupd/identity/key.txt") {
			t.Errorf("with the lines for the identity: %v, %s", p.Spec.Volumes, args)
		}
		checkContainer(t, p.Name, p.Spec.Containers[0])
	}
	if found != 1 {
		t.Errorf("%d objects in the page, want one", found)
	}
}

func TestValuesInDocs(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal([]byte(heredoc(t, "kubernetes.md", "values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	if _, err := renderChart(values); err != nil {
		t.Error(err)
	}
}

// TestVersionInDocs: pages name the image that there is.
func TestVersionInDocs(t *testing.T) {
	version := appVersion(t)
	for _, page := range []string{"container.md", "kubernetes.md", "release.md"} {
		for _, image := range regexp.MustCompile("ghcr\\.io/etcd-backupd/backupd:[^\\s`]+").FindAllString(read(t,
			filepath.Join(docs, page)), -1) {
			if image != "ghcr.io/etcd-backupd/backupd:"+version {
				t.Errorf("%s names %s, the chart %s", page, image, version)
			}
		}
	}
}

var topicOf = regexp.MustCompile(`backupd help [a-z0-9]+`)

// TestFlagsInDocs: every backupd command of the pages and of the chart's notes has
// the flags it is given.
func TestFlagsInDocs(t *testing.T) {
	pages := []string{"systemd.md", "container.md", "kubernetes.md", "../runbooks/alerts.md", "supervisord.md", "s3.md",
		"from-cron.md", "restore-in-pods.md", "upgrade.md", "sizing.md", "managed.md", "../faq.md", "../comparison.md",
		"../runbooks/rotation.md"}
	var text strings.Builder
	for _, page := range pages {
		text.WriteString(strings.ReplaceAll(read(t, filepath.Join(docs, page)), "\\\n", " "))
	}
	for _, s := range sets(t) {
		text.WriteString(strings.ReplaceAll(s.notes, "\\\n", " "))
	}
	command := regexp.MustCompile(`\bbackupd ` +
		`(run|backup|status|check|config check|list|show|plan|verify-cluster|verify|restore|prune|pin|rm)\b` +
		`([^` + "`" + `\n|]*)`)
	seen := map[string]string{}
	for _, m := range command.FindAllStringSubmatch(text.String(), -1) {
		for _, flag := range regexp.MustCompile(`--[a-z0-9-]+`).FindAllString(m[2], -1) {
			seen[m[1]+" "+flag] = m[0]
		}
	}
	if len(seen) < 15 {
		t.Fatalf("flags %v, want more", seen)
	}
	help := map[string]string{}
	for key, where := range seen {
		i := strings.LastIndex(key, " ")
		name, flag := key[:i], key[i+1:]
		if help[name] == "" {
			out, err := run(t, backupd(t), append(strings.Fields(name), "--help")...)
			if err != nil {
				t.Fatalf("backupd %s --help: %v", name, err)
			}
			// Flags that many commands share stand on pages of their own.
			for _, topic := range topicOf.FindAllString(out, -1) {
				more, err := run(t, backupd(t), strings.Fields(topic)[1:]...)
				if err != nil {
					t.Fatalf("%s: %v", topic, err)
				}
				out += more
			}
			help[name] = out
		}
		if !strings.Contains(help[name], flag+" ") {
			t.Errorf("backupd %s has no flag %s: %s", name, flag, where)
		}
	}
}
