package backupd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// hosted is how a page names a file of this repository from outside.
const hosted = "https://github.com/etcd-backupd/backupd/blob/main/"

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	link    = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	shown   = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`) // the text of a link
)

// pages returns all Markdown files, without their blocks of code.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out[path] = fence.ReplaceAllString(string(raw), "")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// anchors returns what GitHub makes of the headings of a page.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		out[anchor(shown.ReplaceAllString(m[1], "$1"))] = true
	}
	return out
}

func anchor(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, text)
}

// TestLinks: every link within the repository leads to a file that is there, and
// to a heading that is there.
func TestLinks(t *testing.T) {
	all := pages(t)
	checked := 0
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, base := m[1], filepath.Dir(path)
			if rest, ok := strings.CutPrefix(target, hosted); ok {
				target, base = rest, "."
			}
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			checked++
			file, fragment, _ := strings.Cut(target, "#")
			to := path
			if file != "" {
				to = filepath.Join(base, file)
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: link to %s: there is no %s", path, target, to)
			} else if fragment != "" && !anchors(all[to])[fragment] {
				t.Errorf("%s: link to %s: %s has no such heading", path, target, to)
			}
		}
	}
	if checked < 20 {
		t.Errorf("%d links found: the test looks in the wrong place", checked)
	}
}

// TestEveryPageIsReached: nobody finds a page without a link to it.
func TestEveryPageIsReached(t *testing.T) {
	all := pages(t)
	reached := map[string]bool{}
	for path, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			file, _, _ := strings.Cut(m[1], "#")
			reached[filepath.Join(filepath.Dir(path), file)] = true
		}
	}
	for path := range all {
		if strings.HasPrefix(path, "docs"+string(filepath.Separator)) && !reached[path] {
			t.Errorf("%s: no page has a link to it", path)
		}
	}
}

// TestTheHouseIsDocumented: docs/design.md shows every package on its stair.
func TestTheHouseIsDocumented(t *testing.T) {
	raw, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^(\d)  ((?:cmd|internal)/\S+) `).FindAllStringSubmatch(string(raw), -1) {
		shown[m[2]] = int(m[1][0] - '0')
	}
	for pkg, stair := range stairs {
		if _, ok := shown[pkg]; !ok && strings.HasPrefix(pkg, "internal/storage/") {
			continue // described with internal/storage
		}
		if got, ok := shown[pkg]; !ok || got != stair {
			t.Errorf("%s is on stair %d; docs/design.md says %d (shown: %v)", pkg, stair, got, ok)
		}
		delete(shown, pkg)
	}
	for pkg := range shown {
		t.Errorf("docs/design.md shows %s, which has no stair", pkg)
	}
}

// TestReadmeIsShort: the front door is read as a whole.
func TestReadmeIsShort(t *testing.T) {
	info, err := os.Stat("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 12_000 {
		t.Errorf("README.md has %d bytes: move something to docs", info.Size())
	}
}
