package backupd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/etcd-backupd/backupd/"

// stairs is the house: a package may import only packages on lower stairs.
// docs/design.md describes each.
var stairs = map[string]int{
	"cmd/backupd":                    8,
	"internal/daemon":                7,
	"internal/duty":                  6,
	"internal/check":                 6,
	"internal/config":                5,
	"internal/confirm":               3,
	"internal/runbook":               3,
	"internal/drill":                 5,
	"internal/intake":                5,
	"internal/snapshot":              4,
	"internal/copies":                4,
	"internal/repository/prune":      4,
	"internal/health":                4,
	"internal/repository/choice":     4,
	"internal/repository/reread":     4,
	"internal/repository":            3,
	"internal/snapshot/compare":      2,
	"internal/spool":                 2,
	"internal/companion":             2,
	"internal/record":                2,
	"internal/textfile":              2,
	"internal/repository/catalog":    1,
	"internal/repository/identity":   1,
	"internal/repository/streams":    2,
	"internal/restore":               2,
	"internal/rescue":                2,
	"internal/rescue/entry":          1,
	"internal/rescue/snapfile":       1,
	"internal/daemon/board":          3,
	"internal/daemon/counters":       3,
	"internal/restore/fill":          1,
	"internal/restore/room":          1,
	"internal/restore/memberlog":     0,
	"internal/restore/inuse":         1,
	"internal/restore/undo":          2,
	"internal/restore/again":         3,
	"internal/restore/plainyaml":     0,
	"internal/restore/token":         1,
	"internal/restore/alive":         2,
	"internal/members":               1,
	"internal/members/from":          5,
	"internal/members/srv":           2,
	"internal/members/settings":      2,
	"internal/members/unit":          3,
	"internal/members/prepare":       2,
	"internal/members/shell":         2,
	"internal/members/kube":          3,
	"internal/members/container":     3,
	"internal/members/script":        4,
	"internal/location":              2, // knows the implementations
	"internal/storage":               1,
	"internal/storage/file":          1, // below storage: its own subfolders may import it
	"internal/storage/s3":            1,
	"internal/storage/storagetest":   1,
	"internal/codec":                 1,
	"internal/cluster/wire":          0,
	"internal/cluster/endpoint":      0,
	"internal/cluster/defrag":        2,
	"internal/cluster/replace":       2,
	"internal/cluster":               1,
	"internal/etcddb":                1,
	"internal/publish":               1,
	"internal/retention":             1,
	"internal/history":               1,
	"internal/schedule":              1,
	"internal/notify":                1,
	"internal/server":                2,
	"internal/server/callers":        1,
	"internal/server/crowd":          0,
	"internal/daemon/systemd":        0,
	"internal/openfiles":             1,
	"internal/config/strict":         1,
	"internal/check/greet":           0,
	"internal/check/companions":      3,
	"internal/check/certificate":     1,
	"internal/check/release":         0,
	"internal/check/host":            1,
	"internal/etcddb/buckets":        0,
	"internal/etcddb/child":          0,
	"internal/etcddb/keyset":         0,
	"internal/etcddb/keyvalue":       0,
	"internal/etcddb/metapage":       0,
	"internal/etcddb/registry":       0,
	"internal/etcddb/runs":           0,
	"internal/etcddb/sketch":         0,
	"internal/etcddb/trailer":        1,
	"internal/certs":                 0, // cluster, s3 and server speak TLS
	"internal/disk":                  0, // storage, spool, publish and restore use it
	"internal/backup":                0,
	"internal/behind":                0,
	"internal/pace":                  0,
	"internal/priority":              0,
	"internal/secret":                0,
	"internal/repository/acceptance": 4,
	"internal/repository/pause":      4,
	"internal/repository/highwater":  4,
	"internal/repository/lineage":    1,
	"internal/config/watch":          0,
	"internal/kubeapi":               1,
}

// testOnly packages may be imported by tests alone, and may import anything.
var testOnly = []string{
	"internal/testserver", "internal/testserver/rounds", "internal/storage/storagetest",
	"internal/storage/storagetest/mem",
	"test/e2e", "test/recovery", "bench",
}

// walls keep a dependency where it belongs, each with the reason.
var walls = []struct {
	dependency string
	allowed    []string
	why        string
}{
	{"github.com/aws/", []string{"internal/storage/s3"}, "a store's SDK stays behind the Store port"},
	{
		"go.etcd.io/",
		[]string{
			"internal/cluster", "internal/cluster/wire", "internal/etcddb", "internal/etcddb/buckets", "internal/restore",
			"internal/restore/fill", "internal/restore/inuse", "internal/restore/again", "internal/members",
			"internal/members/srv",
			"internal/drill", "internal/cluster/defrag", "internal/confirm",
			"internal/cluster", "internal/cluster/replace", "internal/cluster/wire", "internal/cluster/defrag",
			"internal/etcddb", "internal/etcddb/buckets", "internal/restore", "internal/restore/inuse", "internal/members",
			"internal/members/srv", "internal/drill", "internal/confirm",
			"internal/drill", "internal/cluster/defrag", "internal/confirm", "internal/rescue", "internal/rescue/entry",
		},
		"etcd's modules change between minors; few places must follow",
	},
	{
		"go.uber.org/zap",
		[]string{
			"internal/cluster", "internal/etcddb", "internal/members", "internal/restore", "internal/restore/memberlog",
			"internal/drill", "internal/rescue",
			"cmd/backupd",
		},
		"our code logs by slog; zap is where etcd's libraries ask for it",
	},
	{"github.com/spf13/cobra", []string{"cmd/backupd"}, "commands are the only users of flags"},
	{
		"github.com/prometheus/",
		[]string{"internal/server", "internal/daemon", "internal/daemon/counters", "internal/textfile"},
		"metrics are the daemon's; what it runs returns values",
	},
	{"filippo.io/age", []string{"internal/codec"}, "one place knows how bytes are encrypted"},
	{"github.com/klauspost/compress", []string{"internal/codec"}, "one place knows how bytes are compressed"},
	{"testing", []string{"internal/testserver", "internal/storage/storagetest"}, "no testing in what ships"},
}

