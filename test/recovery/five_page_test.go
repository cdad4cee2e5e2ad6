//go:build long

package recovery_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kballard/go-shellquote"
)

var (
	pageBlock = regexp.MustCompile("(?s)(?:`(/[^`\n]+)`:\n\n)?```([a-z]+)\n(.*?)```")
	pageRoot  = regexp.MustCompile(`(^|[^A-Za-z0-9.}_])/(etc|opt|root|srv|var|mnt)/`)
)

// TestLongFive_Page runs every command of docs/restore-from.md, with the page's files, and
// demands what the page says that it says.
func TestLongFive_Page(t *testing.T) {
	raw, err := os.ReadFile("../../docs/restore-from.md")
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, "3.7")
	s.want(t, 0, []string{"init", s.repo[0]})
	for cluster, member := range map[string][2]string{
		"prod": {"m1", "http://" + s.addr(1) + ":2380"}, "kube": {"etcd-0", "http://etcd-0.etcd.storage:2380"},
	} {
		s.pageSource(t, cluster, member[0], member[1])
	}
	env := []string{"BACKUPD_REPO=" + strings.TrimPrefix(s.repo[0], "--repo="), "BACKUPD_CLUSTER=prod"}
	here := func(text string) string { // paths of the page are below the site's root
		text = pageRoot.ReplaceAllString(text, "${1}"+s.root+"/${2}/")
		return strings.NewReplacer("10.0.0.1", s.addr(1), "User=etcd\n", "User="+s.user+"\n",
			"user=etcd\n", "user="+s.user+"\n").Replace(text)
	}
	var last answer
	ran, compared := 0, 0
	for _, block := range pageBlock.FindAllStringSubmatch(string(raw), -1) {
		file, kind, text := block[1], block[2], here(block[3])
		switch {
		case file != "":
			s.writeFile(t, filepath.Join(s.root, file), text, 0o755)
		case kind == "sh":
			words, err := shellquote.Split(strings.TrimSpace(text))
			if err != nil || words[0] != "backupd" {
				t.Fatalf("%q: %v", text, err)
			}
			last = s.run(t, env, append([]string{s.program}, words[1:]...))
			ran++
			for _, dir := range []string{"var/lib/etcd", "srv", "mnt"} {
				removeAll(t, filepath.Join(s.root, dir))
			}
		case kind == "text":
			if refused := strings.HasPrefix(text, "Error:"); refused != (last.code == 78) || !refused && last.code != 0 {
				t.Errorf("exit code %d where the page has\n%s\n%s", last.code, text, last.stderr)
			}
			for line := range strings.Lines(text) {
				compared++
				if !strings.Contains(last.out+last.stderr, strings.TrimSpace(line)) {
					t.Errorf("%q is not in\n%s%s", line, last.out, last.stderr)
				}
			}
		default:
			t.Errorf("a block of the page is not checked: %s", block[0])
		}
	}
	if ran != 7 || compared < 13 {
		t.Errorf("%d commands were run, and %d lines compared", ran, compared)
	}
}

// pageSource makes a snapshot of a cluster with one member.
func (s *site) pageSource(t *testing.T, cluster, name, peer string) {
	t.Helper()
	s.install(t, 1, "usr/bin/etcd")
	client := "http://" + s.addr(1) + ":2379"
	p := s.start(t, []string{s.path(1, "usr/bin/etcd"), "--name", name, "--data-dir", t.TempDir(),
		"--listen-peer-urls", "http://" + s.addr(1) + ":2380", "--initial-advertise-peer-urls", peer,
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--initial-cluster", name + "=" + peer}, nil, "/", "")
	s.ready(t, "", []*process{p}, client)
	s.want(t, 0, []string{"backup", s.repo[0], "--cluster=" + cluster, "--endpoints=" + client})
	p.kill()
}
