package backupd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxChain   = 7    // packages one below the other, from the command to the nouns, both included
	maxLines   = 2000 // of a package, without tests
	maxMethods = 15   // of a type
)

// large packages may have more than maxLines, each with the reason.
var large = map[string]string{
	"cmd/backupd":            "one file a command; nothing imports it",
	"internal/members/shell": "one language, evaluated in one place",
	"internal/storage/s3":    "what S3 servers do differently has one place",
}

func TestChainsAreShort(t *testing.T) {
	below := map[string][]string{}
	for _, f := range goFiles(t) {
		if f.test || slices.Contains(testOnly, f.path) {
			continue
		}
		for _, imp := range imports(f) {
			if pkg, ours := strings.CutPrefix(imp, module); ours && !slices.Contains(below[f.path], pkg) {
				below[f.path] = append(below[f.path], pkg)
			}
		}
	}
	chains := map[string][]string{}
	var longest func(pkg string) []string
	longest = func(pkg string) []string {
		if chain, ok := chains[pkg]; ok {
			return chain
		}
		var best []string
		for _, next := range below[pkg] {
			if chain := longest(next); len(chain) > len(best) {
				best = chain
			}
		}
		chains[pkg] = append([]string{pkg}, best...)
		return chains[pkg]
	}
	chain := longest("cmd/backupd")
	if got := len(chain); got > maxChain {
		t.Errorf("%d packages one below the other, want at most %d: %s", got, maxChain, strings.Join(chain, " > "))
	}
	if len(chain) < 5 {
		t.Fatalf("the longest chain is %v: this test does not see the imports", chain)
	}
}

func TestPackagesAndTypesAreSmall(t *testing.T) {
	lines, methods := map[string]int{}, map[string]int{}
	for pkg := range stairs {
		if slices.Contains(testOnly, pkg) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(pkg, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		once := map[string]bool{} // a method may have a file for each system
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			lines[pkg] += strings.Count(string(raw), "\n")
			f, err := parser.ParseFile(token.NewFileSet(), path, raw, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Recv == nil {
					continue
				}
				of := pkg + "." + receiver(fn)
				if !once[of+"."+fn.Name.Name] {
					methods[of]++
				}
				once[of+"."+fn.Name.Name] = true
			}
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(lines)) {
		if _, ok := large[pkg]; lines[pkg] > maxLines && !ok {
			t.Errorf("%s has %d lines, want at most %d", pkg, lines[pkg], maxLines)
		}
	}
	for _, of := range slices.Sorted(maps.Keys(methods)) {
		if methods[of] > maxMethods {
			t.Errorf("%s has %d methods, want at most %d", of, methods[of], maxMethods)
		}
	}
	if len(methods) < 50 {
		t.Fatalf("only %d types have methods: this test does not see them", len(methods))
	}
}

// receiver is the name of a method's type.
func receiver(fn *ast.FuncDecl) string {
	of := fn.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	switch g := of.(type) {
	case *ast.IndexExpr:
		of = g.X
	case *ast.IndexListExpr:
		of = g.X
	}
	return of.(*ast.Ident).Name
}