type file struct {
	path string // of its package, below the module
	test bool
	ast  *ast.File
}

func goFiles(t *testing.T) []file {
	t.Helper()
	var out []file
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			// Modules of their own are not part of the house.
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != "." || d.Name() == "testdata" ||
				d.Name() == ".git" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, file{filepath.ToSlash(filepath.Dir(path)), strings.HasSuffix(path, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func imports(f file) []string {
	var out []string
	for _, i := range f.ast.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

func TestImportsGoDownTheStairs(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test || f.path == "." || slices.Contains(testOnly, f.path) {
			continue
		}
		seen[f.path] = true
		stair, ok := stairs[f.path]
		if !ok {
			t.Errorf("%s has no stair: give it one here and in docs/design.md", f.path)
			continue
		}
		for _, imp := range imports(f) {
			below, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if slices.Contains(testOnly, below) {
				t.Errorf("%s ships and imports %s, which is for tests", f.path, below)
			}
			// An implementation of the port may import the port.
			if stairs[below] >= stair && !strings.HasPrefix(f.path, below+"/") {
				t.Errorf("%s (stair %d) imports %s (stair %d): imports go down only", f.path, stair, below,
					stairs[below])
			}
		}
	}
	for pkg := range maps.Keys(stairs) {
		if !seen[pkg] && !slices.Contains(testOnly, pkg) {
			t.Errorf("%s has a stair but does not exist", pkg)
		}
	}
}

func TestWalls(t *testing.T) {
	used := map[string]bool{}
	for _, f := range goFiles(t) {
		for _, imp := range imports(f) {
			for _, w := range walls {
				if imp != w.dependency && !strings.HasPrefix(imp, strings.TrimSuffix(w.dependency, "/")+"/") {
					continue
				}
				used[w.dependency] = true
				if !f.test && !slices.Contains(w.allowed, f.path) && !slices.Contains(testOnly, f.path) {
					t.Errorf("%s imports %s: %s", f.path, imp, w.why)
				}
			}
		}
	}
	for _, w := range walls {
		if !used[w.dependency] {
			t.Errorf("nothing imports %s: the wall has nothing to keep", w.dependency)
		}
	}
}

// TestOnlyAPersonChangesMembers: the package that changes the members of a cluster is called by
// a command, and by nothing that runs by itself; and no other package does such a thing.
func TestOnlyAPersonChangesMembers(t *testing.T) {
	const changes = "internal/cluster/replace"
	callers := 0
	for _, f := range goFiles(t) {
		if f.test || slices.Contains(testOnly, f.path) || !slices.Contains(imports(f), module+changes) {
			continue
		}
		callers++
		if f.path != "cmd/backupd" {
			t.Errorf("%s imports %s, which only a person's command may call", f.path, changes)
		}
	}
	if callers == 0 {
		t.Errorf("nothing imports %s: this test does not see the imports", changes)
	}
	request := regexp.MustCompile(`\.Member(Add|AddAsLearner|Remove|Update|Promote)\(`)
	for pkg := range stairs {
		files, err := filepath.Glob(filepath.Join(pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(path, "_test.go") && pkg != changes && request.Match(raw) {
				t.Errorf("%s changes the members of a cluster: only %s does", path, changes)
			}
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	comments := map[string]int{}
	for _, f := range goFiles(t) {
		if f.test {
			continue
		}
		comments[f.path] += 0
		if doc := f.ast.Doc.Text(); doc != "" {
			comments[f.path]++
			want := "Package " + f.ast.Name.Name + " "
			if f.ast.Name.Name == "main" {
				want = "Command "
			}
			if !strings.HasPrefix(doc, want) {
				t.Errorf("%s: the package comment begins with %q, want %q", f.path, doc[:min(len(doc), 30)], want)
			}
		}
	}
	for pkg, n := range comments {
		if n != 1 {
			t.Errorf("%s has %d package comments, want one", pkg, n)
		}
	}
}

func TestFilesStaySmall(t *testing.T) {
	for _, f := range goFiles(t) {
		if n := f.ast.FileEnd; !f.test && n > 24_000 {
			t.Errorf("%s: a file of %d bytes: split it", f.path, n)
		}
	}
}
